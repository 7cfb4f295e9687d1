"""One ONNX graph from pictures to detections: the network's three graphs, joined by those of `deploy/dialect.py`.

images -> fit -> trunk -> propose -> box head -> select -> mask head -> finish -> boxes, classes, scores, image, masks
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from maskrcnn.deploy.convert import OPSET, traced
from maskrcnn.deploy.dialect import Finish, Fit, Propose, Select
from maskrcnn.deploy.graphs import graphs_of
from maskrcnn.detection.conventions import Conventions
from maskrcnn.errors import UserError
from maskrcnn.inference.predictor import Predictor

METADATA = "maskrcnn"
"""Key of the graph's metadata under which the text of a bundle's ``model.json`` stands."""


@dataclass(frozen=True)
class _Step:
    """One part of the graph: its module and the names of its inputs and outputs."""

    name: str
    module: nn.Module
    inputs: list[str]
    outputs: list[str]


def check_expressible(conventions: Conventions) -> None:
    """Raise `UserError` if the dialect cannot express the conventions."""
    if conventions.resize not in ("longer", "shorter", "shorter-pillow") or conventions.normalized_boxes:
        raise UserError(
            f"--whole exports native, torchvision and Detectron2 models, not the resizing and the box coordinates of "
            f"{conventions.name}; leave out --whole to get a bundle"
        )


def whole_graph(model: Predictor, graphs: dict[str, Any], description: dict[str, Any]) -> Any:
    """Join `graphs`, the network of `model` as ``onnx.ModelProto`` by name, to one graph with all steps.

    images (B, H, W, 3) uint8 -> boxes (N, 4) and scores (N,) float32, classes and image (N,) int64, masks (N, M, M)
    float32: image by image, best first. `description` becomes metadata. Raises `UserError` as `check_expressible` does.
    """
    import onnx

    check_expressible(model.conventions)
    parts, nodes, constants = [], [], []
    values = {"images": torch.randint(0, 256, (2, 90, 120, 3), dtype=torch.uint8)}
    for step in _steps(model):
        inputs = {name: values[name] for name in step.inputs}
        part = graphs.get(step.name) or traced(step.module, inputs, {name: v.ndim for name, v in inputs.items()})
        with torch.no_grad():
            outputs = step.module(*inputs.values())
        values |= zip(step.outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=True)
        graph = _renamed(part.graph, step)
        nodes += graph.node
        constants += graph.initializer
        parts.append(part)
    value, kinds, cells = onnx.helper.make_tensor_value_info, onnx.TensorProto, model.config.model.mask_size
    graph = onnx.helper.make_graph(
        nodes,
        "maskrcnn",
        [value("images", kinds.UINT8, ["B", "H", "W", 3], "RGB pictures of one size")],
        [
            value("boxes", kinds.FLOAT, ["N", 4], "x1, y1, x2, y2 in pixels of the picture"),
            value("classes", kinds.INT64, ["N"], "index into class_names of the metadata"),
            value("scores", kinds.FLOAT, ["N"], "probability of the class"),
            value("image", kinds.INT64, ["N"], "index of the picture in the batch"),
            value("masks", kinds.FLOAT, ["N", cells, cells], "probabilities in the cells that the box is cut into"),
        ],
        constants,
    )
    whole = onnx.helper.make_model(
        graph, ir_version=max(part.ir_version for part in parts), opset_imports=[onnx.helper.make_opsetid("", OPSET)]
    )
    onnx.helper.set_model_props(whole, {METADATA: json.dumps(description)})
    return whole


def _steps(model: Predictor) -> list[_Step]:
    network, conventions, config = model.model, model.conventions, model.config.model
    parts = {name: module for name, (module, _) in graphs_of(network).items()}
    anchors = network.anchors
    maps = [f"map{k}" for k in range(len(anchors.pooled_strides))]
    return [
        _Step("fit", Fit(conventions, config, network.pixel_mean), ["images"], ["pixels", "hw"]),
        _Step("trunk", parts["trunk"], ["pixels"], [*maps, "objectness", "deltas"]),
        _Step(
            "propose",
            Propose(config, anchors, conventions),
            ["hw", "objectness", "deltas", *maps],
            ["regions", "region_image", "region_features"],
        ),
        _Step("box_head", parts["box_head"], ["region_features"], ["class_logits", "box_deltas"]),
        _Step(
            "select",
            Select(config, anchors, conventions, model.config.predict),
            ["images", "hw", "class_logits", "box_deltas", "regions", "region_image", *maps],
            ["found_boxes", "found_classes", "found_scores", "found_image", "labels", "features"],
        ),
        _Step("mask_head", parts["mask_head"], ["features", "labels"], ["mask_logits"]),
        _Step(
            "finish",
            Finish(model.config.predict),
            ["mask_logits", "found_boxes", "found_classes", "found_scores", "found_image"],
            ["boxes", "classes", "scores", "image", "masks"],
        ),
    ]


def _renamed(graph: Any, step: _Step) -> Any:
    """Copy the graph of a part. Inputs and outputs get their names in the joined graph, all else the part's prefix."""
    names = dict(zip([value.name for value in (*graph.input, *graph.output)], step.inputs + step.outputs, strict=True))
    copy = type(graph)()
    copy.CopyFrom(graph)

    def rename(value: str) -> str:
        return names.get(value, f"{step.name}/{value}") if value else ""

    for node in copy.node:
        node.name = f"{step.name}/{node.name}"
        node.input[:] = [rename(value) for value in node.input]
        node.output[:] = [rename(value) for value in node.output]
    for constant in copy.initializer:
        constant.name = rename(constant.name)
    return copy
