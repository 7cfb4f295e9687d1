"""The three parts of the network as modules that an exporter can trace, with maps channels-last at their seams.

trunk     (B, H, W, 3) float32 of 0 to 255 -> P2 .. P5 (B, M, N, C), objectness (B, K), deltas (B, K, 4)
box head  (R, S*S*C), or (R, S, S, C) with convolutions -> class logits (R, K + 1), box deltas (R, K + 1, 4)
mask head (N, S, S, C), labels (N,) -> mask logits (N, M, M)

With `winograd`, `inference.convolutions` does what lies between them, and they take other things:

trunk     (B, H, W, 3) -> what the pyramid's 3x3 convolutions are given, or its single map, each (B, M, N, C)
box head  (R, S*S*C), behind its convolutions -> class logits, box deltas
mask head (N, S, S, C'), behind its convolutions, labels (N,) -> mask logits
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn.model.anchors import POOLED_LEVELS
from maskrcnn.model.box_head import BoxHead
from maskrcnn.model.folding import folded_weights
from maskrcnn.model.fpn import FPN
from maskrcnn.model.mask_head import MaskHead
from maskrcnn.model.mask_rcnn import BOX_POOL, MaskRCNN

NetworkGraphs = dict[str, tuple[nn.Module, dict[str, Tensor]]]
"""Graphs by their names, with examples of their inputs by theirs."""


class TrunkGraph(nn.Module):
    """Normalisation, backbone, pyramid and region proposal network. Padding comes in as the pixel mean."""

    def __init__(self, model: MaskRCNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """See the module's legend."""
        features = self.model.extract(_normalized(self.model, pixels))
        rpn = self.model.rpn(features)
        maps = [feature.permute(0, 2, 3, 1) for feature in features[:POOLED_LEVELS]]
        return (*maps, torch.cat(rpn.objectness_logits, 1), torch.cat(rpn.anchor_deltas, 1))


class BodyGraph(nn.Module):
    """Normalisation, backbone, and the pyramid up to its 3x3 convolutions."""

    def __init__(self, model: MaskRCNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """See the module's legend."""
        merged = self.model.pyramid.merge(self.model.backbone(_normalized(self.model, pixels)))
        return tuple(sums.permute(0, 2, 3, 1) for sums in merged)


def _normalized(model: MaskRCNN, pixels: Tensor) -> Tensor:
    return ((pixels - model.pixel_mean) / model.pixel_std).permute(0, 3, 1, 2)


class BoxGraph(nn.Module):
    """The box head with its convolutions."""

    def __init__(self, head: BoxHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """See the module's legend."""
        return self.head(pooled.permute(0, 3, 1, 2))


class BoxRowsGraph(nn.Module):
    """The box head without convolutions. Its first layer takes cells in the order that they have in memory, in a row:
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
        first = self.head.fcs[0]
        hidden = F.relu(F.linear(pooled, self.get_buffer("first_weight"), first.get_parameter("bias")))
        return self.head.predict(hidden, skip=1)


class MaskEndGraph(nn.Module):
    """The mask head behind its 3x3 convolutions. The weights of its product are constants, as int8 wants them."""

    def __init__(self, head: MaskHead) -> None:
        super().__init__()
        self.head = head
        weight, bias = head.product()
        self.register_buffer("product_weight", weight.detach().clone())
        self.register_buffer("product_bias", bias.detach())

    def forward(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """See the module's legend."""
        return self.head.finish(pooled, labels, self.get_buffer("product_weight"), self.get_buffer("product_bias"))


class MaskGraph(MaskEndGraph):
    """The mask head."""

    def forward(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """See the module's legend."""
        return super().forward(self.head.convolved(pooled.permute(0, 3, 1, 2)), labels)


def graphs_of(model: MaskRCNN, *, winograd: bool = False) -> NetworkGraphs:
    """The three graphs; with `winograd`, `weights_of` has what is missing."""
    size, channels = model.config.image_size, model.config.channels
    pool = model.config.mask_size // 2
    example = min(-(-size // 64) * 64, 512)
    rows = winograd or not model.config.box_convs
    regions = torch.rand(8, BOX_POOL, BOX_POOL, channels)
    trunk = BodyGraph(model) if winograd else TrunkGraph(model)
    box = BoxRowsGraph(model.box_head, channels) if rows else BoxGraph(model.box_head)
    mask = MaskEndGraph(model.mask_head) if winograd else MaskGraph(model.mask_head)
    hidden = model.mask_head.deconv.in_channels if winograd else channels
    return {
        "trunk": (trunk.eval(), {"pixels": 255 * torch.rand(1, example, example, 3)}),
        "box_head": (box.eval(), {"pooled": regions.flatten(1) if rows else regions}),
        "mask_head": (
            mask.eval(),
            {"pooled": torch.rand(4, pool, pool, hidden), "labels": torch.ones(4, dtype=torch.int64)},
        ),
    }


def weights_of(model: MaskRCNN) -> dict[str, np.ndarray]:
    """What `graphs_of` leaves out with `winograd`, by the names of `inference.convolutions.Convolutions`."""
    parts: dict[str, Iterable[nn.Module]] = {
        "pyramid": model.pyramid.outputs if isinstance(model.pyramid, FPN) else [],
        "rpn": model.rpn.convs,
        "box": model.box_head.convs,
        "mask": model.mask_head.convs,
    }
    pairs = {f"{part}.{k}": _folded(conv) for part, convs in parts.items() for k, conv in enumerate(convs)}
    answers = [_folded(conv) for conv in (model.rpn.objectness, model.rpn.deltas)]
    pairs["anchors"] = torch.cat([weight.flatten(1) for weight, _ in answers]), torch.cat([bias for _, bias in answers])
    return {
        f"{name}.{kind}": value.detach().float().cpu().contiguous().numpy()
        for name, pair in pairs.items()
        for kind, value in zip(("weight", "bias"), pair, strict=True)
    }


def _folded(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution, or of one and the batch norm behind it."""
    if isinstance(conv, nn.Sequential):
        plain: Any = conv[0]
        return folded_weights(plain, conv[1])
    return conv.get_parameter("weight"), conv.get_parameter("bias")
