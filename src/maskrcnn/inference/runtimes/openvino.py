"""The network in OpenVINO, fp32 or int8, on a CPU. Needs no torch."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from maskrcnn.config import ModelConfig
from maskrcnn.inference.convolutions import Convolutions
from maskrcnn.inference.regions import suppress
from maskrcnn.inference.runtimes import GRAPHS, CpuRuntime, ExportedGraphs
from maskrcnn.model.conventions import Conventions


class OpenVinoRuntime(CpuRuntime):
    """Runs the graphs of `models` (by name, read or converted); every thread that calls has its own requests."""

    name = "openvino"

    def __init__(
        self,
        models: dict[str, ov.Model],
        model: ModelConfig,
        conventions: Conventions,
        pixel_mean: tuple[float, ...],
        convolutions: Convolutions | None = None,
    ) -> None:
        super().__init__(model, conventions, convolutions)
        self.pixel_mean = pixel_mean
        core = ov.Core()
        settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
        with ThreadPoolExecutor(1) as pool:
            # Half a second's work, during which numba loads what all of its kernels need: another half.
            compiling = {
                name: pool.submit(core.compile_model, graph, "CPU", settings) for name, graph in models.items()
            }
            suppress(np.zeros((1, 4), np.float32), np.zeros(1, np.float32), np.zeros(1, np.int64), 0.5, 1)
            self._compiled = {name: graph.result() for name, graph in compiling.items()}
        self._own = threading.local()

    @staticmethod
    def read(folder: Path) -> dict[str, ov.Model]:
        """The graphs of a bundle."""
        core = ov.Core()
        return {name: core.read_model(folder / f"{name}.xml") for name in GRAPHS}

    def graphs(self) -> _Requests:
        """This thread's requests, made at its first call."""
        if not hasattr(self._own, "requests"):
            self._own.requests = _Requests(self)
        return self._own.requests


class _Requests(ExportedGraphs):
    """One infer request a graph. What a call returns is valid until the next call of the same graph."""

    def __init__(self, runtime: OpenVinoRuntime) -> None:
        super().__init__(runtime, runtime.pixel_mean)
        self.requests = {name: graph.create_infer_request() for name, graph in runtime._compiled.items()}

    def run(self, name: str, *values: np.ndarray) -> list[Any]:
        """See `ExportedGraphs`."""
        results = self.requests[name].infer(values, share_inputs=True, share_outputs=True)
        return [results[k] for k in range(len(results))]
