"""Sample a random, balanced subset of the labelled boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn.training.matcher import NEGATIVE, POSITIVE


def sample_labels(
    labels: Tensor, count: int, positive_fraction: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Sample up to `count` boxes from `labels` (N,); return indices of positives (P,) and of negatives (Q,).

    Both are in random order. Positives are at most `positive_fraction` of `count`; negatives fill the rest.
    """
    positives = _choose((labels == POSITIVE).nonzero()[:, 0], int(count * positive_fraction), generator)
    negatives = _choose((labels == NEGATIVE).nonzero()[:, 0], count - len(positives), generator)
    return positives, negatives


def _choose(candidates: Tensor, max_count: int, generator: torch.Generator) -> Tensor:
    return candidates[torch.randperm(len(candidates), generator=generator, device=candidates.device)[:max_count]]
