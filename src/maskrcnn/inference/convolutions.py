"""The 3x3 convolutions behind the backbone, for bundles whose graphs leave them out (`kernels.convolution`).

Pyramid, region proposal network and heads have 63 % of all operations in them where a ResNet-50 finds 100 objects at
512 x 512. Winograd's algorithm needs a quarter of the products.

    B images, maps (B, M, N, C) of each level, R regions of S x S cells, A anchors of a cell, C' channels out
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskrcnn.kernels.convolution import convolve
from maskrcnn.kernels.scratch import Scratch
from maskrcnn.kernels.threads import one_blas_thread
from maskrcnn.kernels.winograd import transform_weights


@dataclass(frozen=True)
class _Layer:
    weights: np.ndarray
    bias: np.ndarray
    relu: bool


class Convolutions:
    """Made of float32 arrays by name. What its methods return is valid until this thread's next call of them.

    ``pyramid.0.weight`` (C', C, 3, 3), ``pyramid.0.bias`` (C',), and so on for each level, none for a single map; the
    same for ``rpn``, ``box`` and ``mask``, layer by layer; ``anchors.weight`` (5 A, C'), ``anchors.bias`` (5 A,): the
    RPN's logits, then its deltas. `channels` is C of the maps. Raises `ValueError` for arrays that are no such set.
    """

    def __init__(self, weights: dict[str, np.ndarray], channels: int) -> None:
        self.scratch = Scratch()
        self.layers = {part: _layers(weights, part, channels) for part in ("pyramid", "rpn", "box", "mask")}
        hidden = self.layers["rpn"][-1].weights.shape[2] if self.layers["rpn"] else channels
        weight, bias = _pair(weights, "anchors", (-1, hidden))
        self.anchor_weight, self.anchor_bias = np.ascontiguousarray(weight.T), bias

    @one_blas_thread
    def trunk(self, merged: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Sums of the pyramid, or its single map -> maps, objectness (B, K) and deltas (B, K, 4) of K anchors."""
        levels = maps = merged
        if self.layers["pyramid"]:
            pairs = zip(self.layers["pyramid"], merged, strict=True)
            maps = [self._convolve(layer, sums, f"map {level}") for level, (layer, sums) in enumerate(pairs)]
            levels = [*maps, np.ascontiguousarray(maps[-1][:, ::2, ::2])]
        objectness, deltas = [], []
        for level in levels:
            hidden = self._tower("rpn", level)
            answers = hidden.reshape(len(hidden), -1, hidden.shape[-1]) @ self.anchor_weight + self.anchor_bias
            anchors = answers.shape[-1] // 5
            objectness.append(answers[..., :anchors].reshape(len(hidden), -1))
            deltas.append(answers[..., anchors:].reshape(len(hidden), -1, 4))
        return maps, np.concatenate(objectness, 1), np.concatenate(deltas, 1)

    def box(self, pooled: np.ndarray) -> np.ndarray:
        """(R, S, S, C) -> (R, S, S, C), as the box head's layers take it."""
        return self._tower("box", pooled)

    def mask(self, pooled: np.ndarray) -> np.ndarray:
        """(R, S, S, C) -> (R, S, S, C'), as the mask head's deconvolution takes it."""
        return self._tower("mask", pooled)

    def _tower(self, part: str, maps: np.ndarray) -> np.ndarray:
        for k, layer in enumerate(self.layers[part]):
            maps = self._convolve(layer, maps, f"tower {k % 2}")
        return maps

    def _convolve(self, layer: _Layer, maps: np.ndarray, name: str) -> np.ndarray:
        """Maps (B, M, N, C), padded with zeros -> (B, M, N, C')."""
        out = self.scratch.array(name, *maps.shape[:3], layer.weights.shape[2])
        convolve(maps, layer.weights, layer.bias, out, relu=layer.relu)
        return out


def _layers(weights: dict[str, np.ndarray], part: str, channels: int) -> list[_Layer]:
    """The pyramid's layers stand side by side, those of other parts one behind the other."""
    aside = part == "pyramid"
    layers: list[_Layer] = []
    while f"{part}.{len(layers)}.weight" in weights:
        name = f"{part}.{len(layers)}"
        weight, bias = _pair(weights, name, (-1, -1, 3, 3))
        given = layers[-1].weights.shape[2] if layers and not aside else channels
        if weight.shape[1] != given:
            raise ValueError(f"{name} takes {weight.shape[1]} channels, and is given {given}")
        layers.append(_Layer(transform_weights(weight), bias, relu=not aside))
    return layers


def _pair(weights: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Weight, of this shape where it is not -1, and bias of a layer."""
    for kind in ("weight", "bias"):
        if f"{name}.{kind}" not in weights:
            raise ValueError(f"{name}.{kind} is missing")
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    fits = weight.ndim == len(shape) and all(b in (a, -1) for a, b in zip(weight.shape, shape, strict=True))
    if not fits or bias.shape != weight.shape[:1] or {weight.dtype, bias.dtype} != {np.dtype(np.float32)}:
        wanted = ", ".join("any" if a == -1 else str(a) for a in shape)
        has = f"{weight.dtype} {weight.shape} and {bias.dtype} {bias.shape}"
        raise ValueError(f"{name} has {has}, not float32 ({wanted}) and a bias for each of the first")
    return weight, bias
