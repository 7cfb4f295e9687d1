"""Mask head: pooled features -> one small mask, of the class that is asked for.

R regions, C channels, S pooled cells along a side, M = 2 S mask cells, K classes without the background
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn.model.layers import convolution, convolutions


class MaskHead(nn.Module):
    """3x3 convolutions, a 2x2 deconvolution that doubles the side, a 1x1 convolution to the classes."""

    def __init__(
        self, *, channels: int, n_convs: int, hidden: int, deconv: int | None, norm: bool, n_classes: int
    ) -> None:
        super().__init__()
        widths = [channels, *[hidden] * n_convs]
        self.convs = nn.ModuleList(convolution(a, b, 3, norm=norm) for a, b in pairwise(widths))
        self.deconv = nn.ConvTranspose2d(hidden, deconv or hidden, 2, stride=2)
        self.logits = nn.Conv2d(deconv or hidden, n_classes + 1, 1)
        for module in (*convolutions(self.convs), self.deconv):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.logits.weight, std=0.001)
        nn.init.zeros_(self.logits.get_parameter("bias"))

    def forward(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """(R, C, S, S) with labels (R,) -> mask logits (R, M, M) of that class; the others are never computed."""
        for conv in self.convs:
            pooled = F.relu(conv(pooled))
        hidden = F.relu(self.deconv(pooled))
        # (K + 1, C, 1, 1) -> (R, 1, C)
        weight = self.logits.weight.flatten(1).index_select(0, labels)[:, None]
        bias = self.logits.get_parameter("bias").index_select(0, labels)
        return (torch.bmm(weight, hidden.flatten(2)) + bias[:, None, None]).reshape(-1, *hidden.shape[2:])
