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


def clip_boxes(boxes: Tensor, windows: Tensor) -> Tensor:
    """Cut boxes (B, ..., 4) to `windows` (B, 4)."""
    windows = windows.to(boxes.dtype).reshape(len(windows), *[1] * (boxes.ndim - 2), 4)
    low, high = windows[..., [0, 1, 0, 1]], windows[..., [2, 3, 2, 3]]
    return torch.minimum(torch.maximum(boxes, low), high)


def normalize_boxes(boxes: Tensor, hw: tuple[int, int]) -> Tensor:
    """Pixels of an array of height and width `hw` -> units in which its first pixel is 0 and its last is 1."""
    shift, span = _last_pixel(boxes, hw)
    return (boxes - shift) / span


def denormalize_boxes(boxes: Tensor, hw: tuple[int, int]) -> Tensor:
    """The inverse of `normalize_boxes`."""
    shift, span = _last_pixel(boxes, hw)
    return boxes * span + shift


def _last_pixel(boxes: Tensor, hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    h, w = hw
    return boxes.new_tensor([0, 0, 1, 1]), boxes.new_tensor([w - 1, h - 1, w - 1, h - 1])


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of each pair: (..., N, 4), (..., M, 4) -> (..., N, M)."""
    shared = _overlap(a, b, 0).mul_(_overlap(a, b, 1))
    area_a = (a[..., 2:] - a[..., :2]).prod(-1)
    area_b = (b[..., 2:] - b[..., :2]).prod(-1)
    union = (area_a[..., :, None] + area_b[..., None, :]).sub_(shared).clamp_(min=1e-9)
    return shared.div_(union)


def vote_boxes(boxes: Tensor, scores: Tensor, groups: Tensor, kept: Tensor, threshold: float) -> Tensor:
    """Box voting (Gidaris and Komodakis 2015): of boxes (N, 4) those `kept` (K,), each the mean, weighted by score, of
    all boxes of its group (N,) that overlap it by more than `threshold`, itself among them, (K, 4).
    """
    alike = (iou(boxes[kept], boxes) > threshold) & (groups[kept][:, None] == groups)  # (K, N)
    itself = kept[:, None] == torch.arange(boxes.shape[0], device=boxes.device)
    weights = (alike | itself) * scores
    return (weights @ boxes) / weights.sum(1, keepdim=True)


def _overlap(a: Tensor, b: Tensor, axis: int) -> Tensor:
    """Shared length along x (0) or y (1), in place where it can be: a thousand instances meet 65,000 anchors."""
    high = torch.minimum(a[..., :, None, 2 + axis], b[..., None, :, 2 + axis])
    return high.sub_(torch.maximum(a[..., :, None, axis], b[..., None, :, axis])).clamp_(min=0)
