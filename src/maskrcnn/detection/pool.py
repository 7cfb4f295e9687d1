"""RoIAlign (He et al. 2017): assign each box to a pyramid level, then sample the map under it to a small square.

R boxes, S output cells along a side, B images, C channels, M x N cells of a map
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from array_api_compat import array_namespace

from maskrcnn.detection.arrays import beside, on_host
from maskrcnn.detection.boxes import sides
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.stages import FLOAT32, Array, RegionFormat
from maskrcnn.kernels.roi_align import ALIGNED, CORNERS, SHIFTED, axis_samples, roi_align_forward

BOX_POOL = 7
"""Cells along a side of the box head's input."""

CANONICAL_SIDE, CANONICAL_LEVEL = 224.0, 4
"""A box of ImageNet's side belongs to P4 (Lin et al. 2017, equation 1)."""

FINEST_LEVEL = 2
POOLING = {"shifted": SHIFTED, "aligned": ALIGNED, "corners": CORNERS}


def pool(
    maps: list[Array],
    boxes: Array,
    image_index: Array,
    size: int,
    strides: Sequence[int],
    conventions: Conventions,
    out: np.ndarray | None = None,
    regions: RegionFormat = FLOAT32,
) -> Array:
    """Pool boxes (R, 4) of images (R,) from their levels of `maps`, (B, M, N, C) each, finest first -> (R, S, S, C).

    Boxes are in the network's units. Tensors keep their gradients towards the maps. `out`, for NumPy arrays, is the
    array to fill and return, in the format `regions`.
    """
    maps_hw = [(m.shape[1], m.shape[2]) for m in maps]
    levels = assign_levels(on_host(boxes), maps_hw, strides[0], conventions)
    settings = size, tuple(strides), conventions.roi_samples, conventions.pooling
    if isinstance(boxes, np.ndarray):
        out = np.empty((len(boxes), size, size, maps[0].shape[3]), np.float32) if out is None else out
        return pool_arrays(maps, boxes, image_index, levels, out, *settings[1:], regions)
    from maskrcnn.detection.tensors import pool_tensors

    return pool_tensors(maps, boxes, image_index, beside(levels, boxes), *settings)


def assign_levels(
    boxes: Array, maps_hw: Sequence[tuple[int, int]], finest_stride: int, conventions: Conventions
) -> Array:
    """Index (R,) int64 of the map, finest first, for each box (R, 4): ``floor(4 + log2(sqrt(w h) / 224)) - 2``."""
    xp = array_namespace(boxes)
    if len(maps_hw) == 1:
        return xp.zeros_like(boxes[:, 0], dtype=xp.int64)
    canonical_side = CANONICAL_SIDE
    if conventions.normalized_boxes:
        canonical_side /= finest_stride * math.sqrt(maps_hw[0][0] * maps_hw[0][1])
    wh = sides(boxes).clip(min=0)
    with np.errstate(divide="ignore"):
        level = level_of(xp.sqrt(wh[:, 0] * wh[:, 1]) / canonical_side, conventions)
    return xp.astype(level.clip(min=0, max=len(maps_hw) - 1), xp.int64)


def level_of(relative_side: Array, conventions: Conventions) -> Array:
    """Level (R,) as whole floats counted from P2, not yet limited; `relative_side` (R,) is 1 at the canonical side."""
    xp = array_namespace(relative_side)
    if conventions.level_rule == "round":
        level = CANONICAL_LEVEL + xp.round(xp.log2(relative_side))
    elif conventions.level_rule == "floor-tight":
        level = xp.floor(CANONICAL_LEVEL + xp.log2(relative_side + 1e-8))
    else:
        level = xp.floor(CANONICAL_LEVEL + xp.log2(relative_side) + 1e-6)
    return level - FINEST_LEVEL


def corner_positions(boxes: Array, map_hw: tuple[int, int], size: int) -> Array:
    """Sample positions x and y, (R, 2, S) in cells of a map, from corner to corner of boxes (R, 4) in [0, 1].

    Float32 in TensorFlow's order: the last sample of a box that ends at 1 may lie one rounding step off the last cell.
    """
    last_x, last_y = map_hw[1] - 1, map_hw[0] - 1
    xp = array_namespace(boxes)
    cells = xp.stack([boxes[:, 0] * last_x, boxes[:, 1] * last_y], axis=1)
    wh = sides(boxes)
    step = xp.stack([wh[:, 0] * last_x, wh[:, 1] * last_y], axis=1) / (size - 1)
    return cells[..., None] + step[..., None] * xp.arange(size, dtype=boxes.dtype, device=boxes.device)


def sample_positions(boxes: np.ndarray, map_hw: tuple[int, int], size: int, pooling: str) -> np.ndarray:
    """The `positions` argument of the kernels: `corner_positions` under ``pooling="corners"``, else empty."""
    if pooling != "corners":
        return np.empty((len(boxes), 2, 0), np.float32)
    return corner_positions(boxes, map_hw, size)


def sample_points(
    box: np.ndarray, map_hw: tuple[int, int], size: int, stride: int, conventions: Conventions
) -> tuple[np.ndarray, np.ndarray]:
    """Where RoIAlign reads a map of `map_hw` for a box (4,): x (S * g,) and y (S * g,), g samples a bin, in cells.

    Position i is the centre of cell i; every x pairs with every y. Samples more than a cell off the map read zeros.
    """
    if conventions.pooling == "corners":
        x, y = corner_positions(box[None], map_hw, size)[0]
        return x, y
    starts_steps = (
        axis_samples(box[k], box[k + 2], 1 / stride, size, conventions.roi_samples, POOLING[conventions.pooling])
        for k in (0, 1)
    )
    x, y = (start + step * np.arange(size * samples) for start, step, samples in starts_steps)
    return x, y


def pool_arrays(
    maps: Sequence[np.ndarray],
    boxes: np.ndarray,
    image_index: np.ndarray,
    levels: np.ndarray,
    out: np.ndarray,
    strides: Sequence[int],
    samples: int,
    pooling: str,
    regions: RegionFormat = FLOAT32,
) -> np.ndarray:
    """Fill `out` (R, S, S, C), in the format `regions`, with boxes (R, 4) of images (R,) by our kernel.

    Each is pooled from its level of `maps`.
    """
    for level, feature in enumerate(maps):
        rows = np.flatnonzero(levels == level)
        if len(rows):
            level_boxes, images, scale = boxes[rows], image_index[rows], 1 / strides[level]
            positions = sample_positions(level_boxes, (feature.shape[1], feature.shape[2]), out.shape[1], pooling)
            settings = scale, samples, POOLING[pooling], regions.low, regions.step
            roi_align_forward(feature, level_boxes, positions, images, rows, *settings, out)
    return out
