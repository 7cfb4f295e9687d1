"""Network and batch -> the five named losses: maps -> sampled anchors -> proposals -> sampled regions -> heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from maskrcnn.config import TrainConfig
from maskrcnn.detection.arrays import on_host
from maskrcnn.detection.boxes import to_pixels, to_units
from maskrcnn.detection.propose import propose
from maskrcnn.detection.stages import Observe, ignore
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.training import losses
from maskrcnn.training.targets import Truth, mask_targets, sample_anchors, sample_regions

LOSSES = ("rpn_class_loss", "rpn_bbox_loss", "mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss")


class Criterion(nn.Module):
    """The network with its losses. It runs in `autocast_to` where safe; boxes, targets and losses stay float32."""

    def __init__(self, model: MaskRCNN, config: TrainConfig, autocast_to: torch.dtype | None = None) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.autocast_to = autocast_to
        self.weights = {name: float(getattr(config, name.replace("_loss", "_weight"))) for name in LOSSES}

    def forward(
        self,
        images: Tensor,
        windows: Tensor,
        truth: Truth,
        generators: Sequence[torch.Generator],
        n_images: int,
        observe: Observe = ignore,
    ) -> dict[str, Tensor]:
        """Normalised images (B, 3, H, W) with windows (B, 4) -> the five losses and "loss", their weighted sum.

        Each image samples with its own generator. `n_images` is that of the whole step: losses of its batches add up.
        `observe` is handed "anchors" (K, 4) and "true_boxes" (B, G, 4) in the network's units, "anchor_sample",
        "proposals" and "region_sample".
        """
        model, config, conventions = self.model, self.config, self.model.conventions
        # A context for each part: autocast caches cast weights, and those cast without gradients must not be reused.
        with self._autocast(images):
            features = model.extract(images)
        with torch.no_grad(), self._autocast(images):
            rpn = model.rpn(features)
        trunk = model.trunk([], rpn.float(), (images.shape[-2], images.shape[-1]))
        anchors = model.anchors(trunk.maps_hw, trunk.input_hw, images.device)
        boxes, crowd_boxes = (to_units(b, trunk.input_hw, conventions) for b in (truth.boxes, truth.crowd_boxes))
        truth = replace(truth, boxes=boxes, crowd_boxes=crowd_boxes)
        anchor_sample = sample_anchors(anchors, truth, config, conventions, generators)
        observe("anchors", anchors)
        observe("true_boxes", truth.boxes)
        observe("anchor_sample", anchor_sample)
        with self._autocast(images):
            objectness, anchor_deltas = model.rpn.at(features, anchor_sample.image_index, anchor_sample.anchor_index)

        proposals = propose(trunk, on_host(windows.float()), model.anchors, model.config, conventions)
        regions = sample_regions(proposals, truth, config, conventions, generators)
        observe("proposals", proposals)
        observe("region_sample", regions)
        positive, masked = regions.positive, regions.masked
        labels = regions.labels[positive]
        mask_boxes, mask_images = regions.boxes[masked], regions.image_index[masked]
        boxes_px = to_pixels(mask_boxes, trunk.input_hw, conventions)
        # Before the heads, because it waits for all work that a GPU has queued.
        coverage = mask_targets(boxes_px, mask_images, regions.instance[masked], truth, model.config.mask_size)
        with self._autocast(images):
            class_logits, box_deltas = model.classify(features, regions.boxes, regions.image_index)
            mask_logits = model.segment(features, mask_boxes, mask_images, regions.labels[masked])

        hit = anchor_sample.positive
        anchor_weights = losses.image_weights(anchor_sample.image_index, n_images)
        region_weights = losses.image_weights(regions.image_index, n_images)
        mask_weights = losses.image_weights(mask_images, n_images)
        anchor_deltas, box_deltas = anchor_deltas[hit].float(), box_deltas[positive, labels].float()
        result = {
            "rpn_class_loss": losses.class_logit_loss(objectness.float(), anchor_sample.labels, anchor_weights),
            "rpn_bbox_loss": losses.box_loss(anchor_deltas, anchor_sample.deltas[hit], anchor_weights[hit]),
            "mrcnn_class_loss": losses.class_loss(class_logits.float(), regions.labels, region_weights),
            "mrcnn_bbox_loss": losses.box_loss(box_deltas, regions.deltas[positive], region_weights[positive]),
            "mrcnn_mask_loss": losses.mask_loss(mask_logits.float(), coverage, mask_weights),
        }
        result["loss"] = torch.stack([self.weights[name] * result[name] for name in LOSSES]).sum()
        return result

    def _autocast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, self.autocast_to, enabled=self.autocast_to is not None)
