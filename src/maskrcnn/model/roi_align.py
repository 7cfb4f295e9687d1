"""RoIAlign (He et al. 2017): the features under each box, bilinearly sampled to a small square, from its own level.

On a CPU our own kernel pools channels-last maps, forward and backward; elsewhere torchvision's op does.

    B images, R boxes, C channels, S output cells along a side, M x N cells of a map
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch
import torchvision
from torch import Tensor

from maskrcnn.kernels.roi_align import ALIGNED, CORNERS, SHIFTED, roi_align_backward, roi_align_forward
from maskrcnn.model.conventions import Conventions

POOLING = {"shifted": SHIFTED, "aligned": ALIGNED, "corners": CORNERS}

CANONICAL_SIDE, CANONICAL_LEVEL = 224.0, 4
"""A box of ImageNet's side belongs to P4 (Lin et al. 2017, equation 1)."""

FINEST_LEVEL = 2


def assign_levels(boxes: Tensor, n_levels: int, rule: str = "floor", canonical_side: float = CANONICAL_SIDE) -> Tensor:
    """(R,) index of the map that each box (R, 4) is pooled from: ``floor(4 + log2(sqrt(w h) / 224))``, from P2 on.

    `rule` is that of `Conventions.level_rule`; `canonical_side` is the 224 in the units of the boxes.
    """
    relative = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1).sqrt() / canonical_side
    if rule == "round":
        level = CANONICAL_LEVEL + torch.log2(relative).round()
    elif rule == "floor-tight":
        level = torch.floor(CANONICAL_LEVEL + torch.log2(relative + 1e-8))
    else:
        level = torch.floor(CANONICAL_LEVEL + torch.log2(relative) + 1e-6)
    return (level - FINEST_LEVEL).clamp(0, n_levels - 1).to(torch.int64)


def pool(
    features: list[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    *,
    size: int,
    strides: tuple[int, ...],
    conventions: Conventions,
) -> Tensor:
    """Boxes (R, 4), in the network's units, of images `image_index` (R,) -> (R, C, size, size).

    `features` are the maps (B, C, M, N) that take part, finest first, with their `strides`. Gradients flow to the
    features, not to the boxes.
    """
    boxes = boxes.detach()
    side = CANONICAL_SIDE
    if conventions.normalized_boxes:
        side /= strides[0] * math.sqrt(features[0].shape[-2] * features[0].shape[-1])
    levels = torch.zeros_like(image_index)
    if len(features) > 1:
        levels = assign_levels(boxes, len(features), conventions.level_rule, side)
    if boxes.device.type == "cpu" and features[0].dtype == torch.float32:
        return _CpuPool.apply(boxes, image_index, levels, size, strides, conventions, *features)
    pooled = features[0].new_zeros(len(boxes), features[0].shape[1], size, size)
    for level, feature in enumerate(features):
        rows = (levels == level).nonzero()[:, 0]
        if conventions.pooling == "corners":
            part = crop_and_resize(feature, boxes[rows], image_index[rows], size)
        else:
            part = torchvision.ops.roi_align(
                feature,
                torch.cat([image_index[rows, None].to(boxes.dtype), boxes[rows]], 1),
                size,
                1 / strides[level],
                conventions.roi_samples,
                conventions.pooling == "aligned",
            )
        pooled = pooled.index_put((rows,), part.to(pooled.dtype))
    return pooled


def crop_and_resize(feature: Tensor, boxes: Tensor, image_index: Tensor, size: int) -> Tensor:
    """TensorFlow's op of that name, for devices other than the CPU: boxes (R, 4) in [0, 1] -> (R, C, size, size).

    One bilinear sample a bin, from corner to corner of the box; samples off the map are 0.
    """
    limits = boxes.new_tensor([feature.shape[-1] - 1, feature.shape[-2] - 1])[:, None]
    positions = corner_positions(boxes, (feature.shape[-2], feature.shape[-1]), size)  # (R, 2, S)
    inside = (positions >= 0) & (positions <= limits)
    first = torch.minimum(positions.clamp(min=0), limits).floor()
    f = positions - first
    second = torch.minimum(first + 1, limits).long()
    x_taps, y_taps = (
        [(first[:, axis].long(), ((1 - f) * inside)[:, axis]), (second[:, axis], (f * inside)[:, axis])]
        for axis in (0, 1)
    )
    result: Tensor | None = None
    for y, wy in y_taps:
        for x, wx in x_taps:
            cells = feature[image_index[:, None, None], :, y[:, :, None], x[:, None, :]]  # (R, S, S, C)
            part = cells * (wy[:, :, None] * wx[:, None, :])[..., None]
            result = part if result is None else result + part
    assert result is not None
    return result.permute(0, 3, 1, 2)


def corner_positions(boxes: Tensor, map_hw: tuple[int, int], size: int) -> Tensor:
    """x and y, (R, 2, S) in cells of a map, of samples spread from corner to corner of boxes (R, 4) in [0, 1].

    float32 in TensorFlow's order: the last sample of a box that ends at 1 is on the last cell or a rounding beyond it.
    """
    last = boxes.new_tensor([map_hw[1] - 1, map_hw[0] - 1])
    start, step = boxes[:, :2] * last, (boxes[:, 2:] - boxes[:, :2]) * last / (size - 1)
    return start[..., None] + step[..., None] * torch.arange(size, dtype=boxes.dtype, device=boxes.device)


def _channels_last(feature: Tensor) -> Any:
    """(B, C, M, N) -> a NumPy view (B, M, N, C), copied only where memory is laid out otherwise."""
    return feature.detach().permute(0, 2, 3, 1).contiguous().numpy()


def _positions(boxes: Tensor, rows: int, columns: int, size: int, conventions: Conventions) -> Any:
    if conventions.pooling != "corners":
        return np.empty((len(boxes), 2, 0), np.float32)
    return corner_positions(boxes, (rows, columns), size).numpy()


class _CpuPool(torch.autograd.Function):
    """All levels at once, so that the result is written in place and each map gets one gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        boxes: Tensor,
        image_index: Tensor,
        levels: Tensor,
        size: int,
        strides: tuple[int, ...],
        conventions: Conventions,
        *features: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(boxes, image_index, levels)
        ctx.settings = strides, conventions
        ctx.shapes = [f.shape for f in features]
        pooled = torch.empty(len(boxes), size, size, features[0].shape[1])
        for level, feature in enumerate(features):
            rows = (levels == level).nonzero()[:, 0]
            M, N = feature.shape[-2:]
            if len(rows):
                roi_align_forward(
                    _channels_last(feature),
                    boxes[rows].numpy(),
                    _positions(boxes[rows], M, N, size, conventions),
                    image_index[rows].numpy(),
                    rows.numpy(),
                    1 / strides[level],
                    conventions.roi_samples,
                    POOLING[conventions.pooling],
                    pooled.numpy(),
                )
        return pooled.permute(0, 3, 1, 2)  # (R, S, S, C) -> (R, C, S, S), channels last in memory

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        boxes, image_index, levels = ctx.saved_tensors
        strides, conventions = ctx.settings
        grad = _channels_last(grads[0])
        size = grad.shape[1]
        results: list[Tensor | None] = []
        for level, (B, C, M, N) in enumerate(ctx.shapes):
            if not ctx.needs_input_grad[6 + level]:
                results.append(None)
                continue
            out = torch.zeros(B, M, N, C)
            rows = (levels == level).nonzero()[:, 0]
            if len(rows):
                roi_align_backward(
                    grad,
                    boxes[rows].numpy(),
                    _positions(boxes[rows], M, N, size, conventions),
                    image_index[rows].numpy(),
                    rows.numpy(),
                    1 / strides[level],
                    conventions.roi_samples,
                    POOLING[conventions.pooling],
                    max(min(numba.get_num_threads(), C // 16), 1),
                    out.numpy(),
                )
            results.append(out.permute(0, 3, 1, 2))
        return (None,) * 6 + tuple(results)
