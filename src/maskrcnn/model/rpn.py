"""Region proposal network (Ren et al. 2015): at every cell, is there an object in each anchor, and where exactly?

B images, C channels, A cell anchors, M x N cells of a level, K = all anchors of all levels
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn.model.layers import convolution, convolutions


@dataclass(frozen=True)
class RPNOutput:
    """Per level: objectness_logits (B, M*N*A), anchor_deltas (B, M*N*A, 4) and the map's `cells` (M, N)."""

    objectness_logits: list[Tensor]
    anchor_deltas: list[Tensor]
    cells: list[tuple[int, int]]

    def float(self) -> RPNOutput:
        """The same in float32."""
        logits, deltas = ([t.float() for t in level] for level in (self.objectness_logits, self.anchor_deltas))
        return RPNOutput(logits, deltas, self.cells)

    def class_probabilities(self, level: int) -> Tensor:
        """(B, M, N, 2A) background and foreground of each anchor: the two-way softmax that the one logit stands for."""
        logits = self.objectness_logits[level]
        return torch.stack([-logits, logits], -1).sigmoid().reshape(logits.shape[0], *self.cells[level], -1)

    def box_deltas(self, level: int) -> Tensor:
        """(B, M, N, 4A)."""
        deltas = self.anchor_deltas[level]
        return deltas.reshape(deltas.shape[0], *self.cells[level], -1)


class RPN(nn.Module):
    """3x3 convolutions (one in the paper) and two 1x1 ones, shared by all levels."""

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
        """Maps (B, C, M, N) -> logits and deltas in the anchors' order."""
        logits, deltas, cells = [], [], []
        for feature in features:
            hidden = feature
            for conv in self.convs:
                hidden = F.relu(conv(hidden))
            # (B, A, M, N) -> (B, M*N*A)
            logits.append(self.objectness(hidden).permute(0, 2, 3, 1).flatten(1))
            # (B, A*4, M, N) -> (B, M*N*A, 4)
            deltas.append(self.deltas(hidden).permute(0, 2, 3, 1).reshape(hidden.shape[0], -1, 4))
            cells.append((feature.shape[-2], feature.shape[-1]))
        return RPNOutput(logits, deltas, cells)

    def at(self, features: list[Tensor], image_index: Tensor, anchor_index: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` gives for a few anchors (S,) of images (S,): logits (S,) and deltas (S, 4).

        `anchor_index` counts the anchors of all levels in `forward`'s order. Training asks for a few hundred of some
        60,000, so going back through these cells alone costs next to nothing and yields the same gradients.
        """
        per_cell = self.objectness.out_channels
        logits, deltas, order = [], [], []
        first = 0
        for feature in features:
            rows, columns = feature.shape[-2:]
            count = rows * columns * per_cell
            here = ((anchor_index >= first) & (anchor_index < first + count)).nonzero()[:, 0]
            local = anchor_index[here] - first
            cell, which = local // per_cell, local % per_cell
            hidden = self._hidden_at(feature, image_index[here], cell // columns, cell % columns, depth=len(self.convs))
            n = torch.arange(len(here), device=feature.device)
            logits.append(F.linear(hidden, self.objectness.weight.flatten(1), self.objectness.bias)[n, which])
            every = F.linear(hidden, self.deltas.weight.flatten(1), self.deltas.bias)  # (S, A*4)
            deltas.append(every.unflatten(1, (per_cell, 4))[n, which])
            order.append(here)
            first += count
        back = torch.cat(order).argsort()
        return torch.cat(logits)[back], torch.cat(deltas)[back]

    def _hidden_at(self, feature: Tensor, image_index: Tensor, y: Tensor, x: Tensor, depth: int) -> Tensor:
        """The map (S, C) after `depth` convolutions, at cells (y, x) (S,), from the 3x3 patch before each of them."""
        rows, columns = feature.shape[-2:]
        if depth == 0:
            place = (image_index * rows + y) * columns + x
            # (B, C, M, N) -> (B*M*N, C). index_select goes back in a fixed order; indexing would not.
            return feature.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, place)
        step = torch.arange(-1, 2, device=feature.device)
        py, px = torch.broadcast_tensors(y[:, None, None] + step[:, None], x[:, None, None] + step)  # (S, 3, 3)
        inside = (py >= 0) & (py < rows) & (px >= 0) & (px < columns)
        cells = self._hidden_at(
            feature,
            image_index.repeat_interleave(9),
            py.clamp(0, rows - 1).flatten(),
            px.clamp(0, columns - 1).flatten(),
            depth - 1,
        )
        flat = (cells.unflatten(0, (-1, 3, 3)) * inside[..., None]).flatten(1)  # outside the map is zero; (S, 3*3*C)
        conv = self.convs[depth - 1]
        weight = conv.get_parameter("weight").permute(0, 2, 3, 1).flatten(1)  # (C', C, 3, 3) -> (C', 3*3*C)
        return F.relu(F.linear(flat, weight, conv.get_parameter("bias")))
