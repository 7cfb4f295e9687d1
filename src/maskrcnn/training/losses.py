"""The five losses (He et al. 2017; Ren et al. 2015), each a scalar tensor, zero where there is nothing to learn from.

R sampled regions, P positive ones, K classes, M mask cells
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

KNEE = 1 / 9
"""Where smooth L1 turns from square to linear: 1/9 in Detectron's and torchvision's recipes."""


def class_logit_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """rpn_class_loss: binary cross-entropy of sampled anchors (N,), positive 1 or negative 0, on average."""
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / max(len(labels), 1)


def box_loss(deltas: Tensor, targets: Tensor, sampled: int) -> Tensor:
    """rpn_bbox_loss and mrcnn_bbox_loss: smooth L1 of the positives' deltas (P, 4), over all that were sampled."""
    return F.smooth_l1_loss(deltas, targets, beta=KNEE, reduction="sum") / max(sampled, 1)


def class_loss(class_logits: Tensor, labels: Tensor) -> Tensor:
    """mrcnn_class_loss: cross-entropy of class_logits (R, K + 1), background 0, on average."""
    return F.cross_entropy(class_logits, labels, reduction="sum") / max(len(labels), 1)


def mask_loss(mask_logits: Tensor, targets: Tensor) -> Tensor:
    """mrcnn_mask_loss: binary cross-entropy of the true class's logits (P, M, M) with coverage, on average."""
    return F.binary_cross_entropy_with_logits(mask_logits, targets, reduction="sum") / max(targets.numel(), 1)
