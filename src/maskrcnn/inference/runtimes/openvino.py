"""Exported graphs in OpenVINO on a CPU, in any precision, without torch."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.config import HALVES, Precision
from maskrcnn.detection.boxes import suppress
from maskrcnn.inference.runtimes import GRAPHS
from maskrcnn.inference.runtimes.signal_stack import in_own_thread
from maskrcnn.inference.runtimes.telemetry import refuse_telemetry

refuse_telemetry()
import openvino as ov  # noqa: E402

VERSION = f"openvino {ov.__version__}"

FLOATS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
"""OpenVINO's name of the format in which it computes what is not quantised."""


class Engine:
    """Three compiled graphs: those of a folder, or ``ov.Model`` by name. Every thread gets its own infer requests."""

    def __init__(self, graphs: dict[str, ov.Model] | Path, precision: Precision) -> None:
        models = read_graphs(graphs) if isinstance(graphs, Path) else graphs
        settings = {"INFERENCE_PRECISION_HINT": FLOATS[precision], "NUM_STREAMS": 1}
        core = ov.Core()
        compiling = in_own_thread(lambda: {name: core.compile_model(g, "CPU", settings) for name, g in models.items()})
        _call_a_kernel()  # loads what all kernels need, which takes as long as compiling: half a second
        self.compiled = compiling.result()
        self._of_thread = threading.local()

    def run(self, name: str, *inputs: np.ndarray) -> list[Any]:
        if not hasattr(self._of_thread, "requests"):
            self._of_thread.requests = {name: graph.create_infer_request() for name, graph in self.compiled.items()}
        results = self._of_thread.requests[name].infer(inputs, share_inputs=True, share_outputs=True)
        return [results[k] for k in range(len(results))]


def half_precisions() -> list[Precision]:
    """The half precisions for which OpenVINO finds instructions in this processor."""
    found = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [name for name in HALVES if name.upper() in found]


def read_graphs(folder: Path) -> dict[str, ov.Model]:
    """Read what `write_graphs` wrote. Raises `RuntimeError`."""
    core = ov.Core()
    return {name: core.read_model(folder / f"{name}.xml") for name in GRAPHS}


def write_graphs(graphs: dict[str, ov.Model], folder: Path) -> None:
    """Write each graph as ``NAME.xml`` and ``NAME.bin``."""
    for name, graph in graphs.items():
        ov.save_model(graph, folder / f"{name}.xml", compress_to_fp16=False)


def _call_a_kernel() -> None:
    nothing = np.zeros(1, np.int64)
    suppress(np.zeros((1, 4), np.float32), np.zeros(1, np.float32), nothing, nothing, 1, 0.5, 1, False)
