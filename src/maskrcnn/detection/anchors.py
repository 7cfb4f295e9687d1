"""Anchors: boxes of several scales and ratios around every cell of every feature map.

A cell anchors, K anchors of all levels, M x N cells of a map
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from maskrcnn.config import LEVELS, ModelConfig
from maskrcnn.detection.boxes import to_units
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.stages import Array

FPN_STRIDES = (4, 8, 16, 32)
SINGLE_STRIDE = 16
POOLED_LEVELS = 4
"""RoIAlign reads P2 to P5. P6 serves the region proposal network alone."""

DEFAULT_ANCHOR_SIZES = (16.0, 32.0, 64.0, 128.0, 256.0)
"""For an input of 512 pixels: half of the paper's, which are for 800 to 1333."""

MapSizes = tuple[tuple[int, int], ...]


def cell_anchors(sizes: tuple[float, ...], ratios: tuple[float, ...], rounded: bool) -> np.ndarray:
    """Boxes (A, 4) around the origin, ratio-major, each of area ``size ** 2`` and height over width ``ratio``."""
    root = np.sqrt(np.array(ratios, np.float32))[:, None]
    size = np.array(sizes, np.float32)[None]
    w, h = (size / root).ravel(), (size * root).ravel()
    anchors = np.stack([-w, -h, w, h], 1) / np.float32(2)
    return anchors.round() if rounded else anchors


def p6_length(p5_length: Any) -> Any:
    """Rows or columns of P6, which keeps every second cell of P5."""
    return (p5_length + 1) // 2


class Anchors:
    """Grid anchors of all levels of a network. `strides`: spacing of each level in input pixels."""

    def __init__(self, config: ModelConfig, conventions: Conventions) -> None:
        pyramid = config.pyramid == "fpn"
        base = config.anchor_sizes or DEFAULT_ANCHOR_SIZES
        levels = [(size,) for size in base] if pyramid else [base]
        self.strides = tuple(FPN_STRIDES[0] * 2**level for level in range(LEVELS)) if pyramid else (SINGLE_STRIDE,)
        self.pooled_strides = self.strides[:POOLED_LEVELS]
        self.conventions = conventions
        scaled = [tuple(size * factor for size in sizes for factor in config.anchor_scales) for sizes in levels]
        self.cells = [cell_anchors(sizes, config.anchor_ratios, conventions.anchors_rounded) for sizes in scaled]
        self._grids = lru_cache(maxsize=16)(self._make)

    @property
    def per_cell(self) -> int:
        """Number of anchors at each cell."""
        return len(self.cells[0])

    def counts(self, maps_hw: MapSizes) -> list[int]:
        """Number of anchors of each level."""
        return [rows * columns * self.per_cell for rows, columns in maps_hw]

    def __call__(self, maps_hw: MapSizes, input_hw: tuple[int, int], device: Any = None) -> Array:
        """Boxes (K, 4) float32 in the network's units by level, row, column, anchor; a tensor if `device` is given."""
        return self._grids(maps_hw, input_hw, device)

    def _make(self, maps_hw: MapSizes, input_hw: tuple[int, int], device: Any) -> Array:
        if device is not None:
            import torch

            return torch.from_numpy(self._grids(maps_hw, input_hw, None)).to(device)
        grids = []
        for map_hw, stride, cells in zip(maps_hw, self.strides, self.cells, strict=True):
            steps = np.floor_divide(input_hw, map_hw) if self.conventions.stride_from_shape else (stride, stride)
            y, x = (
                (np.arange(n, dtype=np.float32) + np.float32(self.conventions.anchor_offset)) * np.float32(step)
                for n, step in zip(map_hw, steps, strict=True)
            )
            cy, cx = np.meshgrid(y, x, indexing="ij")
            centers = np.stack([cx, cy, cx, cy], -1).reshape(-1, 1, 4)  # (M, N, 4) -> (M*N, 1, 4)
            grids.append(to_units((centers + cells).reshape(-1, 4), input_hw, self.conventions))
        return np.concatenate(grids)
