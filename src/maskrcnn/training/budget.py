"""A time budget becomes a number of steps: once, from the pace of the first steps, and then it is part of the run."""

from __future__ import annotations

import math
from bisect import bisect_right

from maskrcnn.training.schedule import WARMUP_STEPS

MEASURING_SHARE = 0.15
"""Steps are counted at the end of the warm-up, or after this share of the budget."""

FIRST_STEPS = 3
"""They compile kernels and fill caches, and say nothing about the pace."""


class Budget:
    """`seconds` to train in, validations included."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.step_times: list[float] = []

    def measured(self, step: int, elapsed: float) -> bool:
        """Whether the pace is known, after `step` steps and `elapsed` seconds."""
        return step >= WARMUP_STEPS or (step >= FIRST_STEPS and elapsed > MEASURING_SHARE * self.seconds)

    @property
    def step_seconds(self) -> float:
        """Mean time of a step so far."""
        counted = self.step_times[min(FIRST_STEPS, len(self.step_times) - 1) :]
        return sum(counted) / len(counted)

    def more_steps(self, done: int, elapsed: float, validation_seconds: float, steps_per_epoch: int) -> int:
        """Steps that fit into what is left after `done` of them and `elapsed` seconds."""
        left = self.seconds - elapsed
        return steps_for(left, self.step_seconds, validation_seconds, steps_per_epoch, done)


def steps_for(
    seconds_left: float, step_seconds: float, validation_seconds: float, steps_per_epoch: int, done: int = 0
) -> int:
    """More steps that fit into the time left, with a validation at the end of each epoch and one after the last step.

    At least one.
    """

    def seconds(more: int) -> float:
        validations = math.ceil((done + more) / steps_per_epoch) - done // steps_per_epoch
        return more * step_seconds + validations * validation_seconds

    possible = range(1, max(int(seconds_left / step_seconds), 1) + 1)
    return max(bisect_right(possible, seconds_left, key=seconds), 1)
