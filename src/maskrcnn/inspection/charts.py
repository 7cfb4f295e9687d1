"""Charts as inline SVG: numbers -> markup that takes its colours from the page's style sheet.

Every chart is drawn on one canvas of `WIDTH` x `HEIGHT` units and scaled by the page, so that its text stays readable
on a phone. Each carries a title and a description for those who cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 10, 40
"""Room for the axes' words around the plot."""

MOST_POINTS = 240
"""A line of more points is thinned to this many: more cannot be told apart, and the page stays small."""

MOST_MARKS = 40


@dataclass(frozen=True)
class Series:
    """A line: x and y (n,), what is not finite being left out; `color` 0 to 6; `faint` ones are not in the legend."""

    name: str
    x: np.ndarray
    y: np.ndarray
    color: int = 0
    faint: bool = False
    marks: bool = False


@dataclass(frozen=True)
class Axis:
    """Its words and its range; None: from the data."""

    label: str
    low: float | None = None
    high: float | None = None


def number(value: float | None) -> str:
    """Two or three digits that count: 2.5e-4, 0.0123, 12.3, 4,560; a dash for nothing."""
    if value is None or not math.isfinite(value):
        return "–"
    if value and (abs(value) < 1e-3 or abs(value) >= 1e7):
        digits, exponent = f"{value:.1e}".split("e")
        return f"{digits.removesuffix('.0')}e{int(exponent)}"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over neighbours, at most `MOST_POINTS` of them; what is not finite is left out."""
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) <= MOST_POINTS:
        return x, y
    starts = np.linspace(0, len(x), MOST_POINTS, endpoint=False).astype(np.int64)
    sizes = np.diff(starts, append=len(x))
    return np.add.reduceat(x, starts) / sizes, np.add.reduceat(y, starts) / sizes


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over `window` neighbours, fewer at the ends; NaN counts as absent."""
    kernel = np.ones(min(window, max(len(values), 1)))
    there = np.isfinite(values)
    total = np.convolve(np.where(there, values, 0.0), kernel, "same")[: len(values)]
    count = np.convolve(there.astype(float), kernel, "same")[: len(values)]
    return total / np.where(count > 0.5, count, np.nan)


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers from `low` to `high`."""
    raw = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * 0.999)
    first = math.ceil(low / step - 1e-6)
    return [k * step for k in range(first, math.floor(high / step + 1e-6) + 1)]


class _Plot:
    """Data coordinates to canvas coordinates, and the frame around them."""

    def __init__(self, x: Axis, y: Axis, xs: np.ndarray, ys: np.ndarray) -> None:
        self.x, self.y = x, y
        self.x_range, self.y_range = _range(x, xs), _range(y, ys)

    def at(self, x: np.ndarray | float, y: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        (x1, x2), (y1, y2) = self.x_range, self.y_range
        right = LEFT + (np.asarray(x, float) - x1) / (x2 - x1) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (np.asarray(y, float) - y1) / (y2 - y1) * (HEIGHT - TOP - BOTTOM)
        return right, np.clip(down, TOP, HEIGHT - BOTTOM)

    def frame(self) -> str:
        parts = []
        for value in ticks(*self.y_range):
            _, y = self.at(self.x_range[0], value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
        for value in ticks(*self.x_range):
            x, _ = self.at(value, self.y_range[0])
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{number(value)}</text>')
        floor = HEIGHT - BOTTOM
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(self.x.label)}</text>')
        return "".join(parts)


def _range(axis: Axis, values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low = axis.low if axis.low is not None else float(finite.min(initial=math.inf) if finite.size else 0.0)
    high = axis.high if axis.high is not None else float(finite.max(initial=-math.inf) if finite.size else 1.0)
    return (low, high) if high > low else (low, low + (abs(low) or 1.0))


def line_chart(title: str, description: str, x: Axis, y: Axis, lines: Sequence[Series]) -> str:
    """A figure of lines over `x`; the label of `y` stands above it."""
    thin = [thinned(np.asarray(s.x, float), np.asarray(s.y, float)) for s in lines]
    everything = [np.concatenate(parts) for parts in zip(*thin, strict=True)] if thin else [np.empty(0)] * 2
    plot = _Plot(x, y, *everything)
    parts = [plot.frame()]
    for line, (xs, ys) in zip(lines, thin, strict=True):
        style = f"line c{line.color % 7}" + (" faint" if line.faint else "")
        right, down = plot.at(xs, ys)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(right, down, strict=True))
        parts.append(f'<polyline class="{style}" points="{points}"/>')
        if (line.marks and len(xs) <= MOST_MARKS) or len(xs) == 1:
            for a, b, at, value in zip(right, down, xs, ys, strict=True):
                says = f"{line.name}: {number(value)} at {x.label} {number(at)}"
                dot = f'<circle class="dot c{line.color % 7}" cx="{a:.1f}" cy="{b:.1f}" r="3.5">'
                parts.append(f"{dot}<title>{escape(says)}</title></circle>")
    legend = [line for line in lines if not line.faint] if sum(not s.faint for s in lines) > 1 else []
    return figure(title, y.label, svg(title, description, "".join(parts)) + _legend(legend))


def reliability_chart(title: str, description: str, edges: np.ndarray, shares: np.ndarray, counts: np.ndarray) -> str:
    """Bars of the shares (bins,), NaN leaving a gap, and the diagonal on which a calibrated detector's would end."""
    plot = _Plot(Axis("score", 0, 1), Axis("", 0, 1), np.empty(0), np.empty(0))
    parts = [plot.frame()]
    for low, high, share, count in zip(edges, edges[1:], shares, counts, strict=False):
        if not np.isfinite(share):
            continue
        (x1, x2), (top, floor) = plot.at(np.array([low, high]), np.array([share, 0.0]))
        says = f"score {low:.1f} to {high:.1f}: {share:.0%} of {count:,} detections correct"
        box = f'x="{x1 + 1:.1f}" y="{top:.1f}" width="{x2 - x1 - 2:.1f}" height="{max(floor - top, 1):.1f}"'
        parts.append(f'<rect class="bar" {box}><title>{says}</title></rect>')
    (x1, x2), (y1, y2) = plot.at(np.array([0, 1]), np.array([0, 1]))
    parts.append(f'<line class="ideal" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    return figure(title, "share that is correct", svg(title, description, "".join(parts)))


def svg(title: str, description: str, content: str) -> str:
    """An image with words for those who cannot see it."""
    words = escape(f"{title}. {description}")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{words}">{content}</svg>'


def figure(title: str, unit: str, content: str) -> str:
    """A chart under its name."""
    caption = f"<figcaption>{escape(title)} <small>{escape(unit)}</small></figcaption>"
    return f'<figure class="chart">{caption}{content}</figure>'


def _legend(lines: Sequence[Series]) -> str:
    if not lines:
        return ""
    stroke = '<svg viewBox="0 0 22 8" aria-hidden="true"><line class="line c{}" x1="1" x2="21" y1="4" y2="4"/></svg>'
    entries = (f"<li>{stroke.format(s.color % 7)}{escape(s.name)}</li>" for s in lines)
    return f'<ul class="legend">{"".join(entries)}</ul>'
