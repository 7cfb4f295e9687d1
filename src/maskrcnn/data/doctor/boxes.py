"""Findings about the boxes that annotations state beside their masks: boxes of other masks, boxes beyond the image."""

from __future__ import annotations

import numpy as np

from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.detection.boxes import sides

MIN_IOU, MIN_DISTANCE = 0.5, 3
"""A box differs if its IoU with that of the mask is below the first and an edge is further off, in pixels, than the
second: programs round boxes and count pixels in their own ways, which matters to small boxes only."""

MIN_AGREEING = 0.75
"""Share of the boxes that differ which another meaning of their numbers must explain."""

MIN_BEYOND = 1
"""Pixels by which a box may go beyond its image: programs that count from 1 go there at its last column."""


def check_boxes(data: Dataset) -> list[Problem]:
    """Return the findings about `data.stated_boxes`."""
    if data.stated_boxes is None:
        return []
    stated = data.stated_boxes
    height, width = data.sizes[data.image_index].T
    clipped = np.clip(stated, 0, np.stack([width, height, width, height], 1))
    differs = _differs(clipped, data.boxes)
    beyond = np.nan_to_num(np.abs(stated - clipped).max(1, initial=0))
    problems = [_finding(Kind.OUTSIDE, data, k, f"the box goes {beyond[k]:.6g} pixels beyond the image") for k in
                np.flatnonzero(beyond > MIN_BEYOND).tolist()]  # fmt: skip
    corners = np.concatenate([stated[:, :2], sides(stated)], 1)  # of boxes written as corners, read as sizes
    n_explained = int((differs & ~_differs(corners, data.boxes)).sum())
    if differs.sum() > 1 and n_explained >= MIN_AGREEING * differs.sum():
        n_stated = int((~np.isnan(stated[:, 0])).sum())
        message = (
            f"{n_explained:,} of {n_stated:,} boxes fit their masks only if their numbers are x1, y1, x2, y2, and not "
            "x, y, width, height"
        )
        return [Problem(Kind.BOX, str(data.source), message)]
    for k in np.flatnonzero(differs).tolist():
        texts = [", ".join(f"{v:.6g}" for v in box) for box in (stated[k], data.boxes[k])]
        message = f"the box (x1, y1, x2, y2) is {texts[0]}, that of the mask {texts[1]}"
        problems.append(_finding(Kind.BOX, data, k, message))
    return problems


def _finding(kind: Kind, data: Dataset, k: int, message: str) -> Problem:
    name = data.names[int(data.image_index[k])]
    return Problem(kind, data.place(k), f"image {name}: {message}", image=name, instances=(k,))


def _differs(boxes: np.ndarray, of_masks: np.ndarray) -> np.ndarray:
    """Return which boxes (N, 4) are far from those of their masks, (N,) bool; a missing box, NaN, is not."""
    shared = sides(
        np.concatenate([np.maximum(boxes[:, :2], of_masks[:, :2]), np.minimum(boxes[:, 2:], of_masks[:, 2:])], 1)
    )
    intersection = shared.clip(0).prod(1)
    union = sides(boxes).clip(0).prod(1) + sides(of_masks).prod(1) - intersection
    with np.errstate(invalid="ignore"):
        return (intersection < MIN_IOU * union) & (np.abs(boxes - of_masks).max(1, initial=0) > MIN_DISTANCE)
