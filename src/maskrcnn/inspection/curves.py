"""The record of a run -> the sections of its losses, scores, learning rate and throughput."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.inspection.charts import Axis, Series, line_chart, number, smooth
from maskrcnn.inspection.page import Section, chart_grid

LOSSES = ("loss", "rpn_class_loss", "rpn_bbox_loss", "mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss")
SCORES = {
    "mask AP": ("mask", "AP"),
    "mask AP50": ("mask", "AP50"),
    "box AP": ("box", "AP"),
    "box AP50": ("box", "AP50"),
    "Kaggle": ("kaggle", "mean"),
}
"""Names of the scores that are followed, and where an evaluation keeps them."""

SMOOTHED_SHARE = 0.05
LEAST_SMOOTHED = 5
"""Curves of steps are means over this share of the run, and over so many steps at least."""

STEP = Axis("step", 0)


def read_record(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The steps and the validations of ``metrics.jsonl``; none where there is no such file.

    A killed run may have left half a line at the end: what comes before it counts.
    """
    entries: list[dict[str, Any]] = []
    try:
        for line in path.read_text("utf-8").splitlines():
            entries.append(json.loads(line))
    except (OSError, ValueError):
        pass
    steps, validations = ([e for e in entries if e["kind"] == kind] for kind in ("step", "validation"))
    return steps, validations


def training_sections(steps: list[dict[str, Any]], validations: list[dict[str, Any]]) -> list[Section]:
    """What `read_record` read, as charts."""
    if not steps:
        return []
    at = _column(steps, "step")
    skipped = steps[-1].get("skipped", 0)
    words = "<p>Faint: every step. Strong: the mean over a twentieth of the run.</p>"
    if skipped:
        words += f"<p>{skipped} steps had a loss or gradient that was not finite and were skipped.</p>"
    losses = words + chart_grid(_loss(name, at, _column(steps, name)) for name in LOSSES)
    lr, speed = _column(steps, "lr"), _column(steps, "images") / np.maximum(_column(steps, "seconds"), 1e-3)
    pace = number(float(np.median(speed)))
    rate_words = f"Highest {number(lr.max())}, last {number(lr[-1])}."
    figures = [
        _validations(validations),
        line_chart("Learning rate", rate_words, STEP, Axis("", 0), [Series("learning rate", at, lr)]),
        _smoothed("Throughput", "images a second", at, speed, f"Median {pace} images a second."),
    ]
    return [
        Section("losses", "Losses", losses),
        Section("progress", "Scores, learning rate and throughput", _waiting(steps) + chart_grid(figures)),
    ]


def _waiting(steps: list[dict[str, Any]]) -> str:
    """How long steps waited for their images, in words; nothing for a record from before that was kept."""
    timed = [e for e in steps if "waited" in e]
    seconds = _column(timed, "seconds").sum()
    if seconds == 0:
        return ""
    return f"<p>{_column(timed, 'waited').sum() / seconds:.1%} of the steps' time was spent waiting for images.</p>"


def _validations(validations: list[dict[str, Any]]) -> str:
    if not validations:
        return line_chart("Validation scores", "There was no validation.", STEP, Axis("none yet", 0, 1), [])
    at = _column(validations, "step")
    lines = []
    for color, (name, (group, key)) in enumerate(SCORES.items()):
        lines.append(Series(name, at, _column([e[group] for e in validations], key), color, marks=True))
    latest = ", ".join(f"{line.name} {number(float(line.y[-1]))}" for line in lines)
    return line_chart("Validation scores", f"{len(at)} validations; the last: {latest}.", STEP, Axis("", 0), lines)


def _loss(name: str, at: np.ndarray, values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return line_chart(name, "No finite value was recorded.", STEP, Axis("none", 0), [])
    words = f"First {number(finite[0])}, last {number(finite[-1])}, lowest {number(finite.min())}."
    return _smoothed(name, "", at, values, words)


def _smoothed(name: str, unit: str, at: np.ndarray, values: np.ndarray, words: str) -> str:
    """Every step faint, their mean strong. Single peaks may leave the chart at its top: they would flatten the rest."""
    mean = smooth(values, max(LEAST_SMOOTHED, round(len(values) * SMOOTHED_SHARE)))
    top = 1.05 * max(np.nanmax(mean), np.nanquantile(values, 0.98))
    lines = [Series(name, at, values, faint=True), Series(name, at, mean)]
    return line_chart(name, words, STEP, Axis(unit, 0, top), lines)


def _column(entries: list[dict[str, Any]], name: str) -> np.ndarray:
    """A value of every entry, NaN where it is absent or None."""
    return np.array([np.nan if e.get(name) is None else e[name] for e in entries], float)
