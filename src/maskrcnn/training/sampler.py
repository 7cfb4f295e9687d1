"""A random, balanced few of the many labelled boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn.training.matcher import NEGATIVE, POSITIVE


def sample_labels(
    labels: Tensor, count: int, positive_fraction: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Indices (P,) of positives and (Q,) of negatives among labels (N,): at most `count` together.

    Positives take at most `positive_fraction` of them; negatives fill up what is left. Both are in random order.
    """
    positives = _choose((labels == POSITIVE).nonzero()[:, 0], int(count * positive_fraction), generator)
    negatives = _choose((labels == NEGATIVE).nonzero()[:, 0], count - len(positives), generator)
    return positives, negatives


def _choose(candidates: Tensor, most: int, generator: torch.Generator) -> Tensor:
    return candidates[torch.randperm(len(candidates), generator=generator, device=candidates.device)[:most]]
