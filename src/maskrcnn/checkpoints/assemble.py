"""Another program's tensors under our names -> a `Checkpoint`, whose structure is read off their shapes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskrcnn.checkpoints.load import BATCH_COUNTER
from maskrcnn.checkpoints.native import Checkpoint
from maskrcnn.config import Config, ImportConfig, set_values
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.pool import BOX_POOL
from maskrcnn.errors import UserError, counted

# (blocks of the third stage, shape of the first block's middle convolution) -> timm's name; None: no bottleneck
RESNETS = {
    (2, None): "resnet18",
    (6, None): "resnet34",
    (6, (64, 64)): "resnet50",
    (23, (64, 64)): "resnet101",
    (36, (64, 64)): "resnet152",
    (6, (128, 4)): "resnext50_32x4d",
    (23, (256, 8)): "resnext101_32x8d",
    (23, (256, 4)): "resnext101_64x4d",
    (6, (128, 128)): "wide_resnet50_2",
    (23, (128, 128)): "wide_resnet101_2",
}

FPN_DEFAULTS = ImportConfig(
    min_size=800,
    max_size=1333,
    score_threshold=0.05,
    nms_threshold=0.5,
    detections_per_image=100,
    anchor_sizes=(32, 64, 128, 256, 512),
    anchor_ratios=(0.5, 1.0, 2.0),
)
"""Defaults that torchvision and Detectron2 have in common."""


def as_tensors(state: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Convert arrays to tensors and half precision to float32. Raises `UserError` for anything but numbers."""
    tensors = {}
    for name, value in state.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            value = torch.from_numpy(np.array(value))
        if not isinstance(value, Tensor):
            raise UserError(f"{source} checkpoint: {name} is no array of numbers but a {type(value).__name__}")
        tensors[name] = value.detach().float() if value.is_floating_point() else value.detach()
    return tensors


def renamed(
    names: Iterable[str], rules: Sequence[tuple[str, str | Callable[[re.Match[str]], str]]], source: str
) -> dict[str, str]:
    """Translate each name by the first rule (pattern, replacement) that matches. Raises `UserError` if none does."""
    result = {}
    for name in names:
        rule = next((r for r in rules if re.fullmatch(r[0], name)), None)
        if rule is None:
            raise UserError(f"{source} checkpoint: {name!r} has no place in the Mask R-CNN that this package knows")
        result[name] = re.sub(*rule, name)
    return result


def settle(options: ImportConfig, defaults: ImportConfig, source: str) -> ImportConfig:
    """The user's options over the source's defaults. Raises `UserError` for an option that the source does not have."""
    user_values = {k: v for k, v in set_values(options).items() if v is not None}
    known = {*set_values(defaults), "class_names"}
    unknown = sorted(set(user_values) - known)
    if unknown:
        raise UserError(f"a {source} checkpoint has no option {unknown[0]}; it has {', '.join(sorted(known))}")
    return defaults.model_copy(update=user_values)


def assemble(
    weights: dict[str, Tensor],
    *,
    source: str,
    conventions: Conventions,
    options: ImportConfig,
    model: dict[str, Any],
    first_class_id: int,
    unused: list[str],
) -> Checkpoint:
    """A checkpoint of `weights` under our names; `model` changes the model settings that follow from `options`.

    Raises `UserError` for tensors that are missing or contradict the options, by our names.
    """
    shared = options.model_dump(include={"anchor_sizes", "anchor_ratios", "pixel_mean", "pixel_std"})
    model = {"weights": "none", "image_size": options.max_size, **shared, **_structure(weights, source), **model}
    n_classes = weights["box_head.class_logits.weight"].shape[0] - 1
    per_cell, n_ratios = weights["rpn.objectness.weight"].shape[0], len(options.anchor_ratios or ())
    if per_cell != n_ratios:
        raise UserError(f"the checkpoint has {per_cell} anchors a cell, anchor_ratios gives {n_ratios}")
    predict = options.model_dump(include={"score_threshold", "nms_threshold"})
    predict["detections"] = options.detections_per_image
    config = Config.parse({"model": model, "predict": predict}, f"{source} checkpoint")
    names = list(options.class_names) or [str(k + first_class_id) for k in range(n_classes)]
    if len(names) != n_classes:
        raise UserError(
            f"{counted(len(names), 'class name')} for {counted(n_classes, 'class', 'classes')} of the checkpoint, "
            "without the background"
        )
    has_counters = any(name.endswith(BATCH_COUNTER) for name in weights)
    return Checkpoint(
        weights=weights,
        config=config,
        conventions=conventions,
        class_ids=list(range(first_class_id, first_class_id + n_classes)),
        class_names=names,
        provenance={"source": source, "unused": unused, "norm_counters": has_counters},
    )


def _structure(weights: dict[str, Tensor], source: str) -> dict[str, Any]:
    norm = "mask_head.convs.0.0.weight" in weights

    def count(prefix: str) -> int:
        return len({m[1] for name in weights if (m := re.match(rf"{re.escape(prefix)}\.(\d+)\.", name))})

    def rows(name: str) -> int:
        if name not in weights or weights[name].ndim == 0:
            raise UserError(f"{source} checkpoint: a tensor is missing, here called {name}")
        return weights[name].shape[0]

    conv = ".0.weight" if norm else ".weight"
    channels = rows("pyramid.outputs.0" + conv)
    rows("rpn.objectness.weight")
    rows("box_head.class_logits.weight")
    fc = weights["box_head.fcs.0.weight"] if rows("box_head.fcs.0.weight") else None
    if fc is None or fc.shape[1] != channels * BOX_POOL**2:
        raise UserError(f"{source} checkpoint: its box head does not take {BOX_POOL} x {BOX_POOL} cells")
    return {
        "backbone": _resnet(weights, source),
        "channels": channels,
        "norm": "batch" if norm else "none",
        "rpn_convs": count("rpn.convs"),
        "rpn_channels": rows("rpn.convs.0.weight"),
        "box_convs": count("box_head.convs"),
        "box_layers": count("box_head.fcs"),
        "box_channels": fc.shape[0],
        "mask_convs": count("mask_head.convs"),
        "mask_channels": rows("mask_head.convs.0" + conv),
        "mask_deconv_channels": rows("mask_head.deconv.bias"),
    }


def _resnet(weights: dict[str, Tensor], source: str) -> str:
    blocks = {m[1] for name in weights if (m := re.match(r"backbone\.body\.layer3\.(\d+)\.", name))}
    middle = weights.get("backbone.body.layer1.0.conv2.weight")
    bottleneck = "backbone.body.layer1.0.conv3.weight" in weights
    kind = (len(blocks), tuple(middle.shape[:2]) if bottleneck and middle is not None else None)
    if kind not in RESNETS:
        raise UserError(
            f"{source} checkpoint: no known ResNet has {kind[0]} blocks in its third stage and a middle convolution of "
            f"{kind[1]} channels"
        )
    return RESNETS[kind]
