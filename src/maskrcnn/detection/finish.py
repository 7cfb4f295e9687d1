"""Finish: raw detections of a batch -> boxes, scores and run-length masks in the pixels of each picture.

Mask probabilities become runs directly; no canvas of the picture's size is made.

B images, N detections, M mask cells along a side
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from maskrcnn.config import PredictConfig
from maskrcnn.detection.boxes import sides, to_pixels, to_units
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.select import detection_limit
from maskrcnn.detection.stages import Observe, RawDetections, ignore
from maskrcnn.detection.timing import stage
from maskrcnn.kernels.masks import grid_to_runs
from maskrcnn.rle import RLE
from maskrcnn.structures import Detections

MASK_THRESHOLD = 0.5
"""Minimum probability of the cells and pixels of a mask."""


def finish(
    raw: RawDetections,
    windows: np.ndarray,
    input_hw: tuple[int, int],
    pictures_hw: Sequence[tuple[int, int]],
    predict: PredictConfig,
    conventions: Conventions,
    class_ids: Sequence[Any],
    class_names: Sequence[str],
    observe: Observe = ignore,
) -> Iterator[Detections]:
    """Yield the detections of each picture of a batch; `windows` (B, 4) are the pictures in inputs of `input_hw`.

    For each picture, `observe` is handed "candidate_index", the rows of `ClassCandidates` that its detections come of.
    """
    all_ids = np.array(class_ids)
    weakest = _weakest_of_limits(raw, len(pictures_hw), detection_limit(predict))
    if predict.mask_scoring:
        raw = score_by_masks(raw, predict.score_threshold)
    for b, (window, hw) in enumerate(zip(windows, pictures_hw, strict=True)):
        rows = np.flatnonzero(raw.image_index == b)
        boxes = boxes_in_picture(raw.boxes[rows], window, input_hw, hw, conventions)
        non_empty = (sides(boxes) > 0).all(1)
        rows, boxes = rows[non_empty], boxes[non_empty]
        observe("candidate_index", None if raw.candidate_index is None else raw.candidate_index[rows])
        with stage("masks to runs"):
            rles = paste_masks(raw.masks[rows], boxes, hw, conventions)
        classes = raw.labels[rows] - 1
        yield Detections(
            boxes=boxes,
            scores=raw.scores[rows].astype(np.float32),
            class_ids=all_ids[classes],
            class_names=[class_names[k] for k in classes],
            rles=rles,
            hw=hw,
            vocabulary=tuple(class_names),
            weakest_of_limit=weakest[b],
        )


def _weakest_of_limits(raw: RawDetections, n_images: int, limit: int) -> list[tuple[float | None, float | None]]:
    """Return `Detections.weakest_of_limit` of each image."""
    result = []
    for b in range(n_images):
        scores = raw.scores[raw.image_index == b]
        proposal = np.nan if raw.weakest_proposals is None else float(raw.weakest_proposals[b])
        result.append((float(scores.min()) if len(scores) >= limit else None, None if np.isnan(proposal) else proposal))
    return result


def score_by_masks(raw: RawDetections, min_score: float) -> RawDetections:
    """Multiply each score by the mean probability of its mask's cells; drop scores below `min_score`.

    The class score says nothing about the mask. This is the "maskness" of SOLO (Wang et al. 2021); it needs no head.
    """
    scores = raw.scores * mask_certainty(raw.masks).astype(raw.scores.dtype)
    order = np.lexsort((-scores, raw.image_index))
    rows = order[scores[order] >= min_score]
    columns = raw.boxes[rows], scores[rows], raw.labels[rows], raw.image_index[rows], raw.masks[rows]
    return RawDetections(*columns, candidate_index=None if raw.candidate_index is None else raw.candidate_index[rows])


def mask_certainty(probabilities: np.ndarray) -> np.ndarray:
    """Mean probability (N,) of the cells that belong to each of the masks (N, M, M); 0 for an empty mask."""
    inside = probabilities >= MASK_THRESHOLD
    return (probabilities * inside).sum((1, 2)) / np.maximum(inside.sum((1, 2)), 1)


def boxes_in_picture(
    boxes: np.ndarray, window: np.ndarray, input_hw: tuple[int, int], hw: tuple[int, int], conventions: Conventions
) -> np.ndarray:
    """Boxes (N, 4) in the network's units -> float32 pixels of the picture `hw` that fills `window` of the input.

    Normalised boxes are rounded to whole pixels, half to even, as Matterport's `unmold_detections` does.
    """
    if conventions.normalized_boxes:
        frame = to_units(np.array(window, np.float32), input_hw, conventions)
        relative = (boxes - np.tile(frame[:2], 2)) / np.tile(sides(frame), 2)
        return to_pixels(relative, hw, conventions).round()
    (h, w), (x1, y1, x2, y2) = hw, window
    scale = np.array([w / (x2 - x1), h / (y2 - y1)] * 2)
    moved = (boxes - np.array([x1, y1, x1, y1], np.float32)) * scale.astype(np.float32)
    return moved.clip(0, np.array([w, h, w, h], np.float32))


def paste_masks(
    probabilities: np.ndarray, boxes: np.ndarray, hw: tuple[int, int], conventions: Conventions
) -> list[RLE]:
    """Masks (N, M, M) of boxes (N, 4), in pixels of an image `hw`, as runs.

    Each mask is interpolated between its cell centres. "exact" lets the cells fill the box. "fading" adds a ring of
    zeros and grows the box by it, because Detectron2 and Matterport sample zero beyond a mask. "integer" also truncates
    the corners of the grown box, as torchvision's `paste_masks_in_image` does.
    """
    grids = probabilities.astype(np.float64) - MASK_THRESHOLD
    boxes = boxes.astype(np.float64)
    if conventions.paste != "exact" and len(grids):
        size = grids.shape[-1]
        grids = np.pad(grids, ((0, 0), (1, 1), (1, 1)), constant_values=-MASK_THRESHOLD)
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        half_wh = sides(boxes) / 2 * (size + 2) / size
        low, high = centers - half_wh, centers + half_wh
        if conventions.paste == "integer":
            low, high = np.trunc(low), np.trunc(high)
            high = np.maximum(high + 1, low + 1)
        boxes = np.concatenate([low, high], 1)
    return [RLE(grid_to_runs(g, b, hw[0], hw[1]), hw) for g, b in zip(grids, boxes, strict=True)]
