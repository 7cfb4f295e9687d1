"""Mask head: pooled features -> one small mask, of the class that is asked for.

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

    def forward(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """(R, C, S, S) with labels (R,) -> mask logits (R, M, M) of that class; the others are never computed."""
        return self.finish(self.convolved(pooled), labels, *self.product())

    def convolved(self, pooled: Tensor) -> Tensor:
        """(R, C, S, S) -> (R, S, S, C), behind the 3x3 convolutions."""
        for conv in self.convs:
            pooled = F.relu(conv(pooled))
        return pooled.permute(0, 2, 3, 1)

    def product(self) -> tuple[Tensor, Tensor]:
        """The deconvolution as a product of matrices: weight (2*2*C', C), bias (2*2*C',)."""
        weight = self.deconv.weight.permute(2, 3, 1, 0).flatten(0, 2)  # from (C, C', 2, 2)
        return weight, self.deconv.get_parameter("bias").repeat(4)

    def finish(self, cells: Tensor, labels: Tensor, product_weight: Tensor, product_bias: Tensor) -> Tensor:
        """What `convolved` gave, (R, S, S, C), with labels (R,) and `product` -> mask logits (R, M, M).

        The four cells that the deconvolution makes of each stay side by side until they are one number each.
        """
        R, S = cells.shape[:2]
        hidden = F.relu(F.linear(cells.flatten(1, 2), product_weight, product_bias))
        weight = self.logits.weight.flatten(1).index_select(0, labels)[..., None]  # (K + 1, C', 1, 1) -> (R, C', 1)
        bias = self.logits.get_parameter("bias").index_select(0, labels)
        logits = hidden.reshape(R, 4 * S * S, self.deconv.out_channels) @ weight + bias[:, None, None]
        # (R, S*S*2*2, 1) -> (R, 2*S, 2*S)
        return logits.reshape(R, S, S, 2, 2).transpose(2, 3).reshape(R, 2 * S, 2 * S)
