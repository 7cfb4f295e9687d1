"""The three parts of the network as modules that an exporter can trace, with maps channels-last at their seams.

trunk     (B, H, W, 3) float32 of 0 to 255 -> P2 .. P5 (B, M, N, C), objectness (B, K), deltas (B, K, 4)
box head  (R, S*S*C), or (R, S, S, C) if it has convolutions -> class logits (R, K + 1), box deltas (R, K + 1, 4)
mask head (N, S, S, C), labels (N,) -> mask logits (N, M, M)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn.detection.anchors import POOLED_LEVELS
from maskrcnn.detection.fit import round_up
from maskrcnn.detection.pool import BOX_POOL
from maskrcnn.model.box_head import BoxHead
from maskrcnn.model.mask_head import MaskHead
from maskrcnn.model.mask_rcnn import MaskRCNN

NetworkGraphs = dict[str, tuple[nn.Module, dict[str, Tensor]]]
"""Graphs by name, each with examples of its inputs by name."""


def graphs_of(model: MaskRCNN) -> NetworkGraphs:
    """The three graphs of a network."""
    flat_box_rows = not model.config.box_convs
    modules = {
        "trunk": TrunkGraph(model),
        "box_head": BoxRowsGraph(model.box_head, model.config.channels) if flat_box_rows else BoxGraph(model.box_head),
        "mask_head": MaskGraph(model.mask_head),
    }
    inputs = example_inputs(model, flat_box_rows=flat_box_rows, mask_channels=model.config.channels)
    return {name: (module.eval(), inputs[name]) for name, module in modules.items()}


def example_inputs(model: MaskRCNN, *, flat_box_rows: bool, mask_channels: int) -> dict[str, dict[str, Tensor]]:
    """Random inputs of each graph, by name."""
    side = min(round_up(model.config.image_size, 64), 512)
    regions = torch.rand(8, BOX_POOL, BOX_POOL, model.config.channels)
    size = model.config.mask_size // 2
    return {
        "trunk": {"pixels": 255 * torch.rand(1, side, side, 3)},
        "box_head": {"pooled": regions.flatten(1) if flat_box_rows else regions},
        "mask_head": {"pooled": torch.rand(4, size, size, mask_channels), "labels": torch.ones(4, dtype=torch.int64)},
    }


def normalized(model: MaskRCNN, pixels: Tensor) -> Tensor:
    """(B, H, W, 3) of 0 to 255 -> (B, 3, H, W). Padding comes in as the pixel mean and becomes zero."""
    return ((pixels - model.pixel_mean) / model.pixel_std).permute(0, 3, 1, 2)


class TrunkGraph(nn.Module):
    """Normalisation, backbone, pyramid and region proposal network."""

    def __init__(self, model: MaskRCNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        features, rpn = self.model(normalized(self.model, pixels))
        maps = [feature.permute(0, 2, 3, 1) for feature in features[:POOLED_LEVELS]]
        return (*maps, torch.cat(rpn.objectness_logits, 1), torch.cat(rpn.anchor_deltas, 1))


class BoxGraph(nn.Module):
    """The box head, convolutions included."""

    def __init__(self, head: BoxHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(pooled.permute(0, 3, 1, 2))


class BoxRowsGraph(nn.Module):
    """The box head behind its convolutions, on flat rows: a reshape of a quantised input keeps its product in fp32."""

    def __init__(self, head: BoxHead, channels: int) -> None:
        super().__init__()
        self.head = head
        weight = head.fcs[0].get_parameter("weight").unflatten(1, (channels, BOX_POOL**2))
        self.register_buffer("first_weight", weight.transpose(1, 2).flatten(1).contiguous())  # (F, C*S*S) -> (F, S*S*C)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        first = self.head.fcs[0]
        hidden = F.relu(F.linear(pooled, self.get_buffer("first_weight"), first.get_parameter("bias")))
        return self.head.predict(hidden, skip=1)


class MaskEndGraph(nn.Module):
    """The mask head behind its 3x3 convolutions. int8 needs the weights of its product as constants."""

    def __init__(self, head: MaskHead) -> None:
        super().__init__()
        self.head = head
        weight, bias = head.product()
        self.register_buffer("product_weight", weight.detach().clone())
        self.register_buffer("product_bias", bias.detach())

    def forward(self, pooled: Tensor, labels: Tensor) -> Tensor:
        return self.head.finish(pooled, labels, self.get_buffer("product_weight"), self.get_buffer("product_bias"))


class MaskGraph(MaskEndGraph):
    """The mask head."""

    def forward(self, pooled: Tensor, labels: Tensor) -> Tensor:
        return super().forward(self.head.convolved(pooled.permute(0, 3, 1, 2)), labels)
