"""The network's three graphs in the formats of other runtimes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from maskrcnn.inference.graphs import graphs_of
from maskrcnn.model.mask_rcnn import MaskRCNN

OPSET = 18


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing warns of every size that it fixes; those that it must not fix are tested."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


def _axes(name: str) -> list[int]:
    """Axes whose length may change: image count, height and width, or the number of boxes."""
    return [0, 1, 2] if name == "trunk" else [0]


def to_openvino(model: MaskRCNN) -> dict[str, Any]:
    """`ov.Model` of each graph by its name."""
    import openvino as ov

    result = {}
    for name, (module, shape) in graphs_of(model).items():
        free = ov.PartialShape([-1 if axis in _axes(name) else length for axis, length in enumerate(shape)])
        with _quiet():
            result[name] = ov.convert_model(module, example_input=torch.rand(shape) * 255, input=[free])
    return result


def to_onnx(model: MaskRCNN) -> dict[str, Any]:
    """`onnx.ModelProto` of each graph by its name."""
    import onnx

    result = {}
    with TemporaryDirectory() as folder:
        for name, (module, shape) in graphs_of(model).items():
            path = Path(folder) / f"{name}.onnx"
            with _quiet():
                torch.onnx.export(
                    module,
                    (torch.rand(shape) * 255,),
                    path,
                    dynamo=False,
                    opset_version=OPSET,
                    input_names=["input"],
                    dynamic_axes={"input": {axis: f"axis{axis}" for axis in _axes(name)}},
                )
            result[name] = onnx.load(path)
    return result
