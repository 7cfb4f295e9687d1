"""RoIAlign (He et al. 2017): the features under each box, bilinearly sampled to a small square, from its own level.

On a CPU our own kernel pools channels-last maps, forward and backward; elsewhere torchvision's op does.

    B images, R boxes, C channels, S output cells along a side, M x N cells of a map
"""

from __future__ import annotations

from typing import Any

import numba
import torch
import torchvision
from torch import Tensor

from maskrcnn.kernels.roi_align import roi_align_backward, roi_align_forward

CANONICAL_SIDE, CANONICAL_LEVEL = 224.0, 4
"""A box of ImageNet's side belongs to P4 (Lin et al. 2017, equation 1)."""

FINEST_LEVEL = 2


def assign_levels(boxes: Tensor, n_levels: int) -> Tensor:
    """(R,) index of the map that each box (R, 4) is pooled from: ``floor(4 + log2(sqrt(w h) / 224))``, from P2 on."""
    side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1).sqrt()
    level = torch.floor(CANONICAL_LEVEL + torch.log2(side / CANONICAL_SIDE) + 1e-6)
    return (level - FINEST_LEVEL).clamp(0, n_levels - 1).to(torch.int64)


def pool(
    features: list[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    *,
    size: int,
    strides: tuple[int, ...],
    samples: int,
    aligned: bool,
) -> Tensor:
    """Boxes (R, 4) in input pixels of images `image_index` (R,) -> (R, C, size, size).

    `features` are the maps (B, C, M, N) that take part, finest first, with their `strides`. Gradients flow to the
    features, not to the boxes.
    """
    levels = assign_levels(boxes, len(features)) if len(features) > 1 else torch.zeros_like(image_index)
    if boxes.device.type == "cpu" and features[0].dtype == torch.float32:
        return _CpuPool.apply(boxes.detach(), image_index, levels, size, strides, samples, aligned, *features)
    rois = torch.cat([image_index[:, None].to(boxes.dtype), boxes], 1)
    pooled = features[0].new_zeros(len(boxes), features[0].shape[1], size, size)
    for level, feature in enumerate(features):
        rows = (levels == level).nonzero()[:, 0]
        part = torchvision.ops.roi_align(feature, rois[rows], size, 1 / strides[level], samples, aligned)
        pooled = pooled.index_put((rows,), part.to(pooled.dtype))
    return pooled


def _channels_last(feature: Tensor) -> Any:
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
        samples: int,
        aligned: bool,
        *features: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(boxes, image_index, levels)
        ctx.settings = strides, samples, aligned
        ctx.shapes = [f.shape for f in features]
        pooled = torch.empty(len(boxes), size, size, features[0].shape[1])
        for level, feature in enumerate(features):
            rows = (levels == level).nonzero()[:, 0]
            if len(rows):
                roi_align_forward(
                    _channels_last(feature),
                    boxes[rows].numpy(),
                    image_index[rows].numpy(),
                    rows.numpy(),
                    1 / strides[level],
                    samples,
                    aligned,
                    pooled.numpy(),
                )
        return pooled.permute(0, 3, 1, 2)  # (R, S, S, C) -> (R, C, S, S), channels last in memory

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        boxes, image_index, levels = ctx.saved_tensors
        strides, samples, aligned = ctx.settings
        grad = _channels_last(grads[0])
        results: list[Tensor | None] = []
        for level, (B, C, M, N) in enumerate(ctx.shapes):
            if not ctx.needs_input_grad[7 + level]:
                results.append(None)
                continue
            out = torch.zeros(B, M, N, C)
            rows = (levels == level).nonzero()[:, 0]
            if len(rows):
                roi_align_backward(
                    grad,
                    boxes[rows].numpy(),
                    image_index[rows].numpy(),
                    rows.numpy(),
                    1 / strides[level],
                    samples,
                    aligned,
                    max(min(numba.get_num_threads(), C // 16), 1),
                    out.numpy(),
                )
            results.append(out.permute(0, 3, 1, 2))
        return (None,) * 7 + tuple(results)
