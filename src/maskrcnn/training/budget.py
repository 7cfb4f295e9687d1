"""A time budget becomes a number of steps: once, from the pace of the first steps, and then it is part of the run."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from maskrcnn.training.schedule import WARMUP_STEPS

MEASURING_SHARE = 0.15
"""Steps are counted at the end of a usual warm-up, or after this share of the budget."""

FIRST_STEPS = 3
"""They compile kernels and fill caches, and say nothing about the pace."""


class Budget:
    """`seconds` to train in, validations included; `step_times` are those of all steps so far."""

    def __init__(self, seconds: float, step_times: list[float]) -> None:
        self.seconds = seconds
        self.step_times = step_times

    def measured(self, elapsed: float) -> bool:
        """Whether the pace is known, after `elapsed` seconds."""
        steps = len(self.step_times)
        return steps >= WARMUP_STEPS or (steps > FIRST_STEPS and elapsed > MEASURING_SHARE * self.seconds)

    @property
    def step_seconds(self) -> float:
        """Mean time of a step so far."""
        counted = self.step_times[FIRST_STEPS:]
        return sum(counted) / len(counted)

    def more_steps(self, elapsed: float, validation_seconds: float, steps_per_epoch: int) -> int:
        """Steps that fit into what is left after `elapsed` seconds."""
        left, done = self.seconds - elapsed, len(self.step_times)
        return steps_for(left, self.step_seconds, validation_seconds, steps_per_epoch, done)


def across_sizes(pixels: np.ndarray, most: int = 5) -> np.ndarray:
    """Indices of at most `most` images, from that with the fewest `pixels` (N,) to that with the most."""
    ranks = np.linspace(0, len(pixels) - 1, min(most, len(pixels))).round().astype(np.int64)
    return np.argsort(pixels, kind="stable")[ranks]


def seconds_for_all(pixels: np.ndarray, timed: np.ndarray, times: Sequence[float]) -> float:
    """Seconds that images with inputs of so many `pixels` (N,) take, of which those `timed` (M,) took `times`.

    What lies between two of these in size takes a time between theirs.
    """
    sizes, which = np.unique(pixels[timed], return_inverse=True)
    means = np.bincount(which, times) / np.bincount(which)
    return float(np.interp(pixels, sizes, means).sum())


def validation_due(step: int, total: int | None, steps_per_epoch: int) -> bool:
    """Whether to validate after `step` of `total` steps: at the last one, and where an epoch ends that leaves half of
    another or more.
    """
    if step == total:
        return True
    return step % steps_per_epoch == 0 and (total is None or 2 * (total - step) >= steps_per_epoch)


def steps_for(
    seconds_left: float, step_seconds: float, validation_seconds: float, steps_per_epoch: int, done: int = 0
) -> int:
    """More steps that fit into the time left, at least one, with the validations that `validation_due` asks for.

    A validation that is due after the `done` steps is still to come.
    """

    def seconds(more: int) -> float:
        epochs = (2 * (done + more) - steps_per_epoch) // (2 * steps_per_epoch)
        validations = max(epochs - max(done - 1, 0) // steps_per_epoch, 0) + 1
        return more * step_seconds + validations * validation_seconds

    possible = range(1, max(int(seconds_left / step_seconds), 1) + 1)
    return max(bisect_right(possible, seconds_left, key=seconds), 1)
