"""The network in ONNX Runtime on a CPU, fp32 or int8, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from maskrcnn.config import ModelConfig
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.detect import Network
from maskrcnn.inference.runtimes import GRAPHS, Adapter, ExportedNetwork, Runtime


class OnnxRuntime(Runtime):
    """Runs three ``.onnx`` graphs: those of a folder, or ``onnx.ModelProto`` by name. Sessions serve any thread."""

    name = "onnx"

    def __init__(
        self,
        graphs: dict[str, Any] | Path,
        config: ModelConfig,
        conventions: Conventions,
        pixel_mean: tuple[float, ...],
        adapter: Adapter | None = None,
    ) -> None:
        super().__init__(config, conventions)
        if isinstance(graphs, Path):
            sources = {name: graphs / f"{name}.onnx" for name in GRAPHS}
        else:
            sources = {name: graph.SerializeToString() for name, graph in graphs.items()}
        sessions = {
            name: onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
            for name, source in sources.items()
        }
        exported = _Sessions(sessions, config, conventions, pixel_mean)
        self._network = adapter(exported) if adapter else exported

    def network(self) -> Network:
        """The same network for every thread."""
        return self._network


class _Sessions(ExportedNetwork):
    def __init__(
        self,
        sessions: dict[str, Any],
        config: ModelConfig,
        conventions: Conventions,
        pixel_mean: tuple[float, ...],
    ) -> None:
        super().__init__(config, conventions, pixel_mean)
        self.sessions = sessions

    def run(self, name: str, *inputs: np.ndarray) -> list[Any]:
        """See `ExportedNetwork`."""
        session = self.sessions[name]
        return session.run(None, {i.name: value for i, value in zip(session.get_inputs(), inputs, strict=True)})


def write_graphs(graphs: dict[str, Any], folder: Path) -> None:
    """Write each ``onnx.ModelProto`` as ``NAME.onnx``."""
    import onnx

    for name, graph in graphs.items():
        onnx.save(graph, folder / f"{name}.onnx")
