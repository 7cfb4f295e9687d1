"""Charts: numbers -> inline SVG, coloured by the page's style sheet, with a description for screen readers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from maskrcnn.errors import counted

WIDTH, HEIGHT = 420, 240
"""Canvas units. The page scales them, which keeps the text readable on a phone."""

LEFT, RIGHT, TOP, BOTTOM = 50, 12, 10, 40
"""Margins around the plot, for the axis labels."""

MAX_POINTS = 240
"""Longer lines are averaged down to this many points: more would only enlarge the page."""

MAX_BARS = 24

QUANTILES = {"lowest": 0.0, "median": 0.5, "highest": 1.0}

MAX_MARKS = 40
"""Lines with more points than this are drawn without dots."""


@dataclass(frozen=True)
class Series:
    """A line through `x` and `y` (n,). `color` is 0 to 6, `faint` lines have no legend, `marks` adds dots at points."""

    name: str
    x: np.ndarray
    y: np.ndarray
    color: int = 0
    faint: bool = False
    marks: bool = False


@dataclass(frozen=True)
class Axis:
    """Label and range of an axis. A limit of None comes from the data."""

    label: str
    low: float | None = None
    high: float | None = None


def number(value: float | None) -> str:
    """Format a number briefly: 2.5e-4, 0.0123, 12.3, 4,560. None, NaN and infinity become a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    if value and (abs(value) < 1e-3 or abs(value) >= 1e7):
        digits, exponent = f"{value:.1e}".split("e")
        return f"{digits.removesuffix('.0')}e{int(exponent)}"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average neighbouring points down to at most `MAX_POINTS`, dropping values that are not finite."""
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) <= MAX_POINTS:
        return x, y
    starts = np.linspace(0, len(x), MAX_POINTS, endpoint=False).astype(np.int64)
    sizes = np.diff(starts, append=len(x))
    return np.add.reduceat(x, starts) / sizes, np.add.reduceat(y, starts) / sizes


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Return the moving average over `window` values, fewer at the ends. NaN is ignored."""
    kernel = np.ones(min(window, max(len(values), 1)))
    finite = np.isfinite(values)
    total = np.convolve(np.where(finite, values, 0.0), kernel, "same")[: len(values)]
    count = np.convolve(finite.astype(float), kernel, "same")[: len(values)]
    return total / np.where(count > 0.5, count, np.nan)


def ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers between `low` and `high`."""
    min_step = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(min_step))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= min_step * 0.999)
    first = math.ceil(low / step - 1e-6)
    return [k * step for k in range(first, math.floor(high / step + 1e-6) + 1)]


class _Plot:
    """Axes of one chart: maps data to canvas coordinates and draws the grid with its labels."""

    def __init__(self, x: Axis, y: Axis, xs: np.ndarray, ys: np.ndarray) -> None:
        self.x, self.y = x, y
        self.x_range, self.y_range = _range(x, xs), _range(y, ys)

    def at(self, x: np.ndarray | float, y: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        (x1, x2), (y1, y2) = self.x_range, self.y_range
        canvas_x = LEFT + (np.asarray(x, float) - x1) / (x2 - x1) * (WIDTH - LEFT - RIGHT)
        canvas_y = HEIGHT - BOTTOM - (np.asarray(y, float) - y1) / (y2 - y1) * (HEIGHT - TOP - BOTTOM)
        return canvas_x, np.clip(canvas_y, TOP, HEIGHT - BOTTOM)

    def frame(self) -> str:
        parts = []
        bottom, middle = HEIGHT - BOTTOM, (LEFT + WIDTH - RIGHT) / 2
        for value in ticks(*self.y_range):
            _, y = self.at(self.x_range[0], value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
        for value in ticks(*self.x_range):
            x, _ = self.at(value, self.y_range[0])
            parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{number(value)}</text>')
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
        parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(self.x.label)}</text>')
        return "".join(parts)


def _range(axis: Axis, values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low = axis.low if axis.low is not None else float(finite.min(initial=math.inf) if finite.size else 0.0)
    high = axis.high if axis.high is not None else float(finite.max(initial=-math.inf) if finite.size else 1.0)
    return (low, high) if high > low else (low, low + (abs(low) or 1.0))


def line_chart(title: str, description: str, x: Axis, y: Axis, lines: Sequence[Series]) -> str:
    """Draw lines over `x`; the label of `y` goes beside the title. Without any point, show `description` instead."""
    points = [thinned(np.asarray(s.x, float), np.asarray(s.y, float)) for s in lines]
    if not any(len(xs) for xs, _ in points):
        return figure(title, y.label, _note(description))
    all_x, all_y = (np.concatenate(values) for values in zip(*points, strict=True))
    plot = _Plot(x, y, all_x, all_y)
    parts = [plot.frame()]
    for line, (xs, ys) in zip(lines, points, strict=True):
        style = f"line c{line.color % 7}" + (" faint" if line.faint else "")
        canvas_x, canvas_y = plot.at(xs, ys)
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(canvas_x, canvas_y, strict=True))
        parts.append(f'<polyline class="{style}" points="{path}"/>')
        if (line.marks and len(xs) <= MAX_MARKS) or len(xs) == 1:
            for a, b, at, value in zip(canvas_x, canvas_y, xs, ys, strict=True):
                tooltip = f"{line.name}: {number(value)} at {x.label} {number(at)}"
                dot = f'<circle class="dot c{line.color % 7}" cx="{a:.1f}" cy="{b:.1f}" r="3.5">'
                parts.append(f"{dot}<title>{escape(tooltip)}</title></circle>")
    named = [line for line, (xs, _) in zip(lines, points, strict=True) if len(xs) and not line.faint]
    legend = _legend(named) if sum(not s.faint for s in lines) > 1 else ""
    return figure(title, y.label, svg(title, description, "".join(parts)) + legend)


def reliability_chart(title: str, description: str, edges: np.ndarray, shares: np.ndarray, counts: np.ndarray) -> str:
    """Draw a bar for each of `shares` (bins,), a gap where it is NaN, and the diagonal of a calibrated detector.

    Without any bar, show `description` instead.
    """
    if not np.isfinite(shares).any():
        return figure(title, "", _note(description))
    plot = _Plot(Axis("score", 0, 1), Axis("", 0, 1), np.empty(0), np.empty(0))
    parts = [plot.frame()]
    for low, high, share, count in zip(edges, edges[1:], shares, counts, strict=False):
        if not np.isfinite(share):
            continue
        (x1, x2), (top, bottom) = plot.at(np.array([low, high]), np.array([share, 0.0]))
        tooltip = f"score {low:.1f} to {high:.1f}: {share:.0%} of {counted(count, 'detection')} correct"
        box = f'x="{x1 + 1:.1f}" y="{top:.1f}" width="{x2 - x1 - 2:.1f}" height="{max(bottom - top, 1):.1f}"'
        parts.append(f'<rect class="bar" {box}><title>{tooltip}</title></rect>')
    (x1, x2), (y1, y2) = plot.at(np.array([0, 1]), np.array([0, 1]))
    parts.append(f'<line class="ideal" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    return figure(title, "share of correct detections", svg(title, description, "".join(parts)))


def histogram(title: str, unit: str, x: Axis, values: np.ndarray) -> str:
    """Draw how many of `values` (n,), numbers from 0, lie in each of up to `MAX_BARS` equal bins.

    The last bin also holds the largest hundredth, which would otherwise flatten the rest.
    """
    if not len(values):
        return figure(title, unit, _note("There are none."))
    top = max(float(np.quantile(values, 0.99)), 1.0)
    width = max(1, math.ceil(top / MAX_BARS))
    edges = np.arange(0, math.floor(top / width) * width + 2 * width, width)
    counts, _ = np.histogram(np.minimum(values, edges[-1] - width / 2), edges)
    plot = _Plot(Axis(x.label, 0, float(edges[-1])), Axis("", 0), np.empty(0), counts.astype(float))
    parts = [plot.frame()]
    for k, (low, high, count) in enumerate(zip(edges, edges[1:], counts, strict=False)):
        (x1, x2), (top_y, bottom) = plot.at(np.array([low, high]), np.array([count, 0.0]))
        more = " or more" if k == len(counts) - 1 and values.max() >= high else ""
        name = f"{low}{more}" if width == 1 or more else f"{low} to {high - 1}"
        box = f'x="{x1 + 0.5:.1f}" y="{top_y:.1f}" width="{x2 - x1 - 1:.1f}" height="{max(bottom - top_y, 0):.1f}"'
        parts.append(f'<rect class="bar" {box}><title>{name}: {count:,}</title></rect>')
    quantiles = ", ".join(f"{name} {number(float(np.quantile(values, q)))}" for name, q in QUANTILES.items())
    if values.max() >= edges[-1]:
        quantiles += f"; the last bar holds all from {edges[-2]:,} on"
    return figure(title, unit, svg(title, f"{quantiles}.", "".join(parts)) + _note(quantiles))


def category_bars(title: str, unit: str, count_of: Mapping[str, int]) -> str:
    """Draw a bar for each name, the first `MAX_BARS` of them, the longest bar first."""
    ordered = sorted(count_of.items(), key=lambda item: -item[1])
    longest = max([*count_of.values(), 1])
    rows = "".join(
        f'<li><span class="name" title="{escape(name)}">{escape(name)}</span>'
        f'<i style="width:{100 * n / longest:.1f}%"></i><b>{n:,}</b></li>'
        for name, n in ordered[:MAX_BARS]
    )
    more = _note(f"and {len(ordered) - MAX_BARS:,} more") if len(ordered) > MAX_BARS else ""
    return figure(title, unit, f'<ul class="bars">{rows}</ul>{more}')


def svg(title: str, description: str, content: str) -> str:
    """Wrap drawing commands in an <svg> with a label for screen readers."""
    label = escape(f"{title}. {description}")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{content}</svg>'


def figure(title: str, unit: str, content: str) -> str:
    """Wrap a chart in a <figure> with its title and unit as the caption."""
    caption = f"<figcaption>{escape(title)} <small>{escape(unit)}</small></figcaption>"
    return f'<figure class="chart">{caption}{content}</figure>'


def _note(text: str) -> str:
    """Wrap a sentence below a chart, or in place of one without data."""
    return f'<p class="soft">{escape(text)}</p>'


def _legend(lines: Sequence[Series]) -> str:
    stroke = '<svg viewBox="0 0 22 8" aria-hidden="true"><line class="line c{}" x1="1" x2="21" y1="4" y2="4"/></svg>'
    entries = (f'<li>{stroke.format(s.color % 7)}<span dir="auto">{escape(s.name)}</span></li>' for s in lines)
    return f'<ul class="legend">{"".join(entries)}</ul>'
