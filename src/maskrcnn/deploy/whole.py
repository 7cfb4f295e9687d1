"""One ONNX graph from pictures to detections: the network's three graphs, joined by those of `deploy/glue.py`.

images -> fit -> trunk -> propose -> box head -> select -> mask head -> finish -> boxes, classes, scores, image, masks
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from maskrcnn.deploy.convert import OPSET, traced
from maskrcnn.deploy.glue import Finish, Fit, Propose, Select
from maskrcnn.errors import UserError
from maskrcnn.inference.graphs import graphs_of
from maskrcnn.inference.predictor import Predictor
from maskrcnn.model.conventions import Conventions

METADATA = "maskrcnn"
"""Under this key the graph's metadata holds what a bundle's ``model.json`` says, as JSON."""


@dataclass(frozen=True)
class _Step:
    """A part of the whole: what computes it, and the names of the values that go in and come out."""

    name: str
    module: nn.Module
    inputs: list[str]
    outputs: list[str]


def check_expressible(conventions: Conventions) -> None:
    """Raise `UserError` for conventions that the joined graph has no operations for."""
    if conventions.resize not in ("longer", "shorter", "shorter-pillow") or conventions.normalized_boxes:
        raise UserError(
            f"--whole knows native, torchvision and Detectron2 models; how those of {conventions.name} frame pictures "
            "and count boxes is not written in ONNX. Without --whole, a bundle of them can be made"
        )


def whole_graph(model: Predictor, graphs: dict[str, Any], description: dict[str, Any]) -> Any:
    """The ``onnx.ModelProto`` of `model` whose network is `graphs`, of all of `graphs_of`, in ONNX.

    images (B, H, W, 3) uint8 -> boxes (N, 4) and scores (N,) float32, classes and image (N,) int64, masks (N, M, M)
    float32: image by image, best first. `description` becomes metadata. Raises `UserError` like `check_expressible`.
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
        graph,
        ir_version=max(part.ir_version for part in parts),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
    )
    onnx.helper.set_model_props(whole, {METADATA: json.dumps(description)})
    return whole


def _steps(model: Predictor) -> list[_Step]:
    network, conventions, config = model.model, model.conventions, model.config.model
    parts = {name: module for name, (module, _) in graphs_of(network).items()}
    anchors = network.anchors
    maps = [f"map{k}" for k in range(min(len(anchors.strides), 4))]
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
    """A copy of a part's graph: its inputs and outputs by the names that the whole has for them, all else by its own
    behind the part's.
    """
    names = dict(zip([value.name for value in (*graph.input, *graph.output)], step.inputs + step.outputs, strict=True))
    copy = type(graph)()
    copy.CopyFrom(graph)

    def name(own: str) -> str:
        return names.get(own, f"{step.name}/{own}") if own else ""

    for node in copy.node:
        node.name = f"{step.name}/{node.name}"
        node.input[:] = [name(own) for own in node.input]
        node.output[:] = [name(own) for own in node.output]
    for constant in copy.initializer:
        constant.name = name(constant.name)
    return copy
