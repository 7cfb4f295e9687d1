"""The network's three graphs in the formats of other runtimes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn.deploy.graphs import NetworkGraphs
from maskrcnn.inference.runtimes.telemetry import refuse_telemetry

OPSET = 18

FREE_AXES = {"trunk": 3, "box_head": 1, "mask_head": 1}
"""Number of leading axes of a graph's inputs that may change: images, height and width; number of boxes."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the tracer, which warns of every size that it makes constant. Tests cover the sizes that must not be."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


def to_openvino(graphs: NetworkGraphs) -> dict[str, Any]:
    """Convert each graph to an ``ov.Model``, by name."""
    refuse_telemetry()
    import openvino as ov

    result = {}
    for name, (module, inputs) in graphs.items():
        free = FREE_AXES[name]
        shapes = [ov.PartialShape([-1 if k < free else n for k, n in enumerate(v.shape)]) for v in inputs.values()]
        with _quiet():
            result[name] = ov.convert_model(module, example_input=tuple(inputs.values()), input=shapes)
    return result


def to_onnx(graphs: NetworkGraphs) -> dict[str, Any]:
    """Convert each graph to an ``onnx.ModelProto``, by name."""
    return {
        name: traced(part, inputs, dict.fromkeys(inputs, FREE_AXES[name])) for name, (part, inputs) in graphs.items()
    }


def traced(module: nn.Module, inputs: dict[str, Tensor], free: dict[str, int]) -> Any:
    """Trace a module to an ``onnx.ModelProto``; of each input the first `free` axes may change."""
    import onnx

    with TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "graph.onnx"
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            dynamic_axes={key: {axis: f"axis{axis}" for axis in range(free[key])} for key in inputs},
        )
        return onnx.load(path)
