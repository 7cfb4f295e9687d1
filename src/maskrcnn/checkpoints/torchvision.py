"""Import torchvision's Mask R-CNN, renaming its tensors and following its conventions, and export it again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maskrcnn.checkpoints.assemble import FPN_DEFAULTS, as_tensors, assemble, renamed, settle
from maskrcnn.checkpoints.load import BATCH_COUNTER
from maskrcnn.checkpoints.native import Checkpoint
from maskrcnn.config import ImportConfig
from maskrcnn.detection.conventions import TORCHVISION
from maskrcnn.errors import UserError
from maskrcnn.inference.predictor import Predictor

TELLTALE = "roi_heads.mask_predictor.mask_fcn_logits.weight"
"""A tensor that only torchvision's Mask R-CNN has."""

DEFAULTS = FPN_DEFAULTS.model_copy(
    update={"pixel_mean": (123.675, 116.28, 103.53), "pixel_std": (58.395, 57.12, 57.375), "norm_eps": 1e-5}
)

# Names before torchvision 0.11 -> current names.
RENAMED_IN_0_11 = (
    (r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)", r"\1.0.\2"),
    (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.(.+)", lambda m: f"roi_heads.mask_head.{int(m[1]) - 1}.0.{m[2]}"),
    (r".+", r"\g<0>"),
)


def _names(norm: bool, box_convs: int) -> tuple[tuple[str, str], ...]:
    """Return pairs (torchvision's name, ours); {i} is a number, {r} the rest. Its v2 models have `norm`."""
    # torchvision wraps a convolution without norm in a sequence; this package does not.
    conv = "" if norm else "0."
    return (
        ("backbone.body.{r}", "backbone.body.{r}"),
        ("backbone.fpn.inner_blocks.{i}." + conv + "{r}", "pyramid.laterals.{i}.{r}"),
        ("backbone.fpn.layer_blocks.{i}." + conv + "{r}", "pyramid.outputs.{i}.{r}"),
        ("rpn.head.conv.{i}.0.{r}", "rpn.convs.{i}.{r}"),
        ("rpn.head.cls_logits.{r}", "rpn.objectness.{r}"),
        ("rpn.head.bbox_pred.{r}", "rpn.deltas.{r}"),
        ("roi_heads.box_head.fc6.{r}", "box_head.fcs.0.{r}"),
        ("roi_heads.box_head.fc7.{r}", "box_head.fcs.1.{r}"),
        # The sequence is: convolutions, flatten, then fully connected layers with ReLUs between them.
        *((f"roi_heads.box_head.{k}.{{r}}", f"box_head.convs.{k}.{{r}}") for k in range(box_convs)),
        *((f"roi_heads.box_head.{box_convs + 1 + 2 * k}.{{r}}", f"box_head.fcs.{k}.{{r}}") for k in range(4)),
        ("roi_heads.box_predictor.cls_score.{r}", "box_head.class_logits.{r}"),
        ("roi_heads.box_predictor.bbox_pred.{r}", "box_head.box_deltas.{r}"),
        ("roi_heads.mask_head.{i}." + conv + "{r}", "mask_head.convs.{i}.{r}"),
        ("roi_heads.mask_predictor.conv5_mask.{r}", "mask_head.deconv.{r}"),
        ("roi_heads.mask_predictor.mask_fcn_logits.{r}", "mask_head.logits.{r}"),
    )


def _rule(source: str, target: str) -> tuple[str, str]:
    pattern = re.escape(source).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{r\}", r"(?P<r>.+)")
    return pattern, target.replace("{i}", r"\g<i>").replace("{r}", r"\g<r>")


def from_torchvision(state: Mapping[str, Any], options: ImportConfig) -> Checkpoint:
    """Convert the state dictionary of ``maskrcnn_resnet50_fpn``, its v2, or a model on any ``resnet_fpn_backbone``.

    Class ids stay torchvision's, 1 to K - 1. Raises `UserError`.
    """
    options = settle(options, DEFAULTS, "torchvision")
    tensors = as_tensors(state, "torchvision")
    current_names = renamed(tensors, RENAMED_IN_0_11, "torchvision")
    tensors = {current_names[name]: tensor for name, tensor in tensors.items()}
    norm = "roi_heads.mask_head.0.1.weight" in tensors
    box_convs = sum(re.fullmatch(r"roi_heads\.box_head\.\d+\.0\.weight", name) is not None for name in tensors)
    new_names = renamed(tensors, [_rule(*pair) for pair in _names(norm, box_convs)], "torchvision")
    return assemble(
        {new_names[name]: tensor for name, tensor in tensors.items()},
        source="torchvision",
        conventions=TORCHVISION.changed(shorter_side=options.min_size, norm_eps=options.norm_eps),
        options=options,
        model={},
        first_class_id=1,
        unused=[],
    )


def to_torchvision(predictor: Predictor) -> dict[str, Tensor]:
    """Return a state dictionary for torchvision's model of the same structure: the inverse of `from_torchvision`.

    Raises `UserError` if torchvision would compute different results.
    """
    config, conventions = predictor.config.model, predictor.model.conventions
    if conventions.name != "torchvision":
        raise UserError(
            f"this model follows the conventions of {conventions.name}; torchvision would compute other boxes and "
            "masks with its weights. Export a model that was imported from torchvision, fine-tuned or not"
        )
    rules = [
        (ours, theirs)
        for theirs, ours in _names(config.norm == "batch", config.box_convs)
        if config.box_convs or not re.match(r"roi_heads\.box_head\.\d", theirs)
        if not config.box_convs or ".fc" not in theirs
    ]
    weights = {name: tensor.detach().cpu() for name, tensor in predictor.model.state_dict().items()}
    if not predictor.provenance.get("norm_counters"):
        weights = {name: tensor for name, tensor in weights.items() if not name.endswith(BATCH_COUNTER)}
    torchvision_names = renamed(weights, [_rule(*pair) for pair in rules], "our")
    return {torchvision_names[name]: tensor for name, tensor in weights.items()}
