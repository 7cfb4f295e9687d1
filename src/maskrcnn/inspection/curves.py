"""Training curves: ``metrics.jsonl`` -> sections on losses, validation scores, learning rate and throughput."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

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
"""Displayed scores, and their keys in the result of `evaluate`."""

SMOOTHING_SHARE, MIN_SMOOTHING_STEPS = 0.05, 5
"""Window of the moving average: this share of the steps, and at least 5 steps."""

STEP = Axis("step", 0)


def read_record(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a run's record, if there is a file, up to a broken line: a killed run may end in one."""
    entries: list[dict[str, Any]] = []
    try:
        for line in path.read_text("utf-8").splitlines():
            entry = json.loads(line)
            if not isinstance(entry, dict) or not {"kind", "step"} <= entry.keys():
                break
            entries.append(entry)
    except (OSError, ValueError):
        pass
    return entries


def of_kind(entries: list[dict[str, Any]], kind: Literal["step", "validation"]) -> list[dict[str, Any]]:
    """Return the entries of `read_record` of one kind."""
    return [entry for entry in entries if entry["kind"] == kind]


def training_sections(steps: list[dict[str, Any]], validations: list[dict[str, Any]]) -> list[Section]:
    """Chart the steps and validations of a record."""
    if not steps:
        return []
    at = _column(steps, "step")
    notes = "<p>Faint line: every step. Bold line: moving average over a twentieth of the run.</p>"
    if skipped := steps[-1].get("skipped", 0):
        notes += f"<p>{skipped} steps were skipped because their loss or gradient was not finite.</p>"
    losses = notes + chart_grid(_loss(name, at, _column(steps, name)) for name in LOSSES)
    lr, speed = _column(steps, "lr"), _column(steps, "images") / np.maximum(_column(steps, "seconds"), 1e-3)
    speed_text = f"Median {number(float(np.median(speed)))} images per second."
    lr_text = f"Highest {number(lr.max())}, last {number(lr[-1])}."
    figures = [
        _validations(validations),
        line_chart("Learning rate", lr_text, STEP, Axis("", 0), [Series("learning rate", at, lr)]),
        _smoothed("Throughput", "images per second", at, speed, speed_text),
    ]
    return [
        Section("losses", "Losses", losses),
        Section("progress", "Scores, learning rate and throughput", _data_wait(steps) + chart_grid(figures)),
    ]


def _data_wait(steps: list[dict[str, Any]]) -> str:
    """Say how long the steps waited for images; empty for old records, which lack "waited"."""
    timed = [e for e in steps if "waited" in e]
    seconds = _column(timed, "seconds").sum()
    if seconds == 0:
        return ""
    return f"<p>Training spent {_column(timed, 'waited').sum() / seconds:.1%} of its step time waiting for images.</p>"


def _validations(validations: list[dict[str, Any]]) -> str:
    if not validations:
        return line_chart("Validation scores", "There were no validations.", STEP, Axis("none yet", 0, 1), [])
    at = _column(validations, "step")
    lines = [
        Series(name, at, _column([e[group] for e in validations], key), color, marks=True)
        for color, (name, (group, key)) in enumerate(SCORES.items())
    ]
    latest = ", ".join(f"{line.name} {number(float(line.y[-1]))}" for line in lines)
    return line_chart("Validation scores", f"{len(at)} validations. Last scores: {latest}.", STEP, Axis("", 0), lines)


def _loss(name: str, at: np.ndarray, values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return line_chart(name, "No finite value was recorded.", STEP, Axis("none", 0), [])
    description = f"First {number(finite[0])}, last {number(finite[-1])}, lowest {number(finite.min())}."
    return _smoothed(name, "", at, values, description)


def _smoothed(name: str, unit: str, at: np.ndarray, values: np.ndarray, description: str) -> str:
    """Draw every step faint and the moving average bold. Cut off single peaks, which would flatten the rest."""
    mean = smooth(values, max(MIN_SMOOTHING_STEPS, round(len(values) * SMOOTHING_SHARE)))
    top = 1.05 * max(np.nanmax(mean), np.nanquantile(values, 0.98))
    lines = [Series(name, at, values, faint=True), Series(name, at, mean)]
    return line_chart(name, description, STEP, Axis(unit, 0, top), lines)


def _column(entries: list[dict[str, Any]], name: str) -> np.ndarray:
    """Return one value per entry, NaN where it is absent or None."""
    return np.array([np.nan if e.get(name) is None else e[name] for e in entries], float)
