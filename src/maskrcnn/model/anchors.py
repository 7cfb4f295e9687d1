"""Anchors: boxes of several scales and ratios around every cell of every feature map, in NumPy for every runtime.

L levels, A cell anchors, M x N cells of a map
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from maskrcnn.config import LEVELS, ModelConfig
from maskrcnn.model.conventions import Conventions

FPN_STRIDES = (4, 8, 16, 32)
SINGLE_STRIDE = 16
POOLED_LEVELS = 4
"""RoIAlign takes P2 to P5; P6 serves the region proposal network alone."""

DEFAULT_ANCHOR_SIZES = (16.0, 32.0, 64.0, 128.0, 256.0)
"""For an input of 512 pixels: half of the paper's, which are for 800 to 1333."""


def cell_anchors(sizes: tuple[float, ...], ratios: tuple[float, ...], rounded: bool) -> np.ndarray:
    """(A, 4) boxes around the origin, ratio-major; each has the area ``size ** 2`` and the height/width ``ratio``."""
    root = np.sqrt(np.array(ratios, np.float32))[:, None]
    size = np.array(sizes, np.float32)[None]
    w, h = (size / root).ravel(), (size * root).ravel()
    anchors = np.stack([-w, -h, w, h], 1) / np.float32(2)
    return anchors.round() if rounded else anchors


def to_units(boxes: np.ndarray, input_hw: tuple[int, int], conventions: Conventions) -> np.ndarray:
    """Boxes (..., 4) in pixels of the input -> in the network's units."""
    if not conventions.normalized_boxes:
        return boxes
    h, w = input_hw
    return (boxes - np.array([0, 0, 1, 1], np.float32)) / np.array([w - 1, h - 1, w - 1, h - 1], np.float32)


class Anchors:
    """Grid anchors of all levels of a network; `strides` are their spacing in input pixels."""

    def __init__(self, config: ModelConfig, conventions: Conventions) -> None:
        pyramid = config.pyramid == "fpn"
        base = config.anchor_sizes or DEFAULT_ANCHOR_SIZES
        levels = [(size,) for size in base] if pyramid else [base]
        self.strides = tuple(FPN_STRIDES[0] * 2**level for level in range(LEVELS)) if pyramid else (SINGLE_STRIDE,)
        self.conventions = conventions
        self.cells = [
            cell_anchors(
                tuple(size * factor for size in sizes for factor in config.anchor_scales),
                config.anchor_ratios,
                conventions.anchors_rounded,
            )
            for sizes in levels
        ]
        self._grids = lru_cache(maxsize=16)(self._make)

    @property
    def per_cell(self) -> int:
        """A, the same at every level."""
        return len(self.cells[0])

    def __call__(self, maps_hw: tuple[tuple[int, int], ...], input_hw: tuple[int, int]) -> list[np.ndarray]:
        """Per level (M*N*A, 4) xyxy float32 in the network's units, in the order row, column, cell anchor."""
        return self._grids(maps_hw, input_hw)

    def _make(self, maps_hw: tuple[tuple[int, int], ...], input_hw: tuple[int, int]) -> list[np.ndarray]:
        grids = []
        for (rows, columns), stride, cells in zip(maps_hw, self.strides, self.cells, strict=True):
            steps = (stride, stride)
            if self.conventions.stride_from_shape:
                steps = (input_hw[0] // rows, input_hw[1] // columns)
            y, x = (
                (np.arange(n, dtype=np.float32) + np.float32(self.conventions.anchor_offset)) * np.float32(step)
                for n, step in zip((rows, columns), steps, strict=True)
            )
            cy, cx = np.meshgrid(y, x, indexing="ij")
            centers = np.stack([cx, cy, cx, cy], -1).reshape(-1, 1, 4)  # (M, N, 4) -> (M*N, 1, 4)
            grids.append(to_units((centers + cells).reshape(-1, 4), input_hw, self.conventions))
        return grids
