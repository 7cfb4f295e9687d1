"""Detections in the network's units -> boxes and masks in the picture: mask probabilities become runs, never a canvas.

Before that, where the configuration says so, scores take in how sure the masks are.

N detections, M mask cells
"""

from __future__ import annotations

import numpy as np

from maskrcnn.inference.regions import Found
from maskrcnn.kernels.masks import grid_to_runs
from maskrcnn.model.anchors import to_units
from maskrcnn.model.conventions import Conventions
from maskrcnn.rle import RLE


def score_by_masks(found: Found, least: float) -> Found:
    """Scores times the mean probability of the mask's cells from 0.5 on; what then falls below `least` is dropped.

    The class score says nothing of the mask. This is the "maskness" of SOLO (Wang et al. 2021), which asks
    for no head of its own.
    """
    inside = found.masks >= 0.5
    sure = (found.masks * inside).sum((1, 2)) / np.maximum(inside.sum((1, 2)), 1)
    scores = found.scores * sure.astype(found.scores.dtype)
    order = np.lexsort((-scores, found.image_index))
    rows = order[scores[order] >= least]
    return Found(found.boxes[rows], scores[rows], found.labels[rows], found.image_index[rows], found.masks[rows])


def boxes_in_picture(
    boxes: np.ndarray,
    window: tuple[int, int, int, int],
    input_hw: tuple[int, int],
    hw: tuple[int, int],
    conventions: Conventions,
) -> np.ndarray:
    """Boxes (N, 4) in the network's units -> pixels of the picture `hw` that fills `window` of the input; float32.

    Normalised boxes become whole pixels, half to even, by Matterport's `unmold_detections`.
    """
    h, w = hw
    if conventions.normalized_boxes:
        frame = to_units(np.array(window, np.float32), input_hw, conventions)
        shift, span = np.tile(frame[:2], 2), np.tile(frame[2:] - frame[:2], 2)
        relative = (boxes - shift) / span
        return (
            relative * np.array([w - 1, h - 1, w - 1, h - 1], np.float32) + np.array([0, 0, 1, 1], np.float32)
        ).round()
    x1, y1, x2, y2 = window
    scale = np.array([w / (x2 - x1), h / (y2 - y1)] * 2)
    moved = (boxes - np.array([x1, y1, x1, y1], np.float32)) * scale.astype(np.float32)
    return moved.clip(0, np.array([w, h, w, h], np.float32))


def paste_masks(
    probabilities: np.ndarray, boxes: np.ndarray, hw: tuple[int, int], conventions: Conventions
) -> list[RLE]:
    """Masks (N, M, M) of boxes (N, 4) in pixels of an image `hw` -> runs; a pixel is in from probability 0.5 on.

    Each mask is interpolated between cell centres. "exact" lets the cells fill the box. "fading" adds a ring of zeros
    and grows the box by it: zero is what Detectron2 and Matterport sample beyond a mask. "integer" also cuts the
    corners of the grown box to integers, as torchvision's `paste_masks_in_image` does.
    """
    grids = probabilities.astype(np.float64) - 0.5
    boxes = boxes.astype(np.float64)
    if conventions.paste != "exact" and len(grids):
        size = grids.shape[-1]
        grids = np.pad(grids, ((0, 0), (1, 1), (1, 1)), constant_values=-0.5)
        centers, half = (
            (boxes[:, :2] + boxes[:, 2:]) / 2,
            (boxes[:, 2:] - boxes[:, :2]) / 2 * (size + 2) / size,
        )
        low, high = centers - half, centers + half
        if conventions.paste == "integer":
            low, high = np.trunc(low), np.trunc(high)
            high = np.maximum(high + 1, low + 1)
        boxes = np.concatenate([low, high], 1)
    return [RLE(grid_to_runs(g, b, hw[0], hw[1]), hw) for g, b in zip(grids, boxes, strict=True)]
