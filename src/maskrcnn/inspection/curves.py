"""Training curves: ``metrics.jsonl`` -> sections on losses, validation scores, learning rate and throughput."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from maskrcnn.errors import UserError, counted
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

NO_STEPS = "No step has recorded a finite value yet. The curve begins with the first step that does."
NO_VALIDATIONS = (
    "This run has recorded no validation. A run with validation images (--val, --val-ids or --val-data) adds a point "
    "after each epoch and at its end."
)


def read_record(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a run's record, if there is a file, up to a broken line: a killed run may end in one.

    Raise `UserError` if the file cannot be read.
    """
    entries: list[dict[str, Any]] = []
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    for line in content.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            break
        if not isinstance(entry, dict) or not {"kind", "step"} <= entry.keys():
            break
        entries.append(entry)
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
        notes += f"<p>{counted(skipped, 'step')} skipped: a loss or gradient was not finite.</p>"
    losses = notes + chart_grid(_steps_chart(name, "", at, _column(steps, name), _first_to_last) for name in LOSSES)
    speed = _column(steps, "images") / np.maximum(_column(steps, "seconds"), 1e-3)
    figures = [
        _validations(validations),
        _steps_chart("Learning rate", "", at, _column(steps, "lr"), _highest_and_last, smoothed=False),
        _steps_chart("Throughput", "images per second", at, speed, _median_speed),
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
        return line_chart("Validation scores", NO_VALIDATIONS, STEP, Axis("", 0, 1), [])
    at = _column(validations, "step")
    lines = [
        Series(name, at, _column([e[group] for e in validations], key), color, marks=True)
        for color, (name, (group, key)) in enumerate(SCORES.items())
    ]
    latest = ", ".join(f"{line.name} {number(float(line.y[-1]))}" for line in lines)
    return line_chart(
        "Validation scores", f"{counted(len(at), 'validation')}. Last scores: {latest}.", STEP, Axis("", 0), lines
    )


def _first_to_last(losses: np.ndarray) -> str:
    return f"First {number(losses[0])}, last {number(losses[-1])}, lowest {number(losses.min())}."


def _highest_and_last(rates: np.ndarray) -> str:
    return f"Highest {number(rates.max())}, last {number(rates[-1])}."


def _median_speed(speed: np.ndarray) -> str:
    return f"Median {number(float(np.median(speed)))} images per second."


def _steps_chart(
    name: str,
    unit: str,
    at: np.ndarray,
    values: np.ndarray,
    describe: Callable[[np.ndarray], str],
    *,
    smoothed: bool = True,
) -> str:
    """Draw one value a step; `describe` gets the finite ones.

    `smoothed` draws every step faint and the moving average bold, and cuts off single peaks, which would flatten the
    rest.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return line_chart(name, NO_STEPS, STEP, Axis(unit, 0), [])
    if not smoothed:
        return line_chart(name, describe(finite), STEP, Axis(unit, 0), [Series(name, at, values)])
    mean = smooth(values, max(MIN_SMOOTHING_STEPS, round(len(values) * SMOOTHING_SHARE)))
    top = 1.05 * max(np.nanmax(mean), np.nanquantile(values, 0.98))
    lines = [Series(name, at, values, faint=True), Series(name, at, mean)]
    return line_chart(name, describe(finite), STEP, Axis(unit, 0, top), lines)


def _column(entries: list[dict[str, Any]], name: str) -> np.ndarray:
    """Return one value per entry, NaN where it is absent or None."""
    return np.array([np.nan if e.get(name) is None else e[name] for e in entries], float)
