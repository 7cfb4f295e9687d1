"""The five losses (He et al. 2017; Ren et al. 2015), each a scalar tensor, zero where there is nothing to learn from.

Each is the mean over the images of the mean within an image, as `weights` say (`image_weights`). So an image counts the
same whichever others it shares a batch with, and a batch may be cut up: over steps, processes and machines.

S sampled anchors or regions, P positive ones, K classes, M mask cells
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

KNEE = 1 / 9
"""Where smooth L1 turns from square to linear: 1/9 in Detectron's and torchvision's recipes."""


def image_weights(image_index: Tensor, n_images: int) -> Tensor:
    """(S,) weights, for samples of images `image_index` (S,), of the mean over `n_images` of the mean in each."""
    counts = torch.bincount(image_index)
    return 1.0 / (counts[image_index] * n_images)


def class_logit_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """rpn_class_loss: binary cross-entropy of sampled anchors (S,), positive 1 or negative 0."""
    return F.binary_cross_entropy_with_logits(logits, labels, weights, reduction="sum")


def box_loss(deltas: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """rpn_bbox_loss and mrcnn_bbox_loss: smooth L1 of the positives' deltas (P, 4), over all that were sampled."""
    return (F.smooth_l1_loss(deltas, targets, beta=KNEE, reduction="none").sum(1) * weights).sum()


def class_loss(class_logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """mrcnn_class_loss: cross-entropy of class_logits (S, K + 1), background 0."""
    return (F.cross_entropy(class_logits, labels, reduction="none") * weights).sum()


def mask_loss(mask_logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """mrcnn_mask_loss: binary cross-entropy of the true class's logits (P, M, M) with coverage."""
    return (F.binary_cross_entropy_with_logits(mask_logits, targets, reduction="none").mean((1, 2)) * weights).sum()
