"""Mask head: pooled features -> one small mask for each class.

R regions, C channels, S pooled cells along a side, M = 2 S mask cells, K classes without the background
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

N_CONVOLUTIONS = 4


class MaskHead(nn.Module):
    """Four 3x3 convolutions, a 2x2 deconvolution that doubles the side, a 1x1 convolution to the classes."""

    def __init__(self, *, channels: int, hidden: int, n_classes: int) -> None:
        super().__init__()
        widths = [channels, *[hidden] * N_CONVOLUTIONS]
        self.convs = nn.ModuleList(nn.Conv2d(widths[i], widths[i + 1], 3, padding=1) for i in range(N_CONVOLUTIONS))
        self.deconv = nn.ConvTranspose2d(hidden, hidden, 2, stride=2)
        self.logits = nn.Conv2d(hidden, n_classes + 1, 1)
        for module in (*self.convs, self.deconv):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.get_parameter("bias"))
        nn.init.normal_(self.logits.weight, std=0.001)
        nn.init.zeros_(self.logits.get_parameter("bias"))

    def forward(self, pooled: Tensor) -> Tensor:
        """(R, C, S, S) -> mask_logits (R, K + 1, M, M); channel 0, the background's, is never used."""
        for conv in self.convs:
            pooled = F.relu(conv(pooled))
        return self.logits(F.relu(self.deconv(pooled)))
