"""Import Matterport's Mask R-CNN: rename its tensors and follow its conventions.

Weights are keyed ``layer/weight`` and have Keras's layouts. Three exact conversions: biases of the backbone's
convolutions are subtracted from the mean of the next batch norm, batch norm of the heads is folded into the layer
before it, and two objectness logits become one, their difference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from maskrcnn.checkpoints.assemble import as_tensors, assemble, renamed, settle
from maskrcnn.checkpoints.native import Checkpoint
from maskrcnn.config import ImportConfig
from maskrcnn.detection.conventions import MATTERPORT
from maskrcnn.errors import UserError

TELLTALE = "rpn_conv_shared/kernel"
"""A tensor that only Matterport's Mask R-CNN has."""

# From Matterport's config.py. Its anchor ratios are width over height.
DEFAULTS = ImportConfig(
    image_size=None,
    min_size=800,
    max_size=1024,
    min_scale=0.0,
    resize_mode="square",
    score_threshold=0.7,
    nms_threshold=0.3,
    detections_per_image=100,
    anchor_sizes=(32, 64, 128, 256, 512),
    anchor_ratios=(0.5, 1.0, 2.0),
    pixel_mean=(123.7, 116.8, 103.9),
    norm_eps=1e-3,
)
PROPOSALS_BEFORE_NMS = 6000
PROPOSALS = 1000

UNUSED = re.compile(r"anchors/.+|.*optimizer.*|(?:.+/)?iterations?|.*/(?:momentum|iter)\b.*")
"""Anchors and optimizer state, which a file saved in training may contain."""

NORM_WEIGHTS = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
PLAIN_WEIGHTS = {"kernel": "weight", "bias": "bias"}

BLOCK = r"(?P<stage>\d)(?P<block>[a-z])_branch"


def _layer(template: str) -> Any:
    """Return a replacement that fills in ``{layer}``, ``{block}``, ``{part}``: res2a is the first block of layer1."""
    return lambda m: template.format(layer=int(m["stage"]) - 1, block=ord(m["block"]) - ord("a"), part=_part(m))


def _part(match: re.Match[str]) -> int:
    return ord(match["part"]) - ord("a") + 1 if "part" in match.re.groupindex else 0


# By layer, not by tensor. A head's convolution and its batch norm map to the same layer.
RULES = (
    (r"conv1", "backbone.body.conv1"),
    (r"bn_conv1", "backbone.body.bn1"),
    (r"res" + BLOCK + r"2(?P<part>[abc])", _layer("backbone.body.layer{layer}.{block}.conv{part}")),
    (r"bn" + BLOCK + r"2(?P<part>[abc])", _layer("backbone.body.layer{layer}.{block}.bn{part}")),
    (r"res" + BLOCK + r"1", _layer("backbone.body.layer{layer}.{block}.downsample.0")),
    (r"bn" + BLOCK + r"1", _layer("backbone.body.layer{layer}.{block}.downsample.1")),
    (r"fpn_c(\d)p\1", lambda m: f"pyramid.laterals.{int(m[1]) - 2}"),
    (r"fpn_p(\d)", lambda m: f"pyramid.outputs.{int(m[1]) - 2}"),
    (r"rpn_conv_shared", "rpn.convs.0"),
    (r"rpn_class_raw", "rpn.objectness"),
    (r"rpn_bbox_pred", "rpn.deltas"),
    (r"mrcnn_class_(?:conv|bn)(\d)", lambda m: f"box_head.fcs.{int(m[1]) - 1}"),
    (r"mrcnn_class_logits", "box_head.class_logits"),
    (r"mrcnn_bbox_fc", "box_head.box_deltas"),
    (r"mrcnn_mask_(?:conv|bn)(\d)", lambda m: f"mask_head.convs.{int(m[1]) - 1}"),
    (r"mrcnn_mask_deconv", "mask_head.deconv"),
    (r"mrcnn_mask", "mask_head.logits"),
)


def from_matterport(state: Mapping[str, Any], options: ImportConfig) -> Checkpoint:
    """Convert the weights of ``mrcnn.model.MaskRCNN``. Class ids stay Matterport's, 1 to K - 1. Raises `UserError`."""
    options = _sizes(options)
    unused = sorted(name for name in state if UNUSED.fullmatch(name))
    tensors = as_tensors({k: v for k, v in state.items() if k not in unused}, "matterport")
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, _, weight = name.rpartition("/")
        layers.setdefault(layer, {})[weight] = tensor
    new_names = renamed(layers, RULES, "matterport")
    eps, ratios = options.norm_eps, options.anchor_ratios
    assert eps is not None
    assert ratios is not None
    return assemble(
        _convert(layers, new_names, eps),
        source="matterport",
        conventions=MATTERPORT.changed(
            resize=options.resize_mode, shorter_side=options.min_size, smallest_scale=options.min_scale, norm_eps=eps
        ),
        options=options,
        model={
            "anchor_ratios": tuple(1 / ratio for ratio in ratios),
            "proposals_per_level": PROPOSALS_BEFORE_NMS,
            "proposals": PROPOSALS,
            "pixel_std": (1.0, 1.0, 1.0),
        },
        first_class_id=1,
        unused=unused,
    )


def read_h5(path: Path) -> dict[str, np.ndarray]:
    """Read ``layer/weight`` -> array, without following links. Raises `UserError`, also for arrays in other files."""
    try:
        import h5py
    except ImportError:
        raise UserError(f"{path}: reading .h5 files needs h5py: pip install 'maskrcnn[matterport]'") from None
    arrays: dict[str, np.ndarray] = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "fiub":
            return
        if item.external or item.is_virtual:
            raise UserError(f"{path} was refused: {name} lies in another file")
        key = "/".join(name.removesuffix(":0").split("/")[-2:])  # the name is group/.../layer/weight:0
        if key in arrays:
            raise UserError(f"{path}: two tensors are named {key}")
        arrays[key] = item[()]

    try:
        with h5py.File(path, "r") as file:
            file.get("model_weights", file).visititems(visit)
    except UserError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not a readable .h5 file: {str(error).splitlines()[0]}") from None
    return arrays


def _sizes(options: ImportConfig) -> ImportConfig:
    if options.image_size is not None:
        if options.min_size is not None or options.max_size is not None:
            raise UserError("image_size stands for both min_size and max_size; set either image_size or the other two")
        side = options.image_size
        options = options.model_copy(update={"image_size": None, "min_size": side, "max_size": side})
    settled = settle(options, DEFAULTS, "matterport")
    if settled.resize_mode == "square" and (settled.max_size or 0) % 64:
        raise UserError(f"a square input's side must be a multiple of 64; it is {settled.max_size}")
    return settled


def _convert(layers: dict[str, dict[str, Tensor]], new_names: dict[str, str], eps: float) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for layer, values in layers.items():
        names = NORM_WEIGHTS if "gamma" in values else PLAIN_WEIGHTS
        missing, unknown = sorted(set(names) - set(values)), sorted(set(values) - set(names))
        if missing or unknown:
            problem = f"has no tensor {missing[0]}" if missing else f"has an unknown tensor {unknown[0]}"
            raise UserError(f"matterport checkpoint: the layer {layer} {problem}")
        new_name = new_names[layer]
        if names is NORM_WEIGHTS and new_name.startswith("backbone."):
            weights |= {f"{new_name}.{name}": values[keras_name] for keras_name, name in NORM_WEIGHTS.items()}
        elif names is PLAIN_WEIGHTS:
            kernel, bias = _torch_layout(values["kernel"], layer), values["bias"]
            norm = layers.get(layer.replace("_conv", "_bn"), {}) if re.fullmatch(r"mrcnn_\w+_conv\d", layer) else {}
            if set(norm) == set(NORM_WEIGHTS):
                kernel, bias = _folded(kernel, bias, norm, eps)
            if layer == "rpn_class_raw":
                kernel, bias = _difference(kernel), _difference(bias)
            if layer in ("rpn_bbox_pred", "mrcnn_bbox_fc"):
                kernel, bias = _xy_order(kernel), _xy_order(bias)
            if new_name.startswith("box_head."):
                kernel = kernel.flatten(1)
            weights[f"{new_name}.weight"], weights[f"{new_name}.bias"] = kernel, bias
    _move_biases_into_norms(weights)
    return weights


def _torch_layout(kernel: Tensor, layer: str) -> Tensor:
    """(H, W, in, out) -> (out, in, H, W), and (in, out) -> (out, in). Deconvolutions swap in and out on both sides."""
    if kernel.ndim not in (2, 4):
        raise UserError(f"matterport checkpoint: the kernel of {layer} has the shape {tuple(kernel.shape)}")
    return (kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T).contiguous()


def _folded(kernel: Tensor, bias: Tensor, norm: dict[str, Tensor], eps: float) -> tuple[Tensor, Tensor]:
    """Fold the batch norm after a layer into its kernel and bias."""
    gamma, beta, mean, variance = (norm[name].double() for name in NORM_WEIGHTS)
    factor = gamma / (variance + eps).sqrt()
    scaled = kernel.double() * factor.reshape(-1, *[1] * (kernel.ndim - 1))
    return scaled.float(), ((bias.double() - mean) * factor + beta).float()


def _difference(rows: Tensor) -> Tensor:
    """Rows (background, foreground) of each anchor -> foreground minus background."""
    return rows[1::2] - rows[0::2]


def _xy_order(rows: Tensor) -> Tensor:
    """Rows (dy, dx, dh, dw) of each box -> (dx, dy, dw, dh)."""
    return rows.unflatten(0, (-1, 4))[:, [1, 0, 3, 2]].flatten(0, 1)


def _move_biases_into_norms(weights: dict[str, Tensor]) -> None:
    """Remove the biases of the backbone's convolutions and subtract them from the means of the batch norms after."""
    for name in [n for n in weights if re.fullmatch(r"backbone\.body\..*(?:conv\d|downsample\.0)\.bias", n)]:
        convolution = name.removesuffix(".bias")
        norm = re.sub(r"conv(\d)$", r"bn\1", convolution).replace("downsample.0", "downsample.1")
        bias = weights.pop(name)
        if f"{norm}.running_mean" in weights:
            weights[f"{norm}.running_mean"] = weights[f"{norm}.running_mean"] - bias
