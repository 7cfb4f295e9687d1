"""Region proposal network (Ren et al. 2015): features -> an objectness logit and a box delta for every anchor.

B images, C channels, A cell anchors, M x N cells of a level, S sampled anchors
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn.detection.arrays import beside
from maskrcnn.detection.tensors import rows_by_group
from maskrcnn.model.layers import convolution, convolutions


@dataclass(frozen=True)
class RPNOutput:
    """Per level: objectness_logits (B, M*N*A), anchor_deltas (B, M*N*A, 4) and `cells`, the map size (M, N)."""

    objectness_logits: list[Tensor]
    anchor_deltas: list[Tensor]
    cells: list[tuple[int, int]]

    def float(self) -> RPNOutput:
        """Convert logits and deltas to float32."""
        logits, deltas = ([t.float() for t in level] for level in (self.objectness_logits, self.anchor_deltas))
        return RPNOutput(logits, deltas, self.cells)

    def class_probabilities(self, level: int) -> Tensor:
        """Return background and foreground probabilities (B, M, N, 2A): a sigmoid is a softmax over two classes."""
        logits = self.objectness_logits[level]
        return torch.stack([-logits, logits], -1).sigmoid().reshape(logits.shape[0], *self.cells[level], -1)

    def box_deltas(self, level: int) -> Tensor:
        """Return the deltas of a level as (B, M, N, 4A)."""
        deltas = self.anchor_deltas[level]
        return deltas.reshape(deltas.shape[0], *self.cells[level], -1)


class RPN(nn.Module):
    """3x3 convolutions (one in the paper) and two sibling 1x1 convolutions, shared by all levels."""

    def __init__(self, channels: int, anchors_per_cell: int, *, n_convs: int = 1, hidden: int | None = None) -> None:
        super().__init__()
        widths = [channels, *[hidden or channels] * n_convs]
        self.convs = nn.ModuleList(convolution(a, b, 3, norm=False) for a, b in pairwise(widths))
        self.objectness = nn.Conv2d(widths[-1], anchors_per_cell, 1)
        self.deltas = nn.Conv2d(widths[-1], 4 * anchors_per_cell, 1)
        for module in convolutions(self):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.get_parameter("bias"))

    def forward(self, features: list[Tensor]) -> RPNOutput:
        """Maps (B, C, M, N) -> logits and deltas in the order of the anchors."""
        logits, deltas, cells = [], [], []
        for feature in features:
            hidden = feature
            for conv in self.convs:
                hidden = F.relu(conv(hidden))
            # (B, A, M, N) -> (B, M*N*A) and (B, A*4, M, N) -> (B, M*N*A, 4)
            logits.append(self.objectness(hidden).permute(0, 2, 3, 1).flatten(1))
            deltas.append(self.deltas(hidden).permute(0, 2, 3, 1).reshape(hidden.shape[0], -1, 4))
            cells.append((feature.shape[-2], feature.shape[-1]))
        return RPNOutput(logits, deltas, cells)

    def at(self, features: list[Tensor], image_index: Tensor, anchor_index: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (S,) and deltas (S, 4) of anchors (S,) of images (S,), with the values and gradients of `forward`.

        Anchors are numbered over all levels in the order of `forward`. Training samples a few hundred of some 60,000,
        so the backward pass through these cells costs next to nothing.
        """
        per_cell = self.objectness.out_channels
        ends = np.array(list(accumulate(f.shape[-2] * f.shape[-1] * per_cell for f in features)))
        level = torch.bucketize(anchor_index, beside(ends, anchor_index), right=True)
        level_samples = rows_by_group(level, len(features))
        logits, deltas = [], []
        for feature, samples, first in zip(features, level_samples, [0, *ends.tolist()], strict=False):
            columns = feature.shape[-1]
            level_index = anchor_index[samples] - first
            cell, cell_anchor = level_index // per_cell, level_index % per_cell
            y, x = cell // columns, cell % columns
            hidden = self._hidden_at(feature, image_index[samples], y, x, depth=len(self.convs))
            row = torch.arange(len(samples), device=feature.device)
            logits.append(F.linear(hidden, self.objectness.weight.flatten(1), self.objectness.bias)[row, cell_anchor])
            cell_deltas = F.linear(hidden, self.deltas.weight.flatten(1), self.deltas.bias)  # (S, A*4)
            deltas.append(cell_deltas.unflatten(1, (per_cell, 4))[row, cell_anchor])
        inverse = torch.cat(level_samples).argsort()
        return torch.cat(logits)[inverse], torch.cat(deltas)[inverse]

    def _hidden_at(self, feature: Tensor, image_index: Tensor, y: Tensor, x: Tensor, depth: int) -> Tensor:
        """Map after `depth` convolutions at S cells (y, x), (S, C). Each needs 3x3 patches of the map before it."""
        rows, columns = feature.shape[-2:]
        if depth == 0:
            flat_index = (image_index * rows + y) * columns + x
            # (B, C, M, N) -> (B*M*N, C). index_select adds gradients in a fixed order; indexing does not.
            return feature.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, flat_index)
        offset = torch.arange(-1, 2, device=feature.device)
        py, px = torch.broadcast_tensors(y[:, None, None] + offset[:, None], x[:, None, None] + offset)  # (S, 3, 3)
        inside = (py >= 0) & (py < rows) & (px >= 0) & (px < columns)
        y, x = py.clamp(0, rows - 1).flatten(), px.clamp(0, columns - 1).flatten()
        cells = self._hidden_at(feature, image_index.repeat_interleave(9), y, x, depth - 1)
        patches = (cells.unflatten(0, (-1, 3, 3)) * inside[..., None]).flatten(1)  # (S, 3*3*C), zero-padded
        conv = self.convs[depth - 1]
        weight = conv.get_parameter("weight").permute(0, 2, 3, 1).flatten(1)  # (C', C, 3, 3) -> (C', 3*3*C)
        return F.relu(F.linear(patches, weight, conv.get_parameter("bias")))
