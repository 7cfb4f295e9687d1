"""The whole network: `MaskRCNN.forward` reads like the paper's figure, `build_model` like its parts list.

B images, H x W input pixels, R proposals of an image, N boxes of all images, K classes, M mask cells
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maskrcnn.config import ModelConfig
from maskrcnn.model.anchors import FPN_STRIDES, POOLED_LEVELS, SINGLE_STRIDE, Anchors
from maskrcnn.model.backbone import Backbone
from maskrcnn.model.box_head import BoxHead
from maskrcnn.model.boxes import denormalize_boxes, normalize_boxes
from maskrcnn.model.conventions import NATIVE, Conventions
from maskrcnn.model.fpn import FPN, SingleMap
from maskrcnn.model.layers import norms
from maskrcnn.model.mask_head import MaskHead
from maskrcnn.model.proposals import select_proposals
from maskrcnn.model.roi_align import pool
from maskrcnn.model.rpn import RPN, RPNOutput
from maskrcnn.structures import Proposals

BOX_POOL = 7


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
    input_hw: tuple[int, int]


class MaskRCNN(nn.Module):
    """Mask R-CNN (He et al. 2017) of given parts.

    Boxes inside are in input pixels, or in other units where the conventions have their own (`to_units`). With
    `freeze_norm`, batch norm keeps its statistics and scale for good, in training too.
    """

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
        freeze_norm: bool,
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
        for layer in norms(self):
            if conventions.norm_eps is not None:
                layer.eps = conventions.norm_eps
            if freeze_norm:
                layer.requires_grad_(False)
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean or backbone.pixel_mean), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std or backbone.pixel_std), persistent=False)

    def train(self, mode: bool = True) -> MaskRCNN:
        """As usual, except that batch norm whose scale does not learn stays in evaluation mode."""
        super().train(mode)
        for layer in norms(self):
            if not any(parameter.requires_grad for parameter in layer.parameters()):
                layer.eval()
        return self

    def forward(self, images: Tensor, windows: Tensor) -> Stages:
        """Normalised images (B, 3, H, W), of which windows (B, 4) xyxy are picture and the rest is padding."""
        features = self.extract(images)
        input_hw = (images.shape[-2], images.shape[-1])
        anchors = self.grid(features, input_hw)
        rpn = self.rpn(features)
        proposals = self.propose(rpn, anchors, windows, input_hw)
        class_logits, box_deltas = self.classify(features, *flat_boxes(proposals.boxes))
        B, R = proposals.valid.shape
        return Stages(
            features,
            anchors,
            rpn,
            proposals,
            class_logits.unflatten(0, (B, R)),
            box_deltas.unflatten(0, (B, R)),
            input_hw,
        )

    def to_units(self, boxes: Tensor, input_hw: tuple[int, int]) -> Tensor:
        """Boxes (..., 4) in pixels of the input -> in the units of the network."""
        return normalize_boxes(boxes, input_hw) if self.conventions.normalized_boxes else boxes

    def to_pixels(self, boxes: Tensor, input_hw: tuple[int, int]) -> Tensor:
        """The inverse of `to_units`."""
        return denormalize_boxes(boxes, input_hw) if self.conventions.normalized_boxes else boxes

    def normalize(self, pixels: Tensor, windows: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, 3, H, W) float32, channels last in memory; padding becomes zero."""
        images = (pixels.float() - self.pixel_mean) / self.pixel_std
        if not self.conventions.black_padding:
            rows = torch.arange(pixels.shape[1], device=pixels.device)
            columns = torch.arange(pixels.shape[2], device=pixels.device)
            x1, y1, x2, y2 = windows.T[..., None]  # (B, 1) each
            inside = ((rows >= y1) & (rows < y2))[:, :, None] & ((columns >= x1) & (columns < x2))[:, None, :]
            images = images * inside[..., None]
        return images.permute(0, 3, 1, 2)

    def extract(self, images: Tensor) -> list[Tensor]:
        """The pyramid, P2 to P6, or the single map."""
        return self.pyramid(self.backbone(images))

    def grid(self, features: list[Tensor], input_hw: tuple[int, int]) -> list[Tensor]:
        """The anchors of each level, (M*N*A, 4), in the network's units."""
        maps_hw = tuple((f.shape[-2], f.shape[-1]) for f in features)
        return [torch.from_numpy(grid).to(features[0].device) for grid in self.anchors(maps_hw, input_hw)]

    def propose(self, rpn: RPNOutput, anchors: list[Tensor], windows: Tensor, input_hw: tuple[int, int]) -> Proposals:
        """Boxes that may hold an object."""
        if self.conventions.proposal_bounds == "input":
            windows = windows.new_tensor([0, 0, input_hw[1], input_hw[0]]).expand_as(windows)
        return select_proposals(
            rpn,
            anchors,
            self.to_units(windows.float(), input_hw),
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
        return self.mask_head(self._pool(features, boxes, image_index, size // 2), labels)

    def _pool(self, features: list[Tensor], boxes: Tensor, image_index: Tensor, size: int) -> Tensor:
        return pool(
            features[:POOLED_LEVELS],
            boxes,
            image_index,
            size=size,
            strides=self.anchors.strides[:POOLED_LEVELS],
            conventions=self.conventions,
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
    norm = config.norm == "batch"
    backbone = Backbone(config.backbone, strides=FPN_STRIDES if pyramid else (SINGLE_STRIDE,), conventions=conventions)
    anchors = Anchors(config, conventions)
    return MaskRCNN(
        backbone=backbone,
        pyramid=(FPN if pyramid else SingleMap)(backbone.channels, config.channels, norm=norm),
        anchors=anchors,
        rpn=RPN(config.channels, anchors.per_cell, n_convs=config.rpn_convs, hidden=config.rpn_channels),
        box_head=BoxHead(
            channels=config.channels,
            pool_size=BOX_POOL,
            n_convs=config.box_convs,
            hidden=config.box_channels,
            n_layers=config.box_layers,
            norm=norm,
            n_classes=n_classes,
        ),
        mask_head=MaskHead(
            channels=config.channels,
            n_convs=config.mask_convs,
            hidden=config.mask_channels,
            deconv=config.mask_deconv_channels,
            norm=norm,
            n_classes=n_classes,
        ),
        config=config,
        conventions=conventions,
        freeze_norm=freeze_norm,
    )
