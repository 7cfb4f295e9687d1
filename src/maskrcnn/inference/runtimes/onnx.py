"""The network in ONNX Runtime, fp32 or int8, on a CPU. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from maskrcnn.config import ModelConfig
from maskrcnn.inference.regions import Trunk
from maskrcnn.inference.runtimes import CpuRuntime, fill_padding
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
    ) -> None:
        super().__init__(model, conventions)
        self.pixel_mean = None if conventions.black_padding else pixel_mean
        self.sessions = sessions

    @classmethod
    def open(
        cls, folder: Path, model: ModelConfig, conventions: Conventions, pixel_mean: tuple[float, ...]
    ) -> OnnxRuntime:
        """Read the graphs of a bundle."""
        sessions = {
            name: onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
            for name in ("trunk", "box_head", "mask_head")
        }
        return cls(sessions, model, conventions, pixel_mean)

    def graphs(self) -> OnnxRuntime:
        """Itself."""
        return self

    def trunk(self, pixels: np.ndarray, windows: np.ndarray) -> Trunk:
        """See `regions.Graphs`."""
        *maps, objectness, deltas = self._run("trunk", fill_padding(pixels, windows, self.pixel_mean))
        return self.trunk_of(maps, objectness, deltas, (pixels.shape[1], pixels.shape[2]))

    def box_head(self, pooled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `regions.Graphs`."""
        logits, deltas = self._run("box_head", pooled)
        return logits, deltas

    def mask_head(self, pooled: np.ndarray) -> np.ndarray:
        """See `regions.Graphs`."""
        return self._run("mask_head", pooled)[0]

    def _run(self, name: str, value: np.ndarray) -> list[Any]:
        session = self.sessions[name]
        return session.run(None, {session.get_inputs()[0].name: value})
