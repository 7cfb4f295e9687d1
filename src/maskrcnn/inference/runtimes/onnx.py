"""The network in ONNX Runtime, fp32 or int8, on a CPU. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from maskrcnn.config import ModelConfig
from maskrcnn.inference.convolutions import Convolutions
from maskrcnn.inference.runtimes import GRAPHS, CpuRuntime, ExportedGraphs
from maskrcnn.model.conventions import Conventions


class OnnxRuntime(CpuRuntime):
    """Runs three ``.onnx`` graphs; a session serves any number of threads."""

    name = "onnx"

    def __init__(
        self,
        sessions: dict[str, Any],
        model: ModelConfig,
        conventions: Conventions,
        pixel_mean: tuple[float, ...],
        convolutions: Convolutions | None = None,
    ) -> None:
        super().__init__(model, conventions, convolutions)
        self._graphs = _Sessions(self, sessions, pixel_mean)

    @staticmethod
    def read(folder: Path) -> dict[str, Any]:
        """The sessions of a bundle."""
        return {
            name: onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
            for name in GRAPHS
        }

    def graphs(self) -> ExportedGraphs:
        """The same for every thread."""
        return self._graphs


class _Sessions(ExportedGraphs):
    def __init__(self, runtime: OnnxRuntime, sessions: dict[str, Any], pixel_mean: tuple[float, ...]) -> None:
        super().__init__(runtime, pixel_mean)
        self.sessions = sessions

    def run(self, name: str, *values: np.ndarray) -> list[Any]:
        """See `ExportedGraphs`."""
        session = self.sessions[name]
        return session.run(None, {i.name: value for i, value in zip(session.get_inputs(), values, strict=True)})
