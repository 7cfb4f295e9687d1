"""Who computes the network: torch, OpenVINO or ONNX Runtime. All of them look the same to `Predictor`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np

from maskrcnn.config import ModelConfig, PredictConfig
from maskrcnn.inference import regions
from maskrcnn.inference.convolutions import Convolutions
from maskrcnn.inference.regions import Found, Graphs, Trunk
from maskrcnn.kernels.scratch import Scratch
from maskrcnn.model.anchors import Anchors
from maskrcnn.model.conventions import Conventions

GRAPHS = ("trunk", "box_head", "mask_head")


class Runtime(Protocol):
    """Inputs in, detections in the network's units out."""

    conventions: Conventions
    name: str

    def detect(self, pixels: np.ndarray, windows: np.ndarray, predict: PredictConfig) -> Found:
        """Inputs (B, H, W, 3) uint8 or float32 of 0 to 255, of which windows (B, 4) xyxy are picture."""


class CpuRuntime(ABC):
    """A runtime on a CPU: three graphs, and `inference.regions` between them. `convolutions`, if given, are what the
    graphs leave out.
    """

    name = "cpu"

    def __init__(self, model: ModelConfig, conventions: Conventions, convolutions: Convolutions | None = None) -> None:
        self.model_config = model
        self.conventions = conventions
        self.anchors = Anchors(model, conventions)
        self.scratch = Scratch()
        self.convolutions = convolutions

    def detect(
        self, pixels: np.ndarray, windows: np.ndarray, predict: PredictConfig, graphs: Graphs | None = None
    ) -> Found:
        """See `Runtime`; `graphs` may stand between, to look on."""
        return regions.detect(
            graphs or self.graphs(),
            pixels,
            windows,
            anchors=self.anchors,
            model=self.model_config,
            predict=predict,
            conventions=self.conventions,
            scratch=self.scratch,
        )

    @abstractmethod
    def graphs(self) -> Graphs:
        """What computes for this call; runtimes that serve several threads hand out one each."""

    def trunk_of(
        self, maps: list[np.ndarray], objectness: np.ndarray, deltas: np.ndarray, hw: tuple[int, int]
    ) -> Trunk:
        """Raw outputs of the first graph with the sizes that they imply; P6 has every second cell of P5."""
        maps_hw = [(m.shape[1], m.shape[2]) for m in maps]
        if self.model_config.pyramid == "fpn":
            maps_hw.append(((maps_hw[-1][0] + 1) // 2, (maps_hw[-1][1] + 1) // 2))
        return Trunk(maps, objectness, deltas, tuple(maps_hw), hw)


class ExportedGraphs(ABC):
    """The graphs that an export made, whoever runs them by name."""

    def __init__(self, runtime: CpuRuntime, pixel_mean: tuple[float, ...]) -> None:
        self.runtime = runtime
        self.pixel_mean = None if runtime.conventions.black_padding else pixel_mean

    @abstractmethod
    def run(self, name: str, *values: np.ndarray) -> list[Any]:
        """The outputs of one graph, valid until its next call in this thread."""

    def trunk(self, pixels: np.ndarray, windows: np.ndarray) -> Trunk:
        """See `regions.Graphs`."""
        outputs = self.run("trunk", fill_padding(pixels, windows, self.pixel_mean))
        if self.runtime.convolutions:
            maps, objectness, deltas = self.runtime.convolutions.trunk(outputs)
        else:
            *maps, objectness, deltas = outputs
        return self.runtime.trunk_of(maps, objectness, deltas, (pixels.shape[1], pixels.shape[2]))

    def box_head(self, pooled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `regions.Graphs`."""
        if self.runtime.convolutions:
            pooled = self.runtime.convolutions.box(pooled)
        if self.runtime.convolutions or not self.runtime.model_config.box_convs:
            # (R, S, S, C) -> (R, S*S*C), as `graphs.BoxRowsGraph` takes it
            pooled = pooled.reshape(len(pooled), math.prod(pooled.shape[1:]))
        logits, deltas = self.run("box_head", pooled)
        return logits, deltas

    def mask_head(self, pooled: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """See `regions.Graphs`."""
        if self.runtime.convolutions:
            pooled = self.runtime.convolutions.mask(pooled)
        return self.run("mask_head", pooled, labels)[0]


def fill_padding(pixels: np.ndarray, windows: np.ndarray, mean: tuple[float, ...] | None) -> np.ndarray:
    """float32 inputs whose padding holds `mean`, which becomes zero inside the graph; None leaves it as it is."""
    result = pixels.astype(np.float32)
    if mean is not None:
        for image, (x1, y1, x2, y2) in zip(result, windows, strict=True):
            image[:y1] = image[y2:] = mean
            image[:, :x1] = image[:, x2:] = mean
    return result
