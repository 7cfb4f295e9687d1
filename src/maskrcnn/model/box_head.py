"""Box head: pooled features -> class logits and box deltas for each class.

R regions, C channels, S pooled cells along a side, F features, K classes without the background
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn.model.layers import convolution


class BoxHead(nn.Module):
    """3x3 convolutions (none in the paper), fully connected layers, two outputs. The background is class 0."""

    def __init__(
        self, *, channels: int, pool_size: int, n_convs: int, hidden: int, n_layers: int, norm: bool, n_classes: int
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convolution(channels, channels, 3, norm=norm) for _ in range(n_convs))
        widths = [channels * pool_size**2, *[hidden] * n_layers]
        self.fcs = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.class_logits = nn.Linear(hidden, n_classes + 1)
        self.box_deltas = nn.Linear(hidden, 4 * (n_classes + 1))
        nn.init.normal_(self.class_logits.weight, std=0.01)
        nn.init.normal_(self.box_deltas.weight, std=0.001)
        for module in (self.class_logits, self.box_deltas):
            nn.init.zeros_(module.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, S, S) -> class_logits (R, K + 1), box_deltas (R, K + 1, 4)."""
        for conv in self.convs:
            pooled = F.relu(conv(pooled))
        return self.predict(pooled.flatten(1))  # (R, C*S*S)

    def predict(self, hidden: Tensor, skip: int = 0) -> tuple[Tensor, Tensor]:
        """Apply the fully connected layers after the first `skip`, and the outputs, to (R, F). Return as `forward`."""
        for fc in self.fcs[skip:]:
            hidden = F.relu(fc(hidden))
        return self.class_logits(hidden), self.box_deltas(hidden).reshape(-1, self.class_logits.out_features, 4)
