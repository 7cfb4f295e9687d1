"""Runs of many masks in two arrays, and what is wrong with masks that could not be read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from maskrcnn.errors import UserError
from maskrcnn.kernels import runs as kernel


class RLEError(UserError, ValueError):
    """Malformed run-length encoding. The message names the value, its position and the fault."""


def shortened(text: str, max_length: int = 40) -> str:
    """Return the text, or its start and dots if it is longer than `max_length`."""
    return text if len(text) <= max_length else text[: max_length - 3] + "..."


@dataclass(frozen=True)
class RunTable:
    """Runs of many masks in two arrays: mask i is ``runs[offsets[i]:offsets[i + 1]]``, (n, 2) int64 (start, length)."""

    runs: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.runs[self.offsets[i] : self.offsets[i + 1]]

    def take(self, index: np.ndarray) -> RunTable:
        """Return a table of the masks at `index` (n,), in that order."""
        index = np.asarray(index, np.int64)
        lengths = (self.offsets[1:] - self.offsets[:-1])[index]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        run_index = np.repeat(self.offsets[:-1][index] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return RunTable(self.runs[run_index], offsets)

    @property
    def areas(self) -> np.ndarray:
        """Pixel count of each mask, (n,) int64."""
        cumulative = np.concatenate([[0], np.cumsum(self.runs[:, 1])])
        return cumulative[self.offsets[1:]] - cumulative[self.offsets[:-1]]

    def boxes(self, heights: np.ndarray | int) -> np.ndarray:
        """Return half-open boxes (n, 4) int64 xyxy. `heights` are image heights: (n,), or one for all masks."""
        return kernel.boxes_of_runs(
            self.runs, self.offsets, np.broadcast_to(np.asarray(heights, np.int64), len(self)).copy()
        )

    @classmethod
    def of(cls, masks: Iterable[np.ndarray]) -> RunTable:
        """Build a table from one run array per mask."""
        parts = [np.asarray(m, np.int64).reshape(-1, 2) for m in masks]
        offsets = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
        return cls(np.concatenate(parts) if parts else np.empty((0, 2), np.int64), offsets)


@dataclass(frozen=True)
class BadRuns:
    """A malformed mask of a table: its index and its fault."""

    index: int
    message: str
