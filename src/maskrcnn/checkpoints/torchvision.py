"""torchvision's Mask R-CNN: its tensors under our names, and a model that follows its conventions."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from maskrcnn.checkpoints.native import load_weights
from maskrcnn.config import Config
from maskrcnn.errors import UserError
from maskrcnn.inference.predictor import Predictor
from maskrcnn.model.conventions import TORCHVISION
from maskrcnn.model.mask_rcnn import build_model

RENAMED = (
    (r"backbone\.body\.(.+)", r"backbone.body.\1"),
    # The parts in (?:...)? came with torchvision 0.11; older files lack them.
    (r"backbone\.fpn\.inner_blocks\.(\d)(?:\.0)?\.(weight|bias)", r"pyramid.laterals.\1.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d)(?:\.0)?\.(weight|bias)", r"pyramid.outputs.\1.\2"),
    (r"rpn\.head\.conv(?:\.0\.0)?\.(weight|bias)", r"rpn.conv.\1"),
    (r"rpn\.head\.cls_logits\.(.+)", r"rpn.objectness.\1"),
    (r"rpn\.head\.bbox_pred\.(.+)", r"rpn.deltas.\1"),
    (r"roi_heads\.box_head\.fc6\.(.+)", r"box_head.fc1.\1"),
    (r"roi_heads\.box_head\.fc7\.(.+)", r"box_head.fc2.\1"),
    (r"roi_heads\.box_predictor\.cls_score\.(.+)", r"box_head.class_logits.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(.+)", r"box_head.box_deltas.\1"),
    (r"roi_heads\.mask_head\.(\d)\.0\.(.+)", r"mask_head.convs.\1.\2"),
    (r"roi_heads\.mask_head\.mask_fcn1\.(.+)", r"mask_head.convs.0.\1"),
    (r"roi_heads\.mask_head\.mask_fcn2\.(.+)", r"mask_head.convs.1.\1"),
    (r"roi_heads\.mask_head\.mask_fcn3\.(.+)", r"mask_head.convs.2.\1"),
    (r"roi_heads\.mask_head\.mask_fcn4\.(.+)", r"mask_head.convs.3.\1"),
    (r"roi_heads\.mask_predictor\.conv5_mask\.(.+)", r"mask_head.deconv.\1"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.(.+)", r"mask_head.logits.\1"),
)

# (blocks of stage 3, bottleneck) -> timm's name
RESNETS = {
    (2, False): "resnet18",
    (6, False): "resnet34",
    (6, True): "resnet50",
    (23, True): "resnet101",
    (36, True): "resnet152",
}
DECISIVE = (
    "rpn.conv.weight",
    "box_head.fc1.weight",
    "box_head.class_logits.weight",
    "mask_head.deconv.weight",
)
"""Tensors whose shapes give the network's widths."""

ANCHOR_SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)


def from_torchvision(
    state: dict[str, Tensor],
    *,
    class_names: list[str] | None = None,
    min_size: int = 800,
    max_size: int = 1333,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    detections_per_image: int = 100,
    anchor_sizes: tuple[float, ...] = ANCHOR_SIZES,
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
) -> Predictor:
    """A model from the state dictionary of ``maskrcnn_resnet*_fpn``; its class ids are torchvision's, 1 to K - 1.

    Backbone, class count and widths come from the tensors; what they cannot tell has torchvision's defaults. A tensor
    that has no place, a missing or a misshapen one raises `UserError`.
    """
    weights = {_renamed(name): tensor for name, tensor in state.items()}
    missing = [name for name in DECISIVE if name not in weights]
    if missing:
        raise UserError(f"torchvision checkpoint: {len(missing)} tensors are missing, such as our {missing[0]}")
    n_classes = weights["box_head.class_logits.weight"].shape[0] - 1
    values: dict[str, Any] = {
        "model": {
            "backbone": _backbone(state),
            "weights": "none",
            "image_size": max_size,
            "channels": weights["rpn.conv.weight"].shape[0],
            "box_channels": weights["box_head.fc1.weight"].shape[0],
            "mask_channels": weights["mask_head.deconv.weight"].shape[0],
            "anchor_sizes": anchor_sizes,
            "anchor_ratios": anchor_ratios,
        },
        "predict": {
            "score_threshold": score_threshold,
            "nms_threshold": nms_threshold,
            "detections": detections_per_image,
        },
    }
    config = Config.parse(values, "torchvision checkpoint")
    conventions = TORCHVISION.changed(shorter_side=min_size)
    model = build_model(config.model, n_classes, conventions)
    # Frozen batch norm has no counter; ours never moves it.
    counters = {k: torch.zeros_like(v) for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    load_weights(model, {**counters, **weights}, "torchvision checkpoint")
    names = class_names or [str(k) for k in range(1, n_classes + 1)]
    if len(names) != n_classes:
        raise UserError(f"the checkpoint has {n_classes} classes without the background; {len(names)} names were given")
    return Predictor(model, config, list(range(1, n_classes + 1)), names, provenance={"source": "torchvision"})


def _renamed(name: str) -> str:
    for pattern, ours in RENAMED:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, ours, name)
    raise UserError(f"torchvision checkpoint: the tensor {name!r} has no place in a Mask R-CNN with a plain FPN")


def _backbone(state: dict[str, Tensor]) -> str:
    blocks = {m[1] for name in state if (m := re.match(r"backbone\.body\.layer3\.(\d+)\.", name))}
    kind = (len(blocks), "backbone.body.layer3.0.conv3.weight" in state)
    if kind not in RESNETS:
        raise UserError(f"torchvision checkpoint: no ResNet has {kind[0]} blocks in its third stage")
    return RESNETS[kind]
