"""Network and batch -> the five named losses: pyramid -> sampled anchors -> proposals -> sampled regions -> heads."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from maskrcnn.config import TrainConfig
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.training import losses
from maskrcnn.training.targets import Truth, first_of_each_image, mask_targets, sample_anchors, sample_regions

LOSSES = ("rpn_class_loss", "rpn_bbox_loss", "mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss")


class Criterion(nn.Module):
    """The network with its losses. What `forward` returns can be back-propagated and nothing else."""

    def __init__(self, model: MaskRCNN, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.weights = {name: float(getattr(config, name.replace("_loss", "_weight"))) for name in LOSSES}

    def forward(self, images: Tensor, windows: Tensor, truth: Truth, generator: torch.Generator) -> dict[str, Tensor]:
        """Normalised images (B, 3, H, W) -> the five losses and "loss", their weighted sum."""
        model, config = self.model, self.config
        features = model.extract(images)
        input_hw = (images.shape[-2], images.shape[-1])
        anchors = model.grid(features, input_hw)
        truth = replace(truth, boxes=model.to_units(truth.boxes, input_hw))
        with torch.no_grad():
            rpn = model.rpn(features)
        anchor_sample = sample_anchors(anchors, truth, config, model.conventions, generator)
        objectness, anchor_deltas = model.rpn.at(features, anchor_sample.image_index, anchor_sample.anchor_index)

        proposals = model.propose(rpn, anchors, windows, input_hw)
        regions = sample_regions(proposals, truth, config, model.conventions, generator)
        positive = regions.labels.nonzero()[:, 0]
        labels = regions.labels[positive]
        class_logits, box_deltas = model.classify(features, regions.boxes, regions.image_index)
        masked = first_of_each_image(positive, regions.image_index, config.mask_batch)
        mask_logits = model.segment(
            features, regions.boxes[masked], regions.image_index[masked], regions.labels[masked]
        )
        covered = mask_targets(
            model.to_pixels(regions.boxes[masked], input_hw),
            regions.image_index[masked],
            regions.instance[masked],
            truth,
            model.config.mask_size,
        )

        hit = anchor_sample.labels > 0
        n_anchors, n_regions = len(anchor_sample.labels), len(regions.labels)
        result = {
            "rpn_class_loss": losses.class_logit_loss(objectness, anchor_sample.labels),
            "rpn_bbox_loss": losses.box_loss(anchor_deltas[hit], anchor_sample.deltas[hit], n_anchors),
            "mrcnn_class_loss": losses.class_loss(class_logits, regions.labels),
            "mrcnn_bbox_loss": losses.box_loss(box_deltas[positive, labels], regions.deltas[positive], n_regions),
            "mrcnn_mask_loss": losses.mask_loss(mask_logits, covered),
        }
        result["loss"] = torch.stack([self.weights[name] * result[name] for name in LOSSES]).sum()
        return result
