"""RoIAlign (He et al. 2017) on a CPU, for every runtime: which map a box is pooled from, and the kernel on all maps.

R boxes, S output cells along a side, B images, C channels, M x N cells of a map
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from maskrcnn.kernels.roi_align import ALIGNED, CORNERS, SHIFTED, roi_align_forward
from maskrcnn.model.conventions import Conventions

CANONICAL_SIDE, CANONICAL_LEVEL = 224.0, 4
"""A box of ImageNet's side belongs to P4 (Lin et al. 2017, equation 1)."""

FINEST_LEVEL = 2
POOLING = {"shifted": SHIFTED, "aligned": ALIGNED, "corners": CORNERS}


def assign_levels(
    boxes: np.ndarray, maps_hw: list[tuple[int, int]], stride: int, conventions: Conventions
) -> np.ndarray:
    """(R,) int64 index of the map that each box (R, 4) belongs to: ``floor(4 + log2(sqrt(w h) / 224))``, from P2 on.

    `maps_hw` are the sizes of the maps, finest first, and `stride` is that of the first.
    """
    if len(maps_hw) == 1:
        return np.zeros(len(boxes), np.int64)
    side = CANONICAL_SIDE
    if conventions.normalized_boxes:
        side /= stride * math.sqrt(maps_hw[0][0] * maps_hw[0][1])
    wh = np.maximum(boxes[:, 2:] - boxes[:, :2], np.float32(0))
    relative = np.sqrt(wh[:, 0] * wh[:, 1]) / np.float32(side)
    with np.errstate(divide="ignore"):
        if conventions.level_rule == "round":
            level = CANONICAL_LEVEL + np.log2(relative).round()
        elif conventions.level_rule == "floor-tight":
            level = np.floor(CANONICAL_LEVEL + np.log2(relative + np.float32(1e-8)))
        else:
            level = np.floor(CANONICAL_LEVEL + np.log2(relative) + np.float32(1e-6))
    return np.clip(level - FINEST_LEVEL, 0, len(maps_hw) - 1).astype(np.int64)


def corner_positions(boxes: np.ndarray, map_hw: tuple[int, int], size: int) -> np.ndarray:
    """x and y, (R, 2, S) in cells of a map, of samples spread from corner to corner of boxes (R, 4) in [0, 1].

    float32 in TensorFlow's order: the last sample of a box that ends at 1 is on the last cell or a rounding beyond it.
    """
    last = np.array([map_hw[1] - 1, map_hw[0] - 1], np.float32)
    start, step = boxes[:, :2] * last, (boxes[:, 2:] - boxes[:, :2]) * last / np.float32(size - 1)
    return start[..., None] + step[..., None] * np.arange(size, dtype=np.float32)


def positions_of(boxes: np.ndarray, map_hw: tuple[int, int], size: int, pooling: str) -> np.ndarray:
    """What the kernels take as positions: `corner_positions` where this `pooling` needs them, else nothing."""
    if pooling != "corners":
        return np.empty((len(boxes), 2, 0), np.float32)
    return corner_positions(boxes, map_hw, size)


def pool_maps(
    maps: list[np.ndarray],
    boxes: np.ndarray,
    image_index: np.ndarray,
    levels: np.ndarray,
    pooled: np.ndarray,
    *,
    strides: Sequence[int],
    samples: int,
    pooling: str,
) -> None:
    """Fill `pooled` (R, S, S, C) with boxes (R, 4), in the network's units, of images (R,), each from its level of
    `maps` (B, M, N, C). `samples` and `pooling` are those of `Conventions`.
    """
    for level, feature in enumerate(maps):
        rows = np.flatnonzero(levels == level)
        if len(rows):
            own = boxes[rows]
            roi_align_forward(
                feature,
                own,
                positions_of(own, (feature.shape[1], feature.shape[2]), pooled.shape[1], pooling),
                image_index[rows],
                rows,
                1 / strides[level],
                samples,
                POOLING[pooling],
                pooled,
            )
