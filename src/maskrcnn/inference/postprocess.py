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
from maskrcnn.model.boxes import clip_boxes, decode_boxes, denormalize_boxes, normalize_boxes
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
    windows: Tensor,
    *,
    score_threshold: float,
    nms_threshold: float,
    detections: int,
    conventions: Conventions,
) -> Kept:
    """Classes of proposals above the threshold -> class-wise non-maximum suppression -> the best.

    `windows` (B, 4) are the pictures in the inputs; like all boxes here they are in the network's units.
    """
    probabilities = stages.class_logits.softmax(-1)  # (B, R, K + 1)
    if conventions.best_class_only:
        likeliest = torch.zeros_like(probabilities, dtype=torch.bool)
        likeliest.scatter_(-1, probabilities.argmax(-1, keepdim=True), True)
        wanted = (probabilities >= score_threshold) & likeliest
    else:
        wanted = probabilities > score_threshold
    wanted, probabilities = wanted[..., 1:] & stages.proposals.valid[..., None], probabilities[..., 1:]
    parts = []
    for b in range(len(windows)):
        row, label = wanted[b].nonzero(as_tuple=True)
        boxes = decode_boxes(
            stages.box_deltas[b, row, label + 1],
            stages.proposals.boxes[b, row],
            conventions.box_delta_weights,
            conventions.delta_clip,
        )
        boxes = clip_boxes(boxes[None], windows[b : b + 1])[0]
        scores = probabilities[b, row, label]
        large = ((boxes[:, 2:] - boxes[:, :2]) > conventions.smallest_detection).all(1).nonzero()[:, 0]
        boxes, scores, label = boxes[large], scores[large], label[large] + 1
        keep = batched_nms(boxes, scores, label, nms_threshold)[:detections]
        parts.append((boxes[keep], scores[keep], label[keep], torch.full_like(keep, b)))
    return Kept(*(torch.cat(column) for column in zip(*parts, strict=True)))


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
        frame = normalize_boxes(torch.tensor(window, dtype=torch.float32), input_hw).numpy()
        shift, span = np.tile(frame[:2], 2), np.tile(frame[2:] - frame[:2], 2)
        relative = torch.from_numpy((boxes - shift) / span)
        return denormalize_boxes(relative, hw).round().numpy()
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
