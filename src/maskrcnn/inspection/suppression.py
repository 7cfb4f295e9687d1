"""Non-maximum suppression in hindsight: which kept box dropped each other box, and at which overlap.

N boxes of one picture, K kept ones
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskrcnn.detection.boxes import iou, shift_groups

NOBODY = -1


@dataclass(frozen=True)
class Suppression:
    """What became of N boxes: whether each was `kept` (N,), the row `by` (N,) that suppressed it, and their `iou` (N,).

    `by` is -1 and `iou` 0 for a kept box, and for one that the limit cut: as many better boxes had been kept already.
    """

    kept: np.ndarray
    by: np.ndarray
    iou: np.ndarray

    @property
    def cut(self) -> np.ndarray:
        """Whether the limit cut each box, (N,) bool."""
        return ~self.kept & (self.by == NOBODY)


def explain_suppression(
    boxes: np.ndarray, groups: np.ndarray, kept: np.ndarray, threshold: float, groups_shifted: bool
) -> Suppression:
    """Explain what `detection.boxes.suppress` did to boxes (N, 4) of groups (N,); `kept` (K,) is its result.

    The box that suppressed another is the best kept one of its group whose IoU with it exceeds `threshold`. Any box
    that the limit did not cut has one, and it is the better of the two.
    """
    if groups_shifted:
        boxes = shift_groups(boxes, groups)
    result = Suppression(
        np.zeros(len(boxes), bool), np.full(len(boxes), NOBODY, np.int64), np.zeros(len(boxes), np.float32)
    )
    result.kept[kept] = True
    for group in np.unique(groups[kept]):
        winners = kept[groups[kept] == group]
        losers = np.flatnonzero((groups == group) & ~result.kept)
        overlap = iou(boxes[losers], boxes[winners])
        above = overlap > np.float32(threshold)
        rows, first = np.flatnonzero(above.any(1)), above.argmax(1)
        result.by[losers[rows]] = winners[first[rows]]
        result.iou[losers[rows]] = overlap[rows, first[rows]]
    return result
