"""Which instance, if any, does each box stand for?

N boxes, G instances
"""

from __future__ import annotations

import torch
from torch import Tensor

POSITIVE, NEGATIVE, NEITHER = 1, 0, -1


def match(overlap: Tensor, *, positive: float, negative: float, best_counts: bool) -> tuple[Tensor, Tensor]:
    """Overlaps (G, N) of the instances with the boxes -> instance index (N,) and label (N,).

    A box is positive from the overlap `positive` on with its best instance, negative below `negative`, neither in
    between. With `best_counts` the boxes that overlap an instance most are positive too, however little (Ren et al.
    2015, section 3.1.2). The index of a box that is not positive means nothing, but can be used to look up.
    """
    n = overlap.shape[1]
    if overlap.shape[0] == 0:
        return overlap.new_zeros(n, dtype=torch.int64), overlap.new_full((n,), NEGATIVE, dtype=torch.int64)
    best, index = overlap.max(0)
    label = torch.where(best >= positive, POSITIVE, torch.where(best < negative, NEGATIVE, NEITHER))
    if best_counts:
        most = overlap.amax(1, keepdim=True)
        closest = ((overlap == most) & (most > 0)).any(0)
        label = torch.where(closest, POSITIVE, label)
    return index, label
