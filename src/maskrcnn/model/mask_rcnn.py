"""The whole network: `MaskRCNN.forward` reads like the paper's figure, `build_model` like its parts list.

B images, H x W input pixels, R proposals of an image, N boxes of all images, K classes, M mask cells
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maskrcnn.config import LEVELS, ModelConfig
from maskrcnn.model.anchors import Anchors
from maskrcnn.model.backbone import Backbone
from maskrcnn.model.box_head import BoxHead
from maskrcnn.model.conventions import NATIVE, Conventions
from maskrcnn.model.fpn import FPN, SingleMap
from maskrcnn.model.mask_head import MaskHead
from maskrcnn.model.proposals import select_proposals
from maskrcnn.model.roi_align import pool
from maskrcnn.model.rpn import RPN, RPNOutput
from maskrcnn.structures import Proposals

BOX_POOL = 7
FPN_STRIDES = (4, 8, 16, 32)
SINGLE_STRIDE = 16
POOLED_LEVELS = 4
"""RoIAlign takes P2 to P5; P6 serves the region proposal network alone."""

DEFAULT_ANCHOR_SIZES = (16.0, 32.0, 64.0, 128.0, 256.0)
"""For an input of 512 pixels: half of the paper's, which are for 800 to 1333."""


@dataclass(frozen=True)
class Stages:
    """What each step made of a batch, up to the box head."""

    features: list[Tensor]
    anchors: list[Tensor]
    rpn: RPNOutput
    proposals: Proposals
    class_logits: Tensor
    """(B, R, K + 1)"""
    box_deltas: Tensor
    """(B, R, K + 1, 4)"""


class MaskRCNN(nn.Module):
    """Mask R-CNN (He et al. 2017) of given parts; boxes are in input pixels throughout."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        pyramid: FPN | SingleMap,
        anchors: Anchors,
        rpn: RPN,
        box_head: BoxHead,
        mask_head: MaskHead,
        config: ModelConfig,
        conventions: Conventions,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pyramid = pyramid
        self.anchors = anchors
        self.rpn = rpn
        self.box_head = box_head
        self.mask_head = mask_head
        self.config = config
        self.conventions = conventions
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean or backbone.pixel_mean), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std or backbone.pixel_std), persistent=False)

    def forward(self, images: Tensor, image_hw: Tensor) -> Stages:
        """Normalised images (B, 3, H, W), of which image_hw (B, 2) is picture and the rest padding."""
        features = self.extract(images)
        anchors = self.anchors(features, (images.shape[-2], images.shape[-1]))
        rpn = self.rpn(features)
        proposals = self.propose(rpn, anchors, image_hw)
        class_logits, box_deltas = self.classify(features, *flat_boxes(proposals.boxes))
        B, R = proposals.valid.shape
        return Stages(
            features,
            anchors,
            rpn,
            proposals,
            class_logits.unflatten(0, (B, R)),
            box_deltas.unflatten(0, (B, R)),
        )

    def normalize(self, pixels: Tensor, image_hw: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, 3, H, W) float32, channels last in memory; padding becomes zero."""
        images = (pixels.float() - self.pixel_mean) / self.pixel_std
        rows = torch.arange(pixels.shape[1], device=pixels.device)
        columns = torch.arange(pixels.shape[2], device=pixels.device)
        inside = (rows < image_hw[:, :1])[:, :, None] & (columns < image_hw[:, 1:])[:, None, :]
        return (images * inside[..., None]).permute(0, 3, 1, 2)

    def extract(self, images: Tensor) -> list[Tensor]:
        """The pyramid, P2 to P6, or the single map."""
        return self.pyramid(self.backbone(images))

    def propose(self, rpn: RPNOutput, anchors: list[Tensor], image_hw: Tensor) -> Proposals:
        """Boxes that may hold an object."""
        return select_proposals(
            rpn,
            anchors,
            image_hw,
            per_level=self.config.proposals_per_level,
            total=self.config.proposals,
            nms_threshold=self.config.proposal_nms_threshold,
            conventions=self.conventions,
        )

    def classify(self, features: list[Tensor], boxes: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (N, 4) of images (N,) -> class_logits (N, K + 1), box_deltas (N, K + 1, 4)."""
        return self.box_head(self._pool(features, boxes, image_index, BOX_POOL))

    def segment(self, features: list[Tensor], boxes: Tensor, image_index: Tensor, labels: Tensor) -> Tensor:
        """Boxes (N, 4) with labels (N,) -> the mask logits of that class, (N, M, M)."""
        size = self.config.mask_size
        if len(boxes) == 0:
            return boxes.new_zeros(0, size, size)
        logits = self.mask_head(self._pool(features, boxes, image_index, size // 2))
        return logits[torch.arange(len(labels), device=labels.device), labels]

    def _pool(self, features: list[Tensor], boxes: Tensor, image_index: Tensor, size: int) -> Tensor:
        return pool(
            features[:POOLED_LEVELS],
            boxes,
            image_index,
            size=size,
            strides=self.anchors.strides[:POOLED_LEVELS],
            samples=self.conventions.roi_samples,
            aligned=self.conventions.roi_aligned,
        )


def flat_boxes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(B, R, 4) -> (B*R, 4) and the image of each, (B*R,)."""
    B, R = boxes.shape[:2]
    return boxes.reshape(-1, 4), torch.arange(B, device=boxes.device).repeat_interleave(R)


def build_model(
    config: ModelConfig, n_classes: int, conventions: Conventions = NATIVE, *, freeze_norm: bool = True
) -> MaskRCNN:
    """A network of `config` for `n_classes` classes, background not counted, with random weights."""
    pyramid = config.pyramid == "fpn"
    backbone = Backbone(config.backbone, strides=FPN_STRIDES if pyramid else (SINGLE_STRIDE,), freeze_norm=freeze_norm)
    base = config.anchor_sizes or DEFAULT_ANCHOR_SIZES
    per_level = [(size,) for size in base] if pyramid else [base]
    anchors = Anchors(
        sizes=tuple(tuple(s * f for s in sizes for f in config.anchor_scales) for sizes in per_level),
        ratios=config.anchor_ratios,
        strides=tuple(FPN_STRIDES[0] * 2**level for level in range(LEVELS)) if pyramid else (SINGLE_STRIDE,),
        conventions=conventions,
    )
    return MaskRCNN(
        backbone=backbone,
        pyramid=(FPN if pyramid else SingleMap)(backbone.channels, config.channels),
        anchors=anchors,
        rpn=RPN(config.channels, anchors.per_cell),
        box_head=BoxHead(channels=config.channels, pool_size=BOX_POOL, hidden=config.box_channels, n_classes=n_classes),
        mask_head=MaskHead(channels=config.channels, hidden=config.mask_channels, n_classes=n_classes),
        config=config,
        conventions=conventions,
    )
