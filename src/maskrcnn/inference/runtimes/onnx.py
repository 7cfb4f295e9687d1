"""Exported graphs in ONNX Runtime on a CPU, fp32 or int8, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from maskrcnn.config import Precision
from maskrcnn.detection.stages import FLOAT_REGIONS
from maskrcnn.inference.runtimes import GRAPHS

VERSION = f"onnxruntime {onnxruntime.__version__}"


class Engine:
    """Sessions of three ``.onnx`` graphs: those of a folder, or ``onnx.ModelProto`` by name.

    They compute in the precision of their weights, and take inputs of any size. Raises `RuntimeError` for a graph that
    cannot be read.
    """

    region_formats = FLOAT_REGIONS

    def __init__(self, graphs: dict[str, Any] | Path, _precision: Precision, _usual_hw: tuple[int, int]) -> None:
        if isinstance(graphs, Path):
            sources: dict[str, Any] = {name: graphs / f"{name}.onnx" for name in GRAPHS}
        else:
            sources = {name: graph.SerializeToString() for name, graph in graphs.items()}
        try:
            self.sessions = {
                name: onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
                for name, source in sources.items()
            }
        except Exception as error:  # ONNX Runtime's own errors have no class of their own to catch
            raise RuntimeError(str(error)) from error

    def run(self, name: str, *inputs: np.ndarray) -> list[Any]:
        session = self.sessions[name]
        return session.run(None, {i.name: value for i, value in zip(session.get_inputs(), inputs, strict=True)})


def half_precisions() -> list[Precision]:
    """None: on a CPU, ONNX Runtime computes weights of fp32 in fp32."""
    return []


def write_graphs(graphs: dict[str, Any], folder: Path) -> None:
    """Write each ``onnx.ModelProto`` as ``NAME.onnx``."""
    import onnx

    for name, graph in graphs.items():
        onnx.save(graph, folder / f"{name}.onnx")
