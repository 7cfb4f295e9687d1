"""RoIAlign for torch tensors, with gradients towards the maps.

Our kernel pools float32 and bfloat16 maps on a CPU, as the registered op ``torch.ops.maskrcnn.roi_align``; elsewhere
torchvision, which gets maps of half precision in float32. Boxes and sums are float32 everywhere: bfloat16 would round a
corner at 500 px to a multiple of 2.

B images, R boxes, C channels, S output cells along a side, M x N cells of a map
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import torch
import torchvision
from torch import Tensor

from maskrcnn.detection.arrays import beside, group_sizes
from maskrcnn.detection.pool import POOLING, corner_positions, pool_arrays, sample_positions
from maskrcnn.kernels.roi_align import roi_align_backward


def pool_tensors(
    maps: list[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    levels: Tensor,
    size: int,
    strides: Sequence[int],
    samples: int,
    pooling: str,
) -> Tensor:
    """`pool` for maps (B, M, N, C) and boxes (R, 4), each box from the map of its level (R,) -> (R, S, S, C)."""
    features = [m.permute(0, 3, 1, 2) for m in maps]
    boxes = boxes.detach()
    if boxes.device.type != "cpu" or maps[0].dtype != torch.bfloat16:
        features = [f.to(torch.promote_types(f.dtype, torch.float32)) for f in features]
    if boxes.device.type == "cpu" and features[0].dtype != torch.float64:
        pooled = roi_align(features, boxes, image_index, levels, size, strides, samples, pooling)
        return pooled.permute(0, 2, 3, 1).to(maps[0].dtype)

    def pool_level(level: int, feature: Tensor, level_boxes: Tensor, images: Tensor) -> Tensor:
        if pooling == "corners":
            return crop_and_resize(feature, level_boxes, images, size)
        rois = torch.cat([images[:, None], level_boxes], 1).to(feature.dtype)
        return torchvision.ops.roi_align(feature, rois, size, 1 / strides[level], samples, pooling == "aligned")

    pooled = pool_by_level(features, boxes, image_index, rows_by_group(levels, len(features)), pool_level)
    return pooled.permute(0, 2, 3, 1).to(maps[0].dtype)


def rows_by_group(index: Tensor, n_groups: int) -> tuple[Tensor, ...]:
    """Rows of each group in `index` (N,), ascending. On a GPU, this waits once for all groups."""
    return index.argsort(stable=True).split(group_sizes(index, n_groups))


def pool_by_level(
    features: Sequence[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    level_rows: Sequence[Tensor],
    pool_level: Callable[[int, Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """Pool the boxes (R, 4) with ``pool_level(level, feature, boxes, images)`` and restore their order.

    `level_rows` are the rows of each level's boxes. Every box belongs to one level.
    """
    parts = [pool_level(k, features[k], boxes[rows], image_index[rows]) for k, rows in enumerate(level_rows)]
    return torch.cat(parts).index_select(0, torch.cat(tuple(level_rows)).argsort())


def crop_and_resize(feature: Tensor, boxes: Tensor, image_index: Tensor, size: int) -> Tensor:
    """TensorFlow's ``crop_and_resize`` on any device: boxes (R, 4) in [0, 1] -> (R, C, S, S).

    Each bin has one bilinear sample; the outermost lie on the corners of the box. Samples off the map are 0.
    """
    limits = beside(np.array([feature.shape[-1] - 1, feature.shape[-2] - 1], np.float32), boxes)[:, None]
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


def channels_last(maps: Tensor) -> Any:
    """(B, C, M, N) -> a NumPy view (B, M, N, C). It copies only if the memory is laid out otherwise."""
    return _numpy_view(maps.detach().permute(0, 2, 3, 1).contiguous())


def _numpy_view(tensor: Tensor) -> Any:
    """NumPy view of a CPU tensor, of the bits as uint16 if it is bfloat16."""
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


@torch.library.custom_op("maskrcnn::roi_align", mutates_args=(), device_types="cpu")
def roi_align(
    features: Sequence[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    levels: Tensor,
    size: int,
    strides: Sequence[int],
    samples: int,
    pooling: str,
) -> Tensor:
    """Pool boxes (R, 4) of images (R,) from maps (B, C, M, N) of levels (R,) -> (R, C, S, S), channels last.

    Maps are float32 or bfloat16, and so is the result.
    """
    pooled = _empty_cells(features, boxes, size)
    maps, out = [channels_last(f) for f in features], _numpy_view(pooled.permute(0, 2, 3, 1))
    pool_arrays(maps, boxes.numpy(), image_index.numpy(), levels.numpy(), out, strides, samples, pooling)
    return pooled


@torch.library.custom_op("maskrcnn::roi_align_backward", mutates_args=(), device_types="cpu")
def _roi_align_backward(
    grad: Tensor,
    boxes: Tensor,
    image_index: Tensor,
    levels: Tensor,
    shapes: Sequence[int],
    strides: Sequence[int],
    samples: int,
    pooling: str,
) -> list[Tensor]:
    """Gradients of all maps from the gradient of the pooled cells; `shapes` lists B, C, M, N of each map in turn.

    They are summed in float32 and then take the dtype of `grad`.
    """
    cells, level_index = channels_last(grad), levels.numpy()
    map_gradients = _zero_maps(grad, shapes, torch.float32)
    for level, gradient in enumerate(map_gradients):
        rows = (level_index == level).nonzero()[0]
        if len(rows):
            level_boxes, images = boxes.numpy()[rows], image_index.numpy()[rows]
            positions = sample_positions(level_boxes, (gradient.shape[2], gradient.shape[3]), cells.shape[1], pooling)
            scale, mode = 1 / strides[level], POOLING[pooling]
            threads = max(min(numba.get_num_threads(), gradient.shape[1] // 16), 1)
            out = gradient.permute(0, 2, 3, 1).numpy()
            roi_align_backward(cells, level_boxes, positions, images, rows, scale, samples, mode, threads, out)
    return [gradient.to(grad.dtype) for gradient in map_gradients]


@roi_align.register_fake
def _(features, boxes, image_index, levels, size, strides, samples, pooling):
    return _empty_cells(features, boxes, size)


@_roi_align_backward.register_fake
def _(grad, boxes, image_index, levels, shapes, strides, samples, pooling):
    return _zero_maps(grad, shapes, grad.dtype)


def _empty_cells(features: Sequence[Tensor], boxes: Tensor, size: int) -> Tensor:
    shape = (boxes.shape[0], features[0].shape[1], size, size)
    return torch.empty(shape, dtype=features[0].dtype, device=boxes.device, memory_format=torch.channels_last)


def _zero_maps(grad: Tensor, shapes: Sequence[int], dtype: torch.dtype) -> list[Tensor]:
    """Maps of zeros, channels last in memory."""
    maps = (shapes[k : k + 4] for k in range(0, len(shapes), 4))
    return [grad.new_zeros(b, m, n, c, dtype=dtype).permute(0, 3, 1, 2) for b, c, m, n in maps]


def _save_for_backward(ctx: Any, inputs: tuple, output: Tensor) -> None:
    features, boxes, image_index, levels, _, strides, samples, pooling = inputs
    ctx.save_for_backward(boxes, image_index, levels)
    ctx.settings = [n for f in features for n in f.shape], strides, samples, pooling


def _backward(ctx: Any, grad: Tensor) -> tuple:
    return (_roi_align_backward(grad, *ctx.saved_tensors, *ctx.settings), *[None] * 7)


roi_align.register_autograd(_backward, setup_context=_save_for_backward)
