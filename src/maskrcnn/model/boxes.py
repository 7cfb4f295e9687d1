"""Box coding, clipping and overlap. Boxes are xyxy; any leading shape goes.

``tx = (x - xa) / wa, ty = (y - ya) / ha, tw = log(w / wa), th = log(h / ha)`` on box centres (Girshick et al. 2014,
appendix C), each times a weight.
"""

from __future__ import annotations

import torch
from torch import Tensor

Weights = tuple[float, float, float, float]


def to_centers(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 4) -> centres (..., 2) and width, height (..., 2)."""
    wh = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * wh, wh


def encode_boxes(boxes: Tensor, anchors: Tensor, weights: Weights) -> Tensor:
    """Deltas (..., 4) that `decode_boxes` turns `anchors` into `boxes` with."""
    centers, wh = to_centers(boxes)
    anchor_centers, anchor_wh = to_centers(anchors)
    anchor_wh = anchor_wh.clamp(min=1e-6)
    deltas = torch.cat([(centers - anchor_centers) / anchor_wh, torch.log(wh.clamp(min=1e-6) / anchor_wh)], -1)
    return deltas * deltas.new_tensor(weights)


def decode_boxes(deltas: Tensor, anchors: Tensor, weights: Weights, clip: float) -> Tensor:
    """Boxes (..., 4) from deltas on anchors; `clip` is the largest log scale."""
    deltas = deltas / deltas.new_tensor(weights)
    anchor_centers, anchor_wh = to_centers(anchors)
    centers = deltas[..., :2] * anchor_wh + anchor_centers
    half = 0.5 * torch.exp(deltas[..., 2:].clamp(max=clip)) * anchor_wh
    return torch.cat([centers - half, centers + half], -1)


def clip_boxes(boxes: Tensor, image_hw: Tensor) -> Tensor:
    """Cut boxes (B, ..., 4) to their images, image_hw (B, 2)."""
    limit = image_hw.flip(-1).to(boxes.dtype).repeat(1, 2)  # (B, 4): w, h, w, h
    limit = limit.reshape(limit.shape[0], *[1] * (boxes.ndim - 2), 4)
    return torch.minimum(boxes.clamp(min=0), limit)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of each pair: (..., N, 4), (..., M, 4) -> (..., N, M)."""
    shared = _overlap(a, b, 0).mul_(_overlap(a, b, 1))
    area_a = (a[..., 2:] - a[..., :2]).prod(-1)
    area_b = (b[..., 2:] - b[..., :2]).prod(-1)
    union = (area_a[..., :, None] + area_b[..., None, :]).sub_(shared).clamp_(min=1e-9)
    return shared.div_(union)


def _overlap(a: Tensor, b: Tensor, axis: int) -> Tensor:
    """Shared length along x (0) or y (1), in place where it can be: a thousand instances meet 65,000 anchors."""
    high = torch.minimum(a[..., :, None, 2 + axis], b[..., None, :, 2 + axis])
    return high.sub_(torch.maximum(a[..., :, None, axis], b[..., None, :, axis])).clamp_(min=0)
