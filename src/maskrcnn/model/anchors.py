"""Anchors: boxes of several scales and ratios around every cell of every feature map.

L levels, A cell anchors, M x N cells of a map
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskrcnn.model.boxes import normalize_boxes
from maskrcnn.model.conventions import Conventions


def cell_anchors(sizes: tuple[float, ...], ratios: tuple[float, ...], rounded: bool) -> Tensor:
    """(A, 4) boxes around the origin, ratio-major; each has the area ``size ** 2`` and the height/width ``ratio``."""
    root = torch.tensor(ratios, dtype=torch.float32).sqrt()[:, None]
    size = torch.tensor(sizes, dtype=torch.float32)[None]
    w, h = (size / root).flatten(), (size * root).flatten()
    anchors = torch.stack([-w, -h, w, h], 1) / 2
    return anchors.round() if rounded else anchors


class Anchors(nn.Module):
    """Grid anchors of all levels; `sizes` holds one tuple of sizes a level, `strides` their spacing in pixels."""

    def __init__(
        self,
        *,
        sizes: tuple[tuple[float, ...], ...],
        ratios: tuple[float, ...],
        strides: tuple[int, ...],
        conventions: Conventions,
    ) -> None:
        super().__init__()
        self.strides = strides
        self.offset = conventions.anchor_offset
        self.stride_from_shape = conventions.stride_from_shape
        self.normalized = conventions.normalized_boxes
        for level, level_sizes in enumerate(sizes):
            cells = cell_anchors(level_sizes, ratios, conventions.anchors_rounded)
            self.register_buffer(f"cell_anchors_{level}", cells, persistent=False)

    @property
    def per_cell(self) -> int:
        """A, the same at every level."""
        return int(self.get_buffer("cell_anchors_0").shape[0])

    def forward(self, features: list[Tensor], input_hw: tuple[int, int]) -> list[Tensor]:
        """Per level (M*N*A, 4) xyxy in the network's units, in the order row, column, cell anchor."""
        grids = []
        for level, feature in enumerate(features):
            rows, columns = feature.shape[-2:]
            stride = self.strides[level]
            step_y, step_x = (
                (input_hw[0] // rows, input_hw[1] // columns) if self.stride_from_shape else (stride, stride)
            )
            y = (torch.arange(rows, device=feature.device) + self.offset) * step_y
            x = (torch.arange(columns, device=feature.device) + self.offset) * step_x
            cy, cx = torch.meshgrid(y, x, indexing="ij")
            centers = torch.stack([cx, cy, cx, cy], -1).reshape(-1, 1, 4)  # (M, N, 4) -> (M*N, 1, 4)
            grid = (centers + self.get_buffer(f"cell_anchors_{level}")).reshape(-1, 4)
            grids.append(normalize_boxes(grid, input_hw) if self.normalized else grid)
        return grids
