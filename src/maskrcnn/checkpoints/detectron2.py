"""Import Detectron2's Mask R-CNN with ResNet and FPN: rename its tensors and follow its conventions.

Detectron2 puts the background last and reads BGR; this package puts it first and reads RGB. Weights are reordered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from maskrcnn.checkpoints.assemble import FPN_DEFAULTS, as_tensors, assemble, renamed, settle
from maskrcnn.checkpoints.native import Checkpoint
from maskrcnn.config import ImportConfig
from maskrcnn.detection.conventions import DETECTRON2

TELLTALE = "proposal_generator.rpn_head.objectness_logits.weight"
"""A tensor that only Detectron2's models have."""

# Base-RCNN-FPN.yaml and config/defaults.py
DEFAULTS = FPN_DEFAULTS.model_copy(
    update={
        "stride_in_1x1": True,
        "input_format": "BGR",
        "pixel_mean": (103.53, 116.28, 123.675),
        "pixel_std": (1.0, 1.0, 1.0),
    }
)

UNUSED = re.compile(r"pixel_mean|pixel_std|proposal_generator\.anchor_generator\.cell_anchors\.\d+")
"""Constants that old files of the model zoo contain."""

BLOCK = r"backbone\.bottom_up\.res(?P<stage>\d)\.(?P<block>\d+)\."


def _in_block(part: str) -> Any:
    return lambda m: f"backbone.body.layer{int(m['stage']) - 1}.{m['block']}." + m.expand(part)  # res2 is layer1


RULES = (
    (r"backbone\.bottom_up\.stem\.conv1\.weight", "backbone.body.conv1.weight"),
    (r"backbone\.bottom_up\.stem\.conv1\.norm\.(\w+)", r"backbone.body.bn1.\1"),
    (BLOCK + r"conv(\d)\.weight", _in_block(r"conv\3.weight")),
    (BLOCK + r"conv(\d)\.norm\.(\w+)", _in_block(r"bn\3.\4")),
    (BLOCK + r"shortcut\.weight", _in_block("downsample.0.weight")),
    (BLOCK + r"shortcut\.norm\.(\w+)", _in_block(r"downsample.1.\3")),
    (r"backbone\.fpn_lateral(\d)\.(weight|bias)", lambda m: f"pyramid.laterals.{int(m[1]) - 2}.{m[2]}"),
    (r"backbone\.fpn_output(\d)\.(weight|bias)", lambda m: f"pyramid.outputs.{int(m[1]) - 2}.{m[2]}"),
    (r"proposal_generator\.rpn_head\.conv\.(weight|bias)", r"rpn.convs.0.\1"),
    (r"proposal_generator\.rpn_head\.conv\.conv(\d)\.(weight|bias)", r"rpn.convs.\1.\2"),
    (r"proposal_generator\.rpn_head\.objectness_logits\.(weight|bias)", r"rpn.objectness.\1"),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.(weight|bias)", r"rpn.deltas.\1"),
    (r"roi_heads\.box_head\.conv(\d)\.(weight|bias)", lambda m: f"box_head.convs.{int(m[1]) - 1}.{m[2]}"),
    (r"roi_heads\.box_head\.fc(\d)\.(weight|bias)", lambda m: f"box_head.fcs.{int(m[1]) - 1}.{m[2]}"),
    (r"roi_heads\.box_predictor\.cls_score\.(weight|bias)", r"box_head.class_logits.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(weight|bias)", r"box_head.box_deltas.\1"),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)", lambda m: f"mask_head.convs.{int(m[1]) - 1}.{m[2]}"),
    (r"roi_heads\.mask_head\.deconv\.(weight|bias)", r"mask_head.deconv.\1"),
    (r"roi_heads\.mask_head\.predictor\.(weight|bias)", r"mask_head.logits.\1"),
)


def from_detectron2(state: Mapping[str, Any], options: ImportConfig) -> Checkpoint:
    """Convert the weights of ``mask_rcnn_R_*_FPN``. Class ids stay Detectron2's, 0 to K - 1. Raises `UserError`."""
    options = settle(options, DEFAULTS, "detectron2")
    unused = sorted(name for name in state if UNUSED.fullmatch(name))
    tensors = as_tensors({k: v for k, v in state.items() if k not in unused}, "detectron2")
    new_names = renamed(tensors, RULES, "detectron2")
    weights = {new_names[name]: tensor for name, tensor in tensors.items()}
    mean, std = options.pixel_mean, options.pixel_std
    assert mean is not None
    assert std is not None
    stem = "backbone.body.conv1.weight"
    if options.input_format == "BGR":
        mean, std = mean[::-1], std[::-1]
        if stem in weights:
            weights[stem] = weights[stem].flip(1)
    n_classes = len(weights.get("box_head.class_logits.weight", torch.zeros(2))) - 1
    for kind in ("weight", "bias"):
        if (logits := f"box_head.class_logits.{kind}") in weights:
            weights[logits] = weights[logits].roll(1, 0)
        for layer, rows_per_class in (("box_head.box_deltas", 4), ("mask_head.logits", 1)):
            if (name := f"{layer}.{kind}") in weights:
                weights[name] = _with_background(weights[name], n_classes, rows_per_class)
    return assemble(
        weights,
        source="detectron2",
        conventions=DETECTRON2.changed(shorter_side=options.min_size, stride_in_1x1=options.stride_in_1x1),
        options=options,
        model={"pixel_mean": mean, "pixel_std": std},
        first_class_id=0,
        unused=unused,
    )


def _with_background(rows: Tensor, n_classes: int, rows_per_class: int) -> Tensor:
    """Prepend zero rows for the background. Repeat the rows of a class-agnostic layer for every class."""
    if len(rows) == rows_per_class:
        rows = torch.cat([rows] * n_classes)
    return torch.cat([torch.zeros_like(rows[:rows_per_class]), rows])
