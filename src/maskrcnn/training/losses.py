"""The five losses (He et al. 2017; Ren et al. 2015), each a scalar tensor, and zero without samples.

Each is the mean over images of the mean over an image's samples; `image_weights` computes each sample's weight. An
image therefore counts the same in any batch, and a step may be split over batches, processes and machines.

S sampled anchors or regions, P positive ones, K classes, M mask cells per side
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SMOOTH_L1_BETA = 1 / 9
"""Where smooth L1 changes from quadratic to linear: 1/9 as in Detectron and torchvision."""


def image_weights(image_index: Tensor, n_images: int) -> Tensor:
    """Return the weight (S,) of each sample, of image `image_index` (S,), in a mean over `n_images` of image means.

    Indices are below `n_images`, the number of images of the whole step.
    """
    # torch.bincount would wait for a GPU to learn the length of its result.
    in_image = image_index == torch.arange(n_images, device=image_index.device)[:, None]  # (n_images, S)
    return 1.0 / (in_image.sum(1)[image_index] * n_images)


def class_logit_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """rpn_class_loss: binary cross-entropy of sampled anchors (S,), labelled 1 (positive) or 0 (negative)."""
    return F.binary_cross_entropy_with_logits(logits, labels, weights, reduction="sum")


def box_loss(deltas: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """rpn_bbox_loss and mrcnn_bbox_loss: smooth L1 of the positives' deltas (P, 4), as a mean over all samples."""
    return (F.smooth_l1_loss(deltas, targets, beta=SMOOTH_L1_BETA, reduction="none").sum(1) * weights).sum()


def class_loss(class_logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """mrcnn_class_loss: cross-entropy of class_logits (S, K + 1), where class 0 is background."""
    return (F.cross_entropy(class_logits, labels, reduction="none") * weights).sum()


def mask_loss(mask_logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """mrcnn_mask_loss: binary cross-entropy of the true class's logits with the coverage of cells, both (P, M, M)."""
    return (F.binary_cross_entropy_with_logits(mask_logits, targets, reduction="none").mean((1, 2)) * weights).sum()
