"""The network: backbone -> pyramid -> region proposal network, box head, mask head. `build_model` is its parts list.

What lies between these parts (proposals, RoIAlign, selection) is in `maskrcnn.detection`.

B images, H x W input pixels, N boxes of all images, K classes, M mask cells
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskrcnn.config import ModelConfig
from maskrcnn.detection.anchors import FPN_STRIDES, POOLED_LEVELS, SINGLE_STRIDE, Anchors
from maskrcnn.detection.arrays import on_host
from maskrcnn.detection.conventions import NATIVE, Conventions
from maskrcnn.detection.pool import BOX_POOL, pool
from maskrcnn.detection.stages import Observe, Trunk, ignore
from maskrcnn.model.backbone import Backbone
from maskrcnn.model.box_head import BoxHead
from maskrcnn.model.fpn import FPN, SingleMap
from maskrcnn.model.layers import norms
from maskrcnn.model.mask_head import MaskHead
from maskrcnn.model.rpn import RPN, RPNOutput


class MaskRCNN(nn.Module):
    """Mask R-CNN (He et al. 2017), boxes in the network's units (`boxes.to_units`). `freeze_norm` fixes batch norm."""

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
        """Set the mode of all layers but frozen batch norm, which stays in evaluation mode."""
        super().train(mode)
        for layer in norms(self):
            if not any(parameter.requires_grad for parameter in layer.parameters()):
                layer.eval()
        return self

    def forward(self, images: Tensor, observe: Observe = ignore) -> tuple[list[Tensor], RPNOutput]:
        """Normalised images (B, 3, H, W) -> the pyramid's maps and the RPN's outputs on them."""
        features = self.extract(images, observe)
        return features, self.rpn(features)

    def normalize(self, pixels: Tensor, windows: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, 3, H, W) float32, channels last in memory; zero outside `windows`."""
        images = (pixels.float() - self.pixel_mean) / self.pixel_std
        if not self.conventions.black_padding:
            rows = torch.arange(pixels.shape[1], device=pixels.device)
            columns = torch.arange(pixels.shape[2], device=pixels.device)
            x1, y1, x2, y2 = windows.T[..., None]  # (B, 1) each
            inside = ((rows >= y1) & (rows < y2))[:, :, None] & ((columns >= x1) & (columns < x2))[:, None, :]
            images = images * inside[..., None]
        return images.permute(0, 3, 1, 2)

    def extract(self, images: Tensor, observe: Observe = ignore) -> list[Tensor]:
        """Normalised images (B, 3, H, W) -> P2 to P6, or the single map, (B, C, M, N) each.

        `observe` is handed the backbone's maps, (B, M, N, C) each, as "backbone".
        """
        maps = self.backbone(images)
        observe("backbone", [m.permute(0, 2, 3, 1) for m in maps])
        return self.pyramid(maps)

    def trunk(self, features: list[Tensor], rpn: RPNOutput, input_hw: tuple[int, int]) -> Trunk:
        """`forward`'s output, detached, NumPy on a CPU. Proposals need no `features`: pass none to save the copy."""
        return Trunk(
            maps=[on_host(f.detach().permute(0, 2, 3, 1).contiguous()) for f in features[:POOLED_LEVELS]],
            objectness=on_host(torch.cat(rpn.objectness_logits, 1).detach()),
            deltas=on_host(torch.cat(rpn.anchor_deltas, 1).detach()),
            maps_hw=tuple(rpn.cells),
            input_hw=input_hw,
        )

    def classify(self, features: list[Tensor], boxes: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (N, 4) of images (N,) -> class_logits (N, K + 1), box_deltas (N, K + 1, 4)."""
        return self.box_head(self._pool(features, boxes, image_index, BOX_POOL))

    def segment(self, features: list[Tensor], boxes: Tensor, image_index: Tensor, labels: Tensor) -> Tensor:
        """Boxes (N, 4) of images (N,) with labels (N,) -> mask logits (N, M, M) of the labels' classes."""
        size = self.config.mask_size
        if len(boxes) == 0:
            return boxes.new_zeros(0, size, size)
        return self.mask_head(self._pool(features, boxes, image_index, size // 2), labels)

    def _pool(self, features: list[Tensor], boxes: Tensor, image_index: Tensor, size: int) -> Tensor:
        """(N, C, size, size), with gradients towards the features."""
        maps = [f.permute(0, 2, 3, 1) for f in features[:POOLED_LEVELS]]
        pooled = pool(maps, boxes, image_index, size, self.anchors.pooled_strides, self.conventions)
        return pooled.permute(0, 3, 1, 2)


def build_model(
    config: ModelConfig, n_classes: int, conventions: Conventions = NATIVE, *, freeze_norm: bool = True
) -> MaskRCNN:
    """A network with random weights for `n_classes` classes, not counting the background."""
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
