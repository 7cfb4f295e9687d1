"""Mask head: pooled features -> one small mask for each class.

R regions, C channels, S pooled cells along a side, M = 2 S mask cells, K classes without the background
"""

from __future__ import annotations

from itertools import pairwise

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

    def forward(self, pooled: Tensor) -> Tensor:
        """(R, C, S, S) -> mask_logits (R, K + 1, M, M); channel 0, the background's, is never used."""
        for conv in self.convs:
            pooled = F.relu(conv(pooled))
        return self.logits(F.relu(self.deconv(pooled)))
