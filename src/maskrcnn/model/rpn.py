"""Region proposal network (Ren et al. 2015): at every cell, is there an object in each anchor, and where exactly?

    B images, C channels, A cell anchors, M x N cells of a level, K = all anchors of all levels
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class RPNOutput:
    """Per level: objectness_logits (B, M*N*A), anchor_deltas (B, M*N*A, 4) and the map's `cells` (M, N)."""

    objectness_logits: list[Tensor]
    anchor_deltas: list[Tensor]
    cells: list[tuple[int, int]]

    def class_probabilities(self, level: int) -> Tensor:
        """(B, M, N, 2A) background and foreground of each anchor: the two-way softmax that the one logit stands for."""
        logits = self.objectness_logits[level]
        return torch.stack([-logits, logits], -1).sigmoid().reshape(logits.shape[0], *self.cells[level], -1)

    def box_deltas(self, level: int) -> Tensor:
        """(B, M, N, 4A)."""
        deltas = self.anchor_deltas[level]
        return deltas.reshape(deltas.shape[0], *self.cells[level], -1)


class RPN(nn.Module):
    """A 3x3 convolution and two 1x1 ones, shared by all levels."""

    def __init__(self, channels: int, anchors_per_cell: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, anchors_per_cell, 1)
        self.deltas = nn.Conv2d(channels, 4 * anchors_per_cell, 1)
        for module in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)

    def forward(self, features: list[Tensor]) -> RPNOutput:
        """Maps (B, C, M, N) -> logits and deltas in the anchors' order."""
        logits, deltas, cells = [], [], []
        for feature in features:
            hidden = F.relu(self.conv(feature))
            # (B, A, M, N) -> (B, M*N*A)
            logits.append(self.objectness(hidden).permute(0, 2, 3, 1).flatten(1))
            # (B, A*4, M, N) -> (B, M*N*A, 4)
            deltas.append(self.deltas(hidden).permute(0, 2, 3, 1).reshape(hidden.shape[0], -1, 4))
            cells.append((feature.shape[-2], feature.shape[-1]))
        return RPNOutput(logits, deltas, cells)
