"""Turn a time budget into a number of steps: once, from the pace of the first steps; the run then keeps that number."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskrcnn.data.table import Dataset
from maskrcnn.detection.fit import fitted_hw
from maskrcnn.evaluation import Evaluation, find, judge_found
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inspection.diagnosis import MAX_EXAMINED, PREDICTIONS_PER_IMAGE
from maskrcnn.structures import Detections
from maskrcnn.training.schedule import WARMUP_STEPS

MEASURED_FRACTION = 0.15
"""The steps are planned after `WARMUP_STEPS` or this fraction of the budget, whichever comes first."""

UNTIMED_STEPS = 3
"""Steps left out of the mean step time: they compile kernels and fill caches."""


STATE_SECONDS = 120.0
"""Interval at which a run saves its state. A killed run loses that much work, and a validation that was under way."""


DIAGNOSIS_SHARE = 0.03
"""Largest share of a budget that is set aside for the diagnosis in the last report."""


@dataclass(frozen=True)
class Overheads:
    """Seconds of a run beside its steps.

    They are those of a validation with its model files and its report, of a saved state, and of the last diagnosis.
    """

    validation: float
    state: float
    diagnosis: float


class Budget:
    """`seconds` of a run, validations and files included; `step_times` holds the seconds of each step so far."""

    def __init__(self, seconds: float, step_times: list[float]) -> None:
        self.seconds = seconds
        self.step_times = step_times

    def measured(self, elapsed: float) -> bool:
        """Return whether enough steps were timed, `elapsed` seconds into the run."""
        steps = len(self.step_times)
        return steps >= WARMUP_STEPS or (steps > UNTIMED_STEPS and elapsed > MEASURED_FRACTION * self.seconds)

    @property
    def step_seconds(self) -> float:
        """Mean seconds per step so far."""
        times = self.step_times[UNTIMED_STEPS:]
        return sum(times) / len(times)

    def more_steps(self, elapsed: float, overheads: Overheads, steps_per_epoch: int) -> int:
        """Return how many more steps fit into the time left after `elapsed` seconds."""
        # The state is saved now, at the end, and at regular intervals in between.
        seconds_left = self.seconds - elapsed - 2 * overheads.state - overheads.diagnosis
        step_seconds = self.step_seconds * (1 + overheads.state / STATE_SECONDS)
        return steps_for(seconds_left, step_seconds, overheads.validation, steps_per_epoch, len(self.step_times))


def time_validation(predictor: Predictor, data: Dataset, processes: int) -> tuple[float, Evaluation]:
    """Estimate the seconds of a validation from a few of its images, small to large. Also return their scores."""
    conventions, model = predictor.conventions, predictor.config.model
    pixels = np.array([math.prod(fitted_hw(hw, conventions, model)) for hw in data.sizes.tolist()])
    timed = across_sizes(pixels)
    few = data.take(timed)
    judge_found(predictor, few.take([0]), find(predictor, few, [0]), 0.0)  # compiles kernels
    found: dict[int, Detections | str] = {}
    times = []
    for i in range(len(few)):
        began = time.monotonic()
        found |= find(predictor, few, [i])
        times.append(time.monotonic() - began)
    evaluation = judge_found(predictor, few, found, sum(times))
    judging = evaluation.scores["seconds"] / len(few) * len(data)
    return seconds_for_all(pixels, timed, times) / processes + judging, evaluation


def prediction_seconds(evaluation: Evaluation) -> float:
    """Return the mean seconds of a prediction in an evaluation."""
    return evaluation.scores["inference_seconds"] / max(len(evaluation.data), 1)


def diagnosis_seconds(budget_seconds: float, evaluation: Evaluation) -> float:
    """Return the seconds to set aside for the diagnosis in the last report."""
    full = MAX_EXAMINED * PREDICTIONS_PER_IMAGE * prediction_seconds(evaluation)
    return min(DIAGNOSIS_SHARE * budget_seconds, full)


def across_sizes(pixels: np.ndarray, max_images: int = 5) -> np.ndarray:
    """Indices of up to `max_images` images, evenly spaced in rank from the fewest `pixels` (N,) to the most."""
    ranks = np.linspace(0, len(pixels) - 1, min(max_images, len(pixels))).round().astype(np.int64)
    return np.argsort(pixels, kind="stable")[ranks]


def seconds_for_all(pixels: np.ndarray, timed: np.ndarray, times: Sequence[float]) -> float:
    """Seconds of all images: interpolate the `times` (M,) of images `timed` (M,) over all input sizes `pixels` (N,)."""
    sizes, size_index = np.unique(pixels[timed], return_inverse=True)
    mean_times = np.bincount(size_index, times) / np.bincount(size_index)
    return float(np.interp(pixels, sizes, mean_times).sum())


def validation_due(step: int, total: int | None, steps_per_epoch: int) -> bool:
    """Whether to validate after `step`: the last one, or the end of an epoch that leaves at least half an epoch."""
    return step == total or (step % steps_per_epoch == 0 and (total is None or 2 * (total - step) >= steps_per_epoch))


def steps_for(
    seconds_left: float, step_seconds: float, validation_seconds: float, steps_per_epoch: int, done: int = 0
) -> int:
    """Steps (at least 1) that fit into `seconds_left` with their validations, including one due after step `done`."""

    def total_seconds(steps: int) -> float:
        epochs = (2 * (done + steps) - steps_per_epoch) // (2 * steps_per_epoch)
        validations = max(epochs - max(done - 1, 0) // steps_per_epoch, 0) + 1
        return steps * step_seconds + validations * validation_seconds

    candidates = range(1, max(int(seconds_left / step_seconds), 1) + 1)
    return max(bisect_right(candidates, seconds_left, key=total_seconds), 1)
