"""The optional backend `maskrcnn.winograd`: graphs without the 3x3 convolutions behind the backbone, and their weights.

trunk     (B, H, W, 3) -> the pyramid before its 3x3 convolutions, or the single map, each (B, M, N, C)
box head  (R, S*S*C), behind its convolutions -> class logits, box deltas
mask head (N, S, S, C'), behind its convolutions, labels (N,) -> mask logits
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskrcnn.deploy.graphs import BoxRowsGraph, MaskEndGraph, NetworkGraphs, example_inputs, normalized
from maskrcnn.model.folding import folded_weights
from maskrcnn.model.fpn import FPN
from maskrcnn.model.mask_rcnn import MaskRCNN


def split(model: MaskRCNN) -> tuple[NetworkGraphs, dict[str, np.ndarray]]:
    """The graphs, and the arrays of `winograd.inference.Convolutions`."""
    modules = {
        "trunk": _BodyGraph(model),
        "box_head": BoxRowsGraph(model.box_head, model.config.channels),
        "mask_head": MaskEndGraph(model.mask_head),
    }
    inputs = example_inputs(model, flat_box_rows=True, mask_channels=model.mask_head.deconv.in_channels)
    return {name: (module.eval(), inputs[name]) for name, module in modules.items()}, _weights(model)


class _BodyGraph(nn.Module):
    """Normalisation, backbone, and the pyramid up to its 3x3 convolutions."""

    def __init__(self, model: MaskRCNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        merged = self.model.pyramid.merge(self.model.backbone(normalized(self.model, pixels)))
        return tuple(sums.permute(0, 2, 3, 1) for sums in merged)


def _weights(model: MaskRCNN) -> dict[str, np.ndarray]:
    parts: dict[str, Iterable[nn.Module]] = {
        "pyramid": model.pyramid.outputs if isinstance(model.pyramid, FPN) else [],
        "rpn": model.rpn.convs,
        "box": model.box_head.convs,
        "mask": model.mask_head.convs,
    }
    pairs = {f"{part}.{k}": _pair(conv) for part, convs in parts.items() for k, conv in enumerate(convs)}
    anchors = [_pair(conv) for conv in (model.rpn.objectness, model.rpn.deltas)]
    pairs["anchors"] = torch.cat([weight.flatten(1) for weight, _ in anchors]), torch.cat([bias for _, bias in anchors])
    return {
        f"{name}.{kind}": value.detach().float().cpu().contiguous().numpy()
        for name, pair in pairs.items()
        for kind, value in zip(("weight", "bias"), pair, strict=True)
    }


def _pair(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution, with the batch norm behind it if there is one."""
    if isinstance(conv, nn.Sequential):
        plain: Any = conv[0]
        return folded_weights(plain, conv[1])
    return conv.get_parameter("weight"), conv.get_parameter("bias")
