"""RoIAlign (He et al. 2017): the features under each box, bilinearly sampled to a small square, from its own level.

    R boxes, C channels, S output cells along a side
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import roi_align

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

    `features` are the maps that take part, finest first, with their `strides`.
    """
    rois = torch.cat([image_index[:, None].to(boxes.dtype), boxes], 1)
    if len(features) == 1:
        return roi_align(features[0], rois, size, 1 / strides[0], samples, aligned)
    levels = assign_levels(boxes, len(features))
    pooled = features[0].new_zeros(len(boxes), features[0].shape[1], size, size)
    for level, feature in enumerate(features):
        rows = (levels == level).nonzero()[:, 0]
        part = roi_align(feature, rois[rows], size, 1 / strides[level], samples, aligned)
        pooled = pooled.index_put((rows,), part.to(pooled.dtype))
    return pooled
