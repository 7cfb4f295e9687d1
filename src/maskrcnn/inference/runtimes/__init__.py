"""Runtimes: torch, OpenVINO or ONNX Runtime compute the network; `detection.detect` does the rest for all of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from maskrcnn.config import ModelConfig, Precision, PredictConfig
from maskrcnn.detection.anchors import p6_length
from maskrcnn.detection.arrays import to_numpy
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.detect import Detector, Network
from maskrcnn.detection.fit import fit_picture, padded_hw
from maskrcnn.detection.stages import Observe, RawDetections, RegionFormat, Trunk, ignore
from maskrcnn.inference.timings import usual_side

GRAPHS = ("trunk", "box_head", "mask_head")


class Runtime(ABC):
    """A network that one library runs in one precision, with the settings of the steps around it."""

    name: str
    precision: Precision

    def __init__(self, config: ModelConfig, conventions: Conventions) -> None:
        self.detector = Detector(config, conventions)

    @abstractmethod
    def network(self) -> Network:
        """The network. Any thread may use it."""

    def detect(
        self, pixels: np.ndarray, windows: np.ndarray, predict: PredictConfig, observe: Observe = ignore
    ) -> RawDetections:
        """`Detector.detect`, as NumPy arrays."""
        raw = self.detector.detect(self.network(), pixels, windows, predict, observe)
        return RawDetections(**{name: to_numpy(column) for name, column in vars(raw).items()})

    def with_detector(self, detector: Detector) -> Runtime:
        """Return a runtime of the same network with other steps around it."""
        changed = copy(self)
        changed.detector = detector
        return changed


class Engine(Protocol):
    """A library with the three exported graphs."""

    region_formats: Mapping[str, RegionFormat]
    """`Network.region_formats`"""

    def run(self, name: str, *inputs: np.ndarray) -> list[Any]:
        """Outputs of one graph. They are valid until the thread runs the same graph again."""


class ExportedNetwork:
    """The three graphs of an export as a `Network`. `pixel_mean` is the input that becomes zero in them."""

    def __init__(
        self, engine: Engine, config: ModelConfig, conventions: Conventions, pixel_mean: tuple[float, ...]
    ) -> None:
        self.engine = engine
        self.region_formats = engine.region_formats
        self.config = config
        self.padding = None if conventions.black_padding else pixel_mean

    def trunk(self, pixels: np.ndarray, windows: np.ndarray, observe: Observe = ignore) -> Trunk:
        *maps, objectness, deltas = self.run_trunk(pixels, windows)
        return self.make_trunk(maps, objectness, deltas, pixels)

    def box_head(self, pooled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        class_logits, box_deltas = self.engine.run("box_head", pooled if self.config.box_convs else flat_rows(pooled))
        return class_logits, box_deltas

    def mask_head(self, pooled: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return self.engine.run("mask_head", pooled, labels)[0]

    def run_trunk(self, pixels: np.ndarray, windows: np.ndarray) -> list[np.ndarray]:
        """Outputs of the trunk's graph for pixels (B, H, W, 3) with pictures in `windows` (B, 4)."""
        return self.engine.run("trunk", fill_padding(pixels, windows, self.padding))

    def make_trunk(
        self, maps: list[np.ndarray], objectness: np.ndarray, deltas: np.ndarray, pixels: np.ndarray
    ) -> Trunk:
        """Add the sizes that the arrays imply."""
        maps_hw = [(m.shape[1], m.shape[2]) for m in maps]
        if self.config.pyramid == "fpn":
            rows, columns = maps_hw[-1]
            maps_hw.append((p6_length(rows), p6_length(columns)))
        return Trunk(maps, objectness, deltas, tuple(maps_hw), (pixels.shape[1], pixels.shape[2]))


Adapter = Callable[[ExportedNetwork], Network]
"""Makes a `Network` of exported graphs that leave something out."""


class ExportedRuntime(Runtime):
    """An export that OpenVINO or ONNX Runtime runs: `graphs` of a folder or by name. `ValueError`: unknown `name`.

    Graphs with weights of int8 are for the precision int8, those with weights of fp32 for any other.
    """

    def __init__(
        self,
        name: str,
        graphs: dict[str, Any] | Path,
        config: ModelConfig,
        conventions: Conventions,
        pixel_mean: tuple[float, ...],
        adapter: Adapter | None = None,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__(config, conventions)
        self.name = name
        self.precision = precision
        side = usual_side(config, conventions)
        usual_hw = padded_hw(fit_picture(np.zeros((side, side, 3), np.uint8), conventions, config).pixels)
        engine = engine_module(name).Engine(graphs, precision, usual_hw)
        self.exported = ExportedNetwork(engine, config, conventions, pixel_mean)
        self._network = adapter(self.exported) if adapter else self.exported

    def network(self) -> Network:
        return self._network


def engine_module(name: str) -> Any:
    """The module of a library: its `Engine`, `half_precisions`, `write_graphs` and `VERSION`.

    Raises `ValueError` for an unknown name and `ModuleNotFoundError` if the library is not installed.
    """
    if name not in ("openvino", "onnx"):
        raise ValueError(f"unknown runtime {name!r}")
    return import_module(f"maskrcnn.inference.runtimes.{name}")


def flat_rows(pooled: np.ndarray) -> np.ndarray:
    """(R, S, S, C) -> (R, S*S*C), also if R is 0."""
    return pooled.reshape(len(pooled), math.prod(pooled.shape[1:]))


def fill_padding(pixels: np.ndarray, windows: np.ndarray, mean: tuple[float, ...] | None) -> np.ndarray:
    """Float32 inputs with `mean` outside `windows`, which becomes zero in the graph. None leaves the padding black."""
    result = pixels.astype(np.float32)
    if mean is not None:
        for image, (x1, y1, x2, y2) in zip(result, windows, strict=True):
            image[:y1] = image[y2:] = mean
            image[:, :x1] = image[:, x2:] = mean
    return result
