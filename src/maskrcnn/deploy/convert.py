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

from maskrcnn.inference.graphs import NetworkGraphs

OPSET = 18

FREE_AXES = {"trunk": 3, "box_head": 1, "mask_head": 1}
"""So many axes of a graph's inputs, from the first on, may change: image count, height and width; number of boxes."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing warns of every size that it fixes; those that it must not fix are tested."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


def to_openvino(graphs: NetworkGraphs) -> dict[str, Any]:
    """`ov.Model` of each of `graphs_of` by its name."""
    import openvino as ov

    result = {}
    for name, (module, inputs) in graphs.items():
        free = FREE_AXES[name]
        shapes = [ov.PartialShape([-1 if k < free else n for k, n in enumerate(v.shape)]) for v in inputs.values()]
        with _quiet():
            result[name] = ov.convert_model(module, example_input=tuple(inputs.values()), input=shapes)
    return result


def to_onnx(graphs: NetworkGraphs) -> dict[str, Any]:
    """`onnx.ModelProto` of each of `graphs_of` by its name."""
    return {
        name: traced(module, inputs, {key: FREE_AXES[name] for key in inputs})
        for name, (module, inputs) in graphs.items()
    }


def traced(module: nn.Module, inputs: dict[str, Tensor], free: dict[str, int]) -> Any:
    """The `onnx.ModelProto` of a module, from examples of its inputs, of which the first `free` axes may change."""
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
