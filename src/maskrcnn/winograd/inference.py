"""The network of a bundle whose graphs leave out the 3x3 convolutions behind the backbone.

Pyramid, RPN and heads hold 63 % of all operations of a ResNet-50 that finds 100 objects at 512 x 512.

B images, maps (B, M, N, C) of each level, K anchors, R regions of S x S cells, C' channels out
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from maskrcnn.detection.stages import FLOAT_REGIONS, Observe, Trunk, ignore
from maskrcnn.errors import UserError
from maskrcnn.inference.runtimes import Adapter, ExportedNetwork, flat_rows
from maskrcnn.kernels.scratch import Scratch
from maskrcnn.winograd.convolution import convolve
from maskrcnn.winograd.threads import one_blas_thread
from maskrcnn.winograd.transforms import transform_weights


def read(path: Path, channels: int) -> Adapter:
    """Read the convolutions that complete a bundle's graphs, for maps of `channels`. Raises `UserError`."""
    with usable(path):
        return partial(WinogradNetwork, convolutions=Convolutions(load_file(path), channels))


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Convert the errors of a damaged file of convolutions to a `UserError` that names it."""
    try:
        yield
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path} cannot be used: {error}") from None


class WinogradNetwork:
    """A `Network`: exported graphs and, between them, the convolutions that they leave out."""

    region_formats = FLOAT_REGIONS

    def __init__(self, graphs: ExportedNetwork, convolutions: Convolutions) -> None:
        self.graphs = graphs
        self.convolutions = convolutions

    def trunk(self, pixels: np.ndarray, windows: np.ndarray, observe: Observe = ignore) -> Trunk:
        """The graph yields the pyramid before its 3x3 convolutions, or the single map."""
        maps, objectness, deltas = self.convolutions.trunk(self.graphs.run_trunk(pixels, windows))
        return self.graphs.make_trunk(maps, objectness, deltas, pixels)

    def box_head(self, pooled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        class_logits, box_deltas = self.graphs.engine.run("box_head", flat_rows(self.convolutions.box(pooled)))
        return class_logits, box_deltas

    def mask_head(self, pooled: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return self.graphs.engine.run("mask_head", self.convolutions.mask(pooled), labels)[0]


@dataclass(frozen=True)
class Layer:
    """A convolution: weight (C', C, 3, 3) and bias (C',), float32; `relu` if a ReLU follows."""

    weight: np.ndarray
    bias: np.ndarray
    relu: bool


@dataclass(frozen=True)
class Layers:
    """The convolutions behind the backbone: parallel ones of the pyramid, one a level or none; consecutive ones of the
    others. `anchors` has the weight (5 A, C') and bias (5 A,) of the RPN's logits and then its deltas.
    """

    pyramid: list[Layer]
    rpn: list[Layer]
    box: list[Layer]
    mask: list[Layer]
    anchors: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray], channels: int) -> Layers:
        """Take float32 `arrays` by name: ``pyramid.0.weight``, ``pyramid.0.bias`` and so on. `channels`: C of the maps.

        Raises `ValueError` if the arrays do not fit together.
        """
        pyramid, rpn, box, mask = (_layers(arrays, part, channels) for part in ("pyramid", "rpn", "box", "mask"))
        return cls(pyramid, rpn, box, mask, _pair(arrays, "anchors", (-1, len(rpn[-1].bias) if rpn else channels)))


class Convolutions:
    """Computes `Layers`, given as `Layers.of` takes them. Results are valid until the thread's next call."""

    def __init__(self, arrays: dict[str, np.ndarray], channels: int) -> None:
        self.scratch = Scratch()
        layers = Layers.of(arrays, channels)
        weight, self.anchor_bias = layers.anchors
        self.anchor_weight = np.ascontiguousarray(weight.T)
        self.layers = {
            part: [replace(layer, weight=transform_weights(layer.weight)) for layer in getattr(layers, part)]
            for part in ("pyramid", "rpn", "box", "mask")
        }

    @one_blas_thread
    def trunk(self, merged: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Merged maps of the pyramid, or its single map -> maps, objectness (B, K) and deltas (B, K, 4)."""
        levels = maps = merged
        if self.layers["pyramid"]:
            pairs = zip(self.layers["pyramid"], merged, strict=True)
            maps = [self._convolve(layer, sums, f"map {level}") for level, (layer, sums) in enumerate(pairs)]
            levels = [*maps, np.ascontiguousarray(maps[-1][:, ::2, ::2])]
        objectness, deltas = [], []
        for level in levels:
            hidden = self._tower("rpn", level)
            outputs = hidden.reshape(len(hidden), -1, hidden.shape[-1]) @ self.anchor_weight + self.anchor_bias
            per_cell = outputs.shape[-1] // 5
            objectness.append(outputs[..., :per_cell].reshape(len(hidden), -1))
            deltas.append(outputs[..., per_cell:].reshape(len(hidden), -1, 4))
        return maps, np.concatenate(objectness, 1), np.concatenate(deltas, 1)

    def box(self, pooled: np.ndarray) -> np.ndarray:
        """Convolutions of the box head: (R, S, S, C) -> (R, S, S, C)."""
        return self._tower("box", pooled)

    def mask(self, pooled: np.ndarray) -> np.ndarray:
        """Convolutions of the mask head: (R, S, S, C) -> (R, S, S, C')."""
        return self._tower("mask", pooled)

    def _tower(self, part: str, maps: np.ndarray) -> np.ndarray:
        for k, layer in enumerate(self.layers[part]):
            maps = self._convolve(layer, maps, f"tower {k % 2}")
        return maps

    def _convolve(self, layer: Layer, maps: np.ndarray, name: str) -> np.ndarray:
        """Maps (B, M, N, C), padded with zeros -> (B, M, N, C'). The weight of `layer` is transformed."""
        out = self.scratch.array(name, *maps.shape[:3], len(layer.bias))
        convolve(maps, layer.weight, layer.bias, out, relu=layer.relu)
        return out


def _layers(arrays: dict[str, np.ndarray], part: str, channels: int) -> list[Layer]:
    """The layers of a part: parallel ones of the pyramid, consecutive ones of the others."""
    parallel = part == "pyramid"
    layers: list[Layer] = []
    while f"{part}.{len(layers)}.weight" in arrays:
        name = f"{part}.{len(layers)}"
        weight, bias = _pair(arrays, name, (-1, -1, 3, 3))
        n_inputs = len(layers[-1].bias) if layers and not parallel else channels
        if weight.shape[1] != n_inputs:
            raise ValueError(f"{name} takes {weight.shape[1]} channels, but gets {n_inputs}")
        layers.append(Layer(weight, bias, relu=not parallel))
    return layers


def _pair(arrays: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of a layer; `shape` is that of the weight, with -1 for any length."""
    for kind in ("weight", "bias"):
        if f"{name}.{kind}" not in arrays:
            raise ValueError(f"{name}.{kind} is missing")
    weight, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
    fits = weight.ndim == len(shape) and all(b in (a, -1) for a, b in zip(weight.shape, shape, strict=True))
    if not fits or bias.shape != weight.shape[:1] or {weight.dtype, bias.dtype} != {np.dtype(np.float32)}:
        expected = ", ".join("any" if a == -1 else str(a) for a in shape)
        actual = f"{weight.dtype} {weight.shape} and {bias.dtype} {bias.shape}"
        raise ValueError(f"{name} has {actual}; expected float32 ({expected}) and one bias for each output")
    return weight, bias
