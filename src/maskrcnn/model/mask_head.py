"""Mask head: pooled features and a class per region -> one small mask per region.

R regions, C and C' channels, S pooled cells along a side, M = 2 S mask cells, K classes without the background
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn.model.layers import convolution, convolutions


class MaskHead(nn.Module):
    """3x3 convolutions, a 2x2 deconvolution that doubles the resolution, and a 1x1 convolution to the classes."""

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
        """(R, C, S, S) and labels (R,) -> mask logits (R, M, M) of the labelled class only."""
        return self.finish(self.convolved(pooled), labels, *self.product())

    def convolved(self, pooled: Tensor) -> Tensor:
        """Apply the 3x3 convolutions: (R, C, S, S) -> (R, S, S, C)."""
        for conv in self.convs:
            pooled = F.relu(conv(pooled))
        return pooled.permute(0, 2, 3, 1)

    def product(self) -> tuple[Tensor, Tensor]:
        """Return the deconvolution as a linear layer: weight (2*2*C', C), bias (2*2*C',)."""
        weight = self.deconv.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (C, C', 2, 2) -> (2*2*C', C)
        return weight, self.deconv.get_parameter("bias").repeat(4)

    def finish(self, cells: Tensor, labels: Tensor, product_weight: Tensor, product_bias: Tensor) -> Tensor:
        """`convolved`'s (R, S, S, C), labels (R,) and `product`'s matrix -> mask logits (R, M, M).

        The deconvolution makes four mask cells of each cell. They move to their places last, as one number each.
        """
        R, S = cells.shape[:2]
        hidden = F.relu(F.linear(cells.flatten(1, 2), product_weight, product_bias))
        weight = self.logits.weight.flatten(1).index_select(0, labels)[..., None]  # (K + 1, C', 1, 1) -> (R, C', 1)
        bias = self.logits.get_parameter("bias").index_select(0, labels)
        logits = hidden.reshape(R, 4 * S * S, self.deconv.out_channels) @ weight + bias[:, None, None]
        # (R, S*S*2*2, 1) -> (R, 2*S, 2*S)
        return logits.reshape(R, S, S, 2, 2).transpose(2, 3).reshape(R, 2 * S, 2 * S)
