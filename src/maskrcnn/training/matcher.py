"""Match each of N boxes with one of G instances, or with none."""

from __future__ import annotations

import torch
from torch import Tensor

POSITIVE, NEGATIVE, NEITHER = 1, 0, -1


def match(overlap: Tensor, *, positive: float, negative: float, best_counts: bool) -> tuple[Tensor, Tensor]:
    """Return the instance index (N,) and the label (N,) of each box, from the IoUs `overlap` (G, N).

    A box is positive if its highest IoU is at least `positive`, negative if it is below `negative`, and neither in
    between. With `best_counts`, the boxes with the highest IoU of an instance are positive too, at any IoU above 0
    (Ren et al. 2015, section 3.1.2). The index of a box that is not positive is valid but meaningless.
    """
    n = overlap.shape[1]
    if overlap.shape[0] == 0:
        return overlap.new_zeros(n, dtype=torch.int64), overlap.new_full((n,), NEGATIVE, dtype=torch.int64)
    box_best, index = overlap.max(0)
    label = torch.where(box_best >= positive, POSITIVE, torch.where(box_best < negative, NEGATIVE, NEITHER))
    if best_counts:
        instance_best = overlap.amax(1, keepdim=True)  # (G, 1)
        is_best = ((overlap == instance_best) & (instance_best > 0)).any(0)
        label = torch.where(is_best, POSITIVE, label)
    return index, label
