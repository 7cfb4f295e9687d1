"""Class logits and box deltas -> the boxes that are kept; mask logits -> runs in the original image.

B images, R proposals of an image, N detections of all images, K classes, M mask cells
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from maskrcnn.kernels.masks import grid_to_runs
from maskrcnn.model.boxes import clip_boxes, decode_boxes
from maskrcnn.model.conventions import Conventions
from maskrcnn.model.mask_rcnn import Stages
from maskrcnn.rle import RLE


@dataclass(frozen=True)
class Kept:
    """Detections of a batch, image by image, best first: boxes (N, 4) in input pixels, scores, labels, image_index."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    image_index: Tensor


@torch.no_grad()
def select_detections(
    stages: Stages,
    image_hw: Tensor,
    *,
    score_threshold: float,
    nms_threshold: float,
    detections: int,
    conventions: Conventions,
) -> Kept:
    """Every class of every proposal above the threshold -> class-wise non-maximum suppression -> the best."""
    probabilities = stages.class_logits.softmax(-1)[..., 1:]  # (B, R, K)
    wanted = (probabilities > score_threshold) & stages.proposals.valid[..., None]
    parts = []
    for b in range(len(image_hw)):
        row, label = wanted[b].nonzero(as_tuple=True)
        boxes = decode_boxes(
            stages.box_deltas[b, row, label + 1],
            stages.proposals.boxes[b, row],
            conventions.box_delta_weights,
            conventions.delta_clip,
        )
        boxes = clip_boxes(boxes[None], image_hw[b : b + 1])[0]
        scores = probabilities[b, row, label]
        large = ((boxes[:, 2:] - boxes[:, :2]) >= conventions.smallest_detection).all(1).nonzero()[:, 0]
        boxes, scores, label = boxes[large], scores[large], label[large] + 1
        keep = batched_nms(boxes, scores, label, nms_threshold)[:detections]
        parts.append((boxes[keep], scores[keep], label[keep], torch.full_like(keep, b)))
    return Kept(*(torch.cat(column) for column in zip(*parts, strict=True)))


def paste_masks(
    probabilities: np.ndarray, boxes: np.ndarray, hw: tuple[int, int], conventions: Conventions
) -> list[RLE]:
    """Masks (N, M, M) of boxes (N, 4) in pixels of an image `hw` -> runs; a pixel is in from probability 0.5 on.

    Each mask is interpolated between cell centres. "exact" lets the cells fill the box; "integer" adds a ring of
    zeros, grows the box by it and cuts its corners to integers, as torchvision's `paste_masks_in_image` does.
    """
    grids = probabilities.astype(np.float64) - 0.5
    boxes = boxes.astype(np.float64)
    if conventions.paste == "integer" and len(grids):
        size = grids.shape[-1]
        grids = np.pad(grids, ((0, 0), (1, 1), (1, 1)), constant_values=-0.5)
        centers, half = (
            (boxes[:, :2] + boxes[:, 2:]) / 2,
            (boxes[:, 2:] - boxes[:, :2]) / 2 * (size + 2) / size,
        )
        low, high = np.trunc(centers - half), np.trunc(centers + half)
        boxes = np.concatenate([low, np.maximum(high + 1, low + 1)], 1)
    return [RLE(grid_to_runs(g, b, hw[0], hw[1]), hw) for g, b in zip(grids, boxes, strict=True)]
