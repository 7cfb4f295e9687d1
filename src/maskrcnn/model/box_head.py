"""Box head: pooled features -> which class, and the box refined for each class.

R regions, C channels, S pooled cells along a side, K classes without the background
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class BoxHead(nn.Module):
    """Two fully connected layers, then class logits (background first) and per-class box deltas."""

    def __init__(self, *, channels: int, pool_size: int, hidden: int, n_classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels * pool_size**2, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.class_logits = nn.Linear(hidden, n_classes + 1)
        self.box_deltas = nn.Linear(hidden, 4 * (n_classes + 1))
        nn.init.normal_(self.class_logits.weight, std=0.01)
        nn.init.normal_(self.box_deltas.weight, std=0.001)
        for module in (self.class_logits, self.box_deltas):
            nn.init.zeros_(module.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, S, S) -> class_logits (R, K + 1), box_deltas (R, K + 1, 4)."""
        hidden = F.relu(self.fc1(pooled.flatten(1)))  # (R, C*S*S)
        hidden = F.relu(self.fc2(hidden))
        return self.class_logits(hidden), self.box_deltas(hidden).unflatten(1, (-1, 4))
