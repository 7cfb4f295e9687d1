"""RoIAlign (He et al. 2017) in torch, with gradients: the features under each box, sampled to a small square.

On a CPU our own kernel pools channels-last maps, forward and backward; elsewhere torchvision's op does.

    B images, R boxes, C channels, S output cells along a side, M x N cells of a map
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
import torchvision
from torch import Tensor

from maskrcnn.kernels.roi_align import roi_align_backward
from maskrcnn.model.conventions import Conventions
from maskrcnn.model.pooling import POOLING, assign_levels, corner_positions, pool_maps, positions_of


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
    maps_hw = [(feature.shape[-2], feature.shape[-1]) for feature in features]
    levels = torch.from_numpy(assign_levels(boxes.cpu().numpy(), maps_hw, strides[0], conventions)).to(boxes.device)
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
    map_hw = (feature.shape[-2], feature.shape[-1])
    positions = torch.from_numpy(corner_positions(boxes.cpu().numpy(), map_hw, size)).to(boxes.device)  # (R, 2, S)
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


def channels_last(feature: Tensor) -> Any:
    """(B, C, M, N) -> a NumPy view (B, M, N, C), copied only where memory is laid out otherwise."""
    return feature.detach().permute(0, 2, 3, 1).contiguous().numpy()


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
        pooled = np.empty((len(boxes), size, size, features[0].shape[1]), np.float32)
        pool_maps(
            [channels_last(f) for f in features],
            boxes.numpy(),
            image_index.numpy(),
            levels.numpy(),
            pooled,
            strides=strides,
            conventions=conventions,
        )
        return torch.from_numpy(pooled).permute(0, 3, 1, 2)  # (R, S, S, C) -> (R, C, S, S), channels last in memory

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        boxes, image_index, levels = (t.numpy() for t in ctx.saved_tensors)
        strides, conventions = ctx.settings
        grad = channels_last(grads[0])
        results: list[Tensor | None] = []
        for level, (B, C, M, N) in enumerate(ctx.shapes):
            if not ctx.needs_input_grad[6 + level]:
                results.append(None)
                continue
            out = torch.zeros(B, M, N, C)
            rows = (levels == level).nonzero()[0]
            if len(rows):
                own = boxes[rows]
                roi_align_backward(
                    grad,
                    own,
                    positions_of(own, (M, N), grad.shape[1], conventions),
                    image_index[rows],
                    rows,
                    1 / strides[level],
                    conventions.roi_samples,
                    POOLING[conventions.pooling],
                    max(min(numba.get_num_threads(), C // 16), 1),
                    out.numpy(),
                )
            results.append(out.permute(0, 3, 1, 2))
        return (None,) * 6 + tuple(results)
