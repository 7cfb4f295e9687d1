"""RoIAlign (He et al. 2017) in torch, with gradients: the features under each box, sampled to a small square.

On a CPU our own kernel pools channels-last maps, forward and backward, as a registered op; elsewhere torchvision pools.

    B images, R boxes, C channels, S output cells along a side, M x N cells of a map
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import torch
import torchvision
from torch import Tensor

from maskrcnn.kernels.roi_align import roi_align_backward
from maskrcnn.model.conventions import Conventions
from maskrcnn.model.layers import channels_last
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
        settings = size, strides, conventions.roi_samples, conventions.pooling
        return pool_on_cpu(features, boxes, image_index, levels, *settings)
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


@torch.library.custom_op("maskrcnn::roi_align", mutates_args=(), device_types="cpu")
def pool_on_cpu(
    features: Sequence[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    levels: Tensor,
    size: int,
    strides: Sequence[int],
    samples: int,
    pooling: str,
) -> Tensor:
    """`pool` by our kernel, ``torch.ops.maskrcnn.roi_align``: all levels at once, each box (R, 4) from that in `levels`
    (R,). `samples` and `pooling` are those of the conventions; the result's channels are last in memory.
    """
    pooled = _empty_cells(features, boxes, size)
    pool_maps(
        [channels_last(f) for f in features],
        boxes.numpy(),
        image_index.numpy(),
        levels.numpy(),
        pooled.permute(0, 2, 3, 1).numpy(),
        strides=strides,
        samples=samples,
        pooling=pooling,
    )
    return pooled


@torch.library.custom_op("maskrcnn::roi_align_backward", mutates_args=(), device_types="cpu")
def _pool_backward(
    grad: Tensor,
    boxes: Tensor,
    image_index: Tensor,
    levels: Tensor,
    shapes: Sequence[int],
    strides: Sequence[int],
    samples: int,
    pooling: str,
) -> list[Tensor]:
    """Gradients of all maps, whose `shapes` stand one behind the other, from that of the pooled cells."""
    cells, which = channels_last(grad), levels.numpy()
    results = _zero_maps(grad, shapes)
    for level, result in enumerate(results):
        rows = (which == level).nonzero()[0]
        if len(rows):
            own = boxes.numpy()[rows]
            roi_align_backward(
                cells,
                own,
                positions_of(own, (result.shape[2], result.shape[3]), cells.shape[1], pooling),
                image_index.numpy()[rows],
                rows,
                1 / strides[level],
                samples,
                POOLING[pooling],
                max(min(numba.get_num_threads(), result.shape[1] // 16), 1),
                result.permute(0, 2, 3, 1).numpy(),
            )
    return results


@pool_on_cpu.register_fake
def _(features, boxes, image_index, levels, size, strides, samples, pooling):
    return _empty_cells(features, boxes, size)


@_pool_backward.register_fake
def _(grad, boxes, image_index, levels, shapes, strides, samples, pooling):
    return _zero_maps(grad, shapes)


def _empty_cells(features: Sequence[Tensor], boxes: Tensor, size: int) -> Tensor:
    shape = (boxes.shape[0], features[0].shape[1], size, size)
    return torch.empty(shape, dtype=torch.float32, device=boxes.device, memory_format=torch.channels_last)


def _zero_maps(grad: Tensor, shapes: Sequence[int]) -> list[Tensor]:
    maps = (shapes[k : k + 4] for k in range(0, len(shapes), 4))
    return [grad.new_zeros(b, m, n, c).permute(0, 3, 1, 2) for b, c, m, n in maps]  # channels last in memory


def _remember(ctx: Any, inputs: tuple, output: Tensor) -> None:
    features, boxes, image_index, levels, _, strides, samples, pooling = inputs
    ctx.save_for_backward(boxes, image_index, levels)
    ctx.settings = [n for f in features for n in f.shape], strides, samples, pooling


def _lead_back(ctx: Any, grad: Tensor) -> tuple:
    return (_pool_backward(grad, *ctx.saved_tensors, *ctx.settings), *[None] * 7)


pool_on_cpu.register_autograd(_lead_back, setup_context=_remember)
