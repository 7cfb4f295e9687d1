"""ONNX operations that the tracer cannot write: each as torch code and as a node of the graph.

B images, T candidates of an image, G groups that suppress within, R boxes, C channels, S pooled cells along a side,
M x N cells of a map
"""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import Tensor

LOWEST = torch.finfo(torch.float32).min
"""Invalid candidates have the score -inf. `Suppress` skips every score that is not above this."""


class ByteProduct(torch.autograd.Function):
    """ONNX's MatMulInteger: bytes (..., I) times bytes (I, J) -> sums (..., J) int32."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        return (a.int() @ b.int()).int()

    @staticmethod
    def symbolic(g: Any, a: Any, b: Any) -> Any:
        return g.op("MatMulInteger", a, b)


class Suppress(torch.autograd.Function):
    """ONNX's NonMaxSuppression: boxes (B, T, 4), scores (B, G, T) -> rows (image, group, box) of the survivors."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, threshold: float, limit: int) -> Tensor:
        rows = (scores > LOWEST).nonzero()
        image, group, box = rows.T
        groups = image * scores.shape[1] + group
        return rows[torchvision.ops.batched_nms(boxes[image, box], scores[image, group, box], groups, threshold)]

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, threshold: float, limit: int) -> Any:
        values = (torch.tensor([limit]), torch.tensor([threshold]), torch.tensor([LOWEST]))
        return g.op("NonMaxSuppression", boxes, scores, *(g.op("Constant", value_t=value) for value in values))


class RoiAlign(torch.autograd.Function):
    """ONNX's RoiAlign: feature (B, C, M, N), boxes (R, 4) of images (R,) -> (R, C, S, S)."""

    @staticmethod
    def forward(
        ctx: Any, feature: Tensor, boxes: Tensor, image: Tensor, size: int, stride: int, samples: int, aligned: bool
    ) -> Tensor:
        rois = torch.cat([image[:, None].float(), boxes], 1)
        return torchvision.ops.roi_align(feature, rois, size, 1 / stride, samples, aligned)

    @staticmethod
    def symbolic(
        g: Any, feature: Any, boxes: Any, image: Any, size: int, stride: int, samples: int, aligned: bool
    ) -> Any:
        return g.op(
            "RoiAlign",
            feature,
            boxes,
            image,
            output_height_i=size,
            output_width_i=size,
            spatial_scale_f=1 / stride,
            sampling_ratio_i=samples,
            coordinate_transformation_mode_s="half_pixel" if aligned else "output_half_pixel",
        )


def resize_averaging(images: Tensor, hw: Tensor) -> Tensor:
    """`detection.fit.resize`, to the last bit: images (B, H, W, 3) uint8 to `hw` (2,), first along x."""
    images = _average_last(images.transpose(2, 3), hw[1:])  # (B, H, W, 3) -> (B, H, 3, W) -> (B, H, 3, w)
    images = _average_last(images.permute(0, 3, 2, 1), hw[:1])  # -> (B, w, 3, H) -> (B, w, 3, h)
    return images.permute(0, 3, 1, 2)


def _average_last(images: Tensor, out: Tensor) -> Tensor:
    """Scale bytes (..., I) to (..., out), `out` being (1,).

    Pillow's weights have 22 bits. Multiplying 8 at a time is exact, and faster than floats that could hold the sums.
    """
    # Every tensor here has an axis and is float64: the exporter divides scalars and int64 in float32.
    step = lengths(images, 3).double() / out.double()
    reach = step.clamp(min=1)
    centers = (torch.arange(out[0]).double() + 0.5) * step  # type: ignore[call-overload]
    offsets = (torch.arange(images.shape[3]).double()[:, None] - centers + 0.5) * (1 / reach)
    weights = (1 - offsets.abs()).clamp(min=0)  # (I, out)
    weights = (weights / weights.sum(0) * 2**22 + 0.5).int()
    total = torch.full((), 2**21, dtype=torch.int32)
    for shift in (0, 8, 16):
        part = weights // 2**shift % 256
        total = total + ByteProduct.apply(images, part.to(torch.uint8)) * 2**shift
    return (total // 2**22).clamp(max=255).to(torch.uint8)


def resize_plain(images: Tensor, hw: Tensor) -> Tensor:
    """`kernels.resize.resize_bilinear`: images (B, H, W, 3) uint8 to `hw` (2,), without averaging."""
    top, bottom, wy = _two_taps(lengths(images, 1), hw[:1])
    left, right, wx = _two_taps(lengths(images, 2), hw[1:])
    rows = []
    for y in (top, bottom):
        row = images.index_select(1, y)
        rows.append((1 - wx) * row.index_select(2, left) + wx * row.index_select(2, right))
    wy = wy[:, None]
    return (1 - wy) * rows[0] + wy * rows[1]


def _two_taps(length: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `out` (1,) pixels along `length` (1,): its two source pixels, and the second's weight as a column."""
    step = (length.float() / out.float()).double()
    centers = torch.arange(out[0]).double() + 0.5  # type: ignore[call-overload]
    position = (step * centers - 0.5).float().clamp(min=0)
    first = torch.minimum(position.long(), length - 1)
    return first, torch.minimum(first + 1, length - 1), (position - first)[:, None]


def lengths(tensor: Tensor, *axes: int) -> Tensor:
    """Lengths along axes as traced int64. ``tensor.shape`` would become a constant of the graph in most places."""
    return torch._shape_as_tensor(tensor)[list(axes)]
