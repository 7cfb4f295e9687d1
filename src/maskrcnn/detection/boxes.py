"""Arithmetic on boxes: coding, clipping, units, overlap, non-maximum suppression and voting.

Boxes are xyxy, float32. Deltas are ``tx = (x - xa) / wa, ty = (y - ya) / ha, tw = log(w / wa), th = log(h / ha)`` on
box centres (Girshick et al. 2014, appendix C), each times a weight.

N boxes, B images
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise

import numpy as np
from array_api_compat import array_namespace

from maskrcnn.detection.arrays import beside, group_sizes
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.stages import Array
from maskrcnn.kernels import boxes as kernel

Weights = tuple[float, float, float, float]

MIN_CODED_SIDE = 1e-6
"""Sides are raised to this before division and logarithm."""

MAX_SHIFTED = 1000
"""Up to this many boxes, torchvision's `batched_nms` shifts groups apart on a CPU."""


def to_centers(boxes: Array) -> tuple[Array, Array]:
    """Boxes (..., 4) -> centres (..., 2) and width, height (..., 2)."""
    wh = sides(boxes)
    return boxes[..., :2] + 0.5 * wh, wh


def encode_boxes(boxes: Array, anchors: Array, weights: Weights) -> Array:
    """Deltas (..., 4) with which `decode_boxes` turns `anchors` into `boxes`."""
    xp = array_namespace(boxes)
    centers, wh = to_centers(boxes)
    anchor_centers, anchor_wh = to_centers(anchors)
    wh, anchor_wh = wh.clip(min=MIN_CODED_SIDE), anchor_wh.clip(min=MIN_CODED_SIDE)
    deltas = xp.concat([(centers - anchor_centers) / anchor_wh, xp.log(wh / anchor_wh)], axis=-1)
    return deltas * beside(np.array(weights, np.float32), deltas)


def decode_boxes(deltas: Array, anchors: Array, weights: Weights, clip: float) -> Array:
    """Apply deltas (..., 4) to anchors (..., 4); `clip` is the largest log scale. The inverse of `encode_boxes`."""
    if isinstance(deltas, np.ndarray):
        rows = kernel.decode(deltas.reshape(-1, 4), anchors.reshape(-1, 4), np.array(weights, np.float32), clip)
        return rows.reshape(deltas.shape)
    xp = array_namespace(deltas)
    deltas = deltas / beside(np.array(weights, np.float32), deltas)
    anchor_centers, anchor_wh = to_centers(anchors)
    centers = deltas[..., :2] * anchor_wh + anchor_centers
    half_wh = 0.5 * xp.exp(deltas[..., 2:].clip(max=clip)) * anchor_wh
    return xp.concat([centers - half_wh, centers + half_wh], axis=-1)


def clip_boxes(boxes: Array, windows: Array) -> Array:
    """Clip boxes (..., 4) to windows (..., 4) of a shape that broadcasts."""
    xp = array_namespace(boxes)
    low, high = windows[..., :2], windows[..., 2:]
    low, high = xp.concat([low, low], axis=-1), xp.concat([high, high], axis=-1)
    return xp.minimum(xp.maximum(boxes, low), high)


def sides(boxes: Array) -> Array:
    """Width and height (..., 2) of boxes (..., 4)."""
    return boxes[..., 2:] - boxes[..., :2]


def to_units(boxes: Array, input_hw: tuple[int, int], conventions: Conventions) -> Array:
    """Boxes (..., 4) in input pixels -> the network's units: pixels, or [0, 1] from the first pixel to the last."""
    if not conventions.normalized_boxes:
        return boxes
    shift, span = _first_and_span(boxes, input_hw)
    return (boxes - shift) / span


def to_pixels(boxes: Array, input_hw: tuple[int, int], conventions: Conventions) -> Array:
    """The inverse of `to_units`."""
    if not conventions.normalized_boxes:
        return boxes
    shift, span = _first_and_span(boxes, input_hw)
    return boxes * span + shift


def _first_and_span(boxes: Array, input_hw: tuple[int, int]) -> tuple[Array, Array]:
    h, w = input_hw
    shift, span = np.array([0, 0, 1, 1], np.float32), np.array([w - 1, h - 1, w - 1, h - 1], np.float32)
    return beside(shift, boxes), beside(span, boxes)


def iou(a: Array, b: Array) -> Array:
    """Intersection over union of each pair: (..., N, 4), (..., M, 4) -> (..., N, M)."""
    shared = _shared_length(a, b, 0)
    shared *= _shared_length(a, b, 1)
    union = sides(a).prod(-1)[..., :, None] + sides(b).prod(-1)[..., None, :]
    union -= shared
    shared /= union.clip(min=1e-9)
    return shared


def share_inside(a: Array, b: Array) -> Array:
    """Share of the area of each box of `a` that lies in each box of `b`: (..., N, 4), (..., M, 4) -> (..., N, M)."""
    shared = _shared_length(a, b, 0)
    shared *= _shared_length(a, b, 1)
    shared /= sides(a).prod(-1)[..., :, None].clip(min=1e-9)
    return shared


def _shared_length(a: Array, b: Array, axis: int) -> Array:
    """Shared length along x (0) or y (1), computed in place: a thousand instances may meet 65,000 anchors."""
    xp = array_namespace(a)
    length = xp.minimum(a[..., :, None, 2 + axis], b[..., None, :, 2 + axis])
    length -= xp.maximum(a[..., :, None, axis], b[..., None, :, axis])
    return length.clip(min=0)


def top_rows(values: Array, limit: int) -> Array:
    """Columns (B, T) of the `limit` largest of each row of values (B, K), largest first; ties keep their order."""
    if not isinstance(values, np.ndarray):
        return values.sort(dim=1, descending=True, stable=True).indices[:, :limit]
    return np.stack([_top_of_row(row, limit) for row in values])


def _top_of_row(values: np.ndarray, limit: int) -> np.ndarray:
    columns = np.arange(len(values))
    if limit < len(values):
        # Keep every value that equals the last chosen one, so that ties are decided by order and not by chance.
        lowest = np.partition(values, len(values) - limit)[len(values) - limit]
        columns = np.flatnonzero(values >= lowest)
    return columns[np.argsort(-values[columns], kind="stable")][:limit]


Suppress = Callable[[Array, Array, Array, Array, int, float, int, bool], Array]
"""Signature of `suppress`, for which the exported graph uses an ONNX operation."""


def suppress(
    boxes: Array,
    scores: Array,
    groups: Array,
    image_index: Array,
    n_images: int,
    threshold: float,
    limit: int,
    groups_shifted: bool,
) -> Array:
    """Non-maximum suppression of boxes (N, 4): rows, at most `limit` an image, image by image, best first.

    A box is dropped if its IoU with a better one of its image and group exceeds `threshold`. `groups_shifted` is that
    of `Conventions`.
    """
    xp = array_namespace(boxes)
    by_image = xp.argsort(image_index, stable=True)
    kept = []
    for first, last in pairwise(accumulate(group_sizes(image_index, n_images), initial=0)):
        rows = by_image[first:last]
        order = rows[xp.argsort(-scores[rows], stable=True)]
        kept.append(order[_nms(boxes[order], scores[order], groups[order], threshold, limit, groups_shifted)])
    return xp.concat(kept) if kept else image_index[:0]


def _nms(boxes: Array, scores: Array, groups: Array, threshold: float, limit: int, groups_shifted: bool) -> Array:
    """Indices of the boxes (N, 4), sorted by falling score, that survive within their groups (N,)."""
    if not isinstance(boxes, np.ndarray):
        import torchvision

        if not groups_shifted and boxes.device.type != "mps":  # MPS has no float64
            boxes = boxes.double()  # keeps shifted corners far below float32's rounding
        return torchvision.ops.batched_nms(boxes, scores.to(boxes.dtype), groups, threshold)[:limit]
    if groups_shifted:
        boxes = shift_groups(boxes, groups)
    return kernel.nms(np.ascontiguousarray(boxes), groups, np.float32(threshold), limit)


def shift_groups(boxes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Move boxes (N, 4) of groups (N,) apart as `Conventions.groups_shifted` says; more than `MAX_SHIFTED` stay."""
    if not 0 < len(boxes) <= MAX_SHIFTED:
        return boxes
    return boxes + (groups.astype(np.float32) * (boxes.max() + np.float32(1)))[:, None]


def vote_boxes(boxes: Array, scores: Array, groups: Array, kept: Array, threshold: float) -> Array:
    """Box voting (Gidaris and Komodakis 2015): rows `kept` (K,) -> (K, 4), score-weighted means of boxes (N, 4).

    A mean includes the box itself and all boxes of its group (N,) that overlap it by an IoU above `threshold`.
    """
    if isinstance(boxes, np.ndarray):
        return kernel.vote(boxes, scores, groups, kept, np.float32(threshold))
    weights = voters(boxes, groups, kept, threshold) * scores
    return (weights @ boxes) / weights.sum(1)[:, None]


def voters(boxes: Array, groups: Array, kept: Array, threshold: float) -> Array:
    """Which of boxes (N, 4) vote for each of the rows `kept` (K,), (K, N) bool, by the rule of `vote_boxes`."""
    votes = (iou(boxes[kept], boxes) > threshold) & (groups[kept][:, None] == groups)
    return votes | (kept[:, None] == array_namespace(boxes).arange(boxes.shape[0], device=boxes.device))
