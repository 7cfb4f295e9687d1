"""OpenVINO graphs with the convolutions that a bundle's graphs leave out.

In half precision, one graph of everything is faster than plain convolutions with a quarter of the products beside it.

B images, C channels, M x N cells of a map, A cell anchors, R regions of S x S cells
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from maskrcnn.inference.runtimes.telemetry import refuse_telemetry
from maskrcnn.winograd.inference import Layer, Layers, usable

refuse_telemetry()
import openvino as ov  # noqa: E402
from openvino import opset13 as ops  # noqa: E402

LAST = np.iinfo(np.int64).max


def completed(graphs: dict[str, ov.Model], path: Path, channels: int) -> dict[str, ov.Model]:
    """Add the convolutions in `path` to `graphs`, for maps of `channels`, which change. Raises `UserError`.

    The results take and give what `deploy.graphs.graphs_of` says.
    """
    with usable(path):
        layers = Layers.of(load_file(path), channels)
        return {
            "trunk": _trunk(graphs["trunk"], layers),
            "box_head": _head(graphs["box_head"], layers.box),
            "mask_head": _head(graphs["mask_head"], layers.mask),
        }


def _trunk(graph: ov.Model, layers: Layers) -> ov.Model:
    """Pyramid and RPN behind a graph that gives the pyramid before its 3x3 convolutions, or the single map."""
    maps = [_channels_first(result.input_value(0)) for result in graph.get_results()]
    levels = maps
    if layers.pyramid:
        maps = [_convolved(layer, sums) for layer, sums in zip(layers.pyramid, maps, strict=True)]
        levels = [*maps, ops.slice(maps[-1], [0, 0], [LAST, LAST], [2, 2], [2, 3])]
    weight, bias = layers.anchors
    per_cell = len(bias) // 5
    objectness: list[Any] = []
    deltas: list[Any] = []
    for level in levels:
        hidden = _tower(layers.rpn, level)
        logits = _products(hidden, weight[:per_cell], bias[:per_cell])
        objectness.append(ops.reshape(logits, np.array([0, -1]), special_zero=True))  # (B, M, N, A) -> (B, M*N*A)
        changes = _products(hidden, weight[per_cell:], bias[per_cell:])
        deltas.append(ops.reshape(changes, np.array([0, -1, 4]), special_zero=True))  # (B, M, N, 4*A) -> (B, M*N*A, 4)
    results = [*map(_channels_last, maps), ops.concat(objectness, 1), ops.concat(deltas, 1)]
    return ov.Model(results, graph.get_parameters())


def _head(graph: ov.Model, layers: list[Layer]) -> ov.Model:
    """Convolutions before a graph that takes their result, (R, S, S, C) or rows of (R, S*S*C), as its first input."""
    if not layers:
        return graph
    behind, *others = graph.get_parameters()
    shape = behind.get_partial_shape()
    channels_in, channels_out = layers[0].weight.shape[1], len(layers[-1].bias)
    side = round((shape[1].get_length() / channels_out) ** 0.5) if len(shape) == 2 else shape[1].get_length()
    pooled = ops.parameter(ov.PartialShape([-1, side, side, channels_in]), np.float32)
    result = _channels_last(_tower(layers, _channels_first(pooled)))
    if len(shape) == 2:
        result = ops.reshape(result, np.array([0, side * side * channels_out]), special_zero=True)
    for target in behind.output(0).get_target_inputs():
        target.replace_source_output(result.output(0))
    return ov.Model(graph.get_results(), [pooled, *others])


def _tower(layers: list[Layer], maps: Any) -> Any:
    for layer in layers:
        maps = _convolved(layer, maps)
    return maps


def _convolved(layer: Layer, maps: Any) -> Any:
    """Maps (B, C, M, N), padded with zeros -> (B, C', M, N)."""
    plain = ops.convolution(maps, layer.weight, [1, 1], [1, 1], [1, 1], [1, 1])
    sums = ops.add(plain, layer.bias.reshape(1, -1, 1, 1))
    return ops.relu(sums) if layer.relu else sums


def _products(maps: Any, weight: np.ndarray, bias: np.ndarray) -> Any:
    """Maps (B, C, M, N), weight (C', C) -> (B, M, N, C')."""
    plain = ops.convolution(maps, weight[:, :, None, None], [1, 1], [0, 0], [0, 0], [1, 1])
    return _channels_last(ops.add(plain, bias.reshape(1, -1, 1, 1)))


def _channels_first(maps: Any) -> Any:
    """(B, M, N, C) -> (B, C, M, N)"""
    return ops.transpose(maps, np.array([0, 3, 1, 2]))


def _channels_last(maps: Any) -> Any:
    """(B, C, M, N) -> (B, M, N, C)"""
    return ops.transpose(maps, np.array([0, 2, 3, 1]))
