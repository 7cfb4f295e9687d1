"""The three parts of the network as modules that an exporter can trace, with maps channels-last at their seams.

trunk     (B, H, W, 3) float32 of 0 to 255 -> P2 .. P5 (B, M, N, C), objectness (B, K), deltas (B, K, 4)
box head  (R, S*S*C), or (R, S, S, C) with convolutions -> class logits (R, K + 1), box deltas (R, K + 1, 4)
mask head (N, S, S, C), labels (N,) -> mask logits (N, M, M)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn.config import ModelConfig
from maskrcnn.model.anchors import POOLED_LEVELS
from maskrcnn.model.box_head import BoxHead
from maskrcnn.model.mask_rcnn import BOX_POOL, MaskRCNN


class TrunkGraph(nn.Module):
    """Normalisation, backbone, pyramid and region proposal network. Padding comes in as the pixel mean."""

    def __init__(self, model: MaskRCNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """See the module's legend."""
        images = ((pixels - self.model.pixel_mean) / self.model.pixel_std).permute(0, 3, 1, 2)
        features = self.model.extract(images)
        rpn = self.model.rpn(features)
        maps = [feature.permute(0, 2, 3, 1) for feature in features[:POOLED_LEVELS]]
        return (*maps, torch.cat(rpn.objectness_logits, 1), torch.cat(rpn.anchor_deltas, 1))


class BoxGraph(nn.Module):
    """The box head. Without convolutions its first layer takes cells in the order that they have in memory, in a row:
    a reshape between a quantised input and the product would leave the product in fp32.
    """

    def __init__(self, head: BoxHead, channels: int) -> None:
        super().__init__()
        self.head = head
        first = head.fcs[0].get_parameter("weight")
        # (out, C*S*S) -> (out, S*S*C)
        weight = first.unflatten(1, (channels, BOX_POOL**2)).transpose(1, 2).flatten(1).contiguous()
        self.register_buffer("first_weight", weight)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """See the module's legend."""
        if len(self.head.convs):
            return self.head(pooled.permute(0, 3, 1, 2))
        first = self.head.fcs[0]
        hidden = F.relu(F.linear(pooled, self.get_buffer("first_weight"), first.get_parameter("bias")))
        return self.head.predict(hidden, skip=1)


class MaskGraph(nn.Module):
    """The mask head."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """See the module's legend."""
        return self.head(pooled.permute(0, 3, 1, 2), labels)


def box_input(config: ModelConfig) -> tuple[int, ...]:
    """Shape of one region as `BoxGraph` takes it."""
    cells = (BOX_POOL, BOX_POOL, config.channels)
    return cells if config.box_convs else (math.prod(cells),)


def graphs_of(model: MaskRCNN) -> dict[str, tuple[nn.Module, dict[str, Tensor]]]:
    """Each graph by its name, with examples of its inputs by theirs."""
    size, channels = model.config.image_size, model.config.channels
    pool = model.config.mask_size // 2
    example = min(-(-size // 64) * 64, 512)
    return {
        "trunk": (TrunkGraph(model).eval(), {"pixels": 255 * torch.rand(1, example, example, 3)}),
        "box_head": (BoxGraph(model.box_head, channels).eval(), {"pooled": torch.rand(8, *box_input(model.config))}),
        "mask_head": (
            MaskGraph(model.mask_head).eval(),
            {"pooled": torch.rand(4, pool, pool, channels), "labels": torch.ones(4, dtype=torch.int64)},
        ),
    }
