"""The wide 3x3 convolutions of a bundle, beside its graphs, with a quarter of the products (`kernels.winograd`).

Pyramid, region proposal network and heads spend two thirds of all operations in them. In fp32 the graphs leave them out
(`inference.graphs`), and the bundle has their weights as arrays.

    B images, maps (B, M, N, C) of each level, A anchors of a cell
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numba
import numpy as np

from maskrcnn.inference.scratch import Scratch
from maskrcnn.kernels.winograd import PRODUCTS, count_tiles, tiles_in, tiles_out, transform_weights

TILES = 1024
"""So many tiles of 4 x 4 cells are worked on at a time: 38 MB before and after the product with 256 channels."""

TILES_A_THREAD = 64
"""Fewer are not worth a thread's waking."""

THREADS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]

_POOL = ThreadPoolExecutor(THREADS, "convolutions")
"""Threads that sleep when they are done. Those of OpenMP keep a core busy for milliseconds more, which the product
that follows would need: 1.37 s in place of 1.10 for the worst case of `docs/benchmarks.md`.
"""


@dataclass(frozen=True)
class _Layer:
    weights: np.ndarray
    bias: np.ndarray
    relu: bool


class Convolutions:
    """Made of weights by name: ``pyramid.0.weight`` (C', C, 3, 3), ``pyramid.0.bias`` (C',), and so on for each level;
    the same for ``rpn``, ``box`` and ``mask``, layer by layer; ``anchors.weight`` (5 A, C), ``anchors.bias``: logits
    first, then deltas.
    """

    def __init__(self, weights: dict[str, np.ndarray], scratch: Scratch) -> None:
        self.scratch = scratch
        self.layers = {
            part: [
                _Layer(transform_weights(weights[f"{part}.{k}.weight"]), weights[f"{part}.{k}.bias"], part != "pyramid")
                for k in range(sum(name.startswith(f"{part}.") for name in weights) // 2)
            ]
            for part in ("pyramid", "rpn", "box", "mask")
        }
        self.anchor_weight = np.ascontiguousarray(weights["anchors.weight"].T)
        self.anchor_bias = weights["anchors.bias"]

    def trunk(self, merged: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Sums of the pyramid, or its single map -> maps, objectness (B, K) and deltas (B, K, 4) of K anchors."""
        maps = merged
        if self.layers["pyramid"]:
            maps = [
                self._convolve(layer, sums, f"map {level}")
                for level, (layer, sums) in enumerate(zip(self.layers["pyramid"], merged, strict=True))
            ]
        levels = [*maps, np.ascontiguousarray(maps[-1][:, ::2, ::2])] if self.layers["pyramid"] else maps
        objectness, deltas = [], []
        for level in levels:
            hidden = self._tower("rpn", level)
            answers = hidden.reshape(len(hidden), -1, hidden.shape[-1]) @ self.anchor_weight + self.anchor_bias
            anchors = answers.shape[-1] // 5
            objectness.append(answers[..., :anchors].reshape(len(hidden), -1))
            deltas.append(answers[..., anchors:].reshape(len(hidden), -1, 4))
        return maps, np.concatenate(objectness, 1), np.concatenate(deltas, 1)

    def box(self, pooled: np.ndarray) -> np.ndarray:
        """(R, S, S, C) -> the same shape, as the box head's layers take it."""
        return self._tower("box", pooled)

    def mask(self, pooled: np.ndarray) -> np.ndarray:
        """(N, S, S, C) -> (N, S, S, C'), as the mask head's deconvolution takes it."""
        return self._tower("mask", pooled)

    def _tower(self, part: str, maps: np.ndarray) -> np.ndarray:
        for k, layer in enumerate(self.layers[part]):
            maps = self._convolve(layer, maps, f"tower {k % 2}")
        return maps

    def _convolve(self, layer: _Layer, maps: np.ndarray, name: str) -> np.ndarray:
        """Maps (B, M, N, C), padded with zeros -> (B, M, N, C')."""
        channels, wide = layer.weights.shape[1:]
        out = self.scratch.array(name, *maps.shape[:3], wide)
        count = len(maps) * count_tiles(maps.shape[1]) * count_tiles(maps.shape[2])
        for first in range(0, count, TILES):
            some = min(TILES, count - first)
            tiles = self.scratch.array("tiles", PRODUCTS, some, channels)
            products = self.scratch.array("products", PRODUCTS, some, wide)
            _share(some, partial(_tiles_in, maps, first, tiles))
            np.matmul(tiles, layer.weights, out=products)
            _share(some, partial(_tiles_out, products, first, layer, out))
        return out


def _tiles_in(maps: np.ndarray, first: int, tiles: np.ndarray, start: int, stop: int) -> None:
    tiles_in(maps, first, start, stop, tiles)


def _tiles_out(products: np.ndarray, first: int, layer: _Layer, out: np.ndarray, start: int, stop: int) -> None:
    tiles_out(products, first, start, stop, layer.bias, layer.relu, out)


def _share(count: int, work: Callable[[int, int], None]) -> None:
    """Call `work` with ranges that make up `count`, each in a thread."""
    parts = min(THREADS, -(-count // TILES_A_THREAD))
    ends = [count * k // parts for k in range(parts + 1)]
    for done in [_POOL.submit(work, start, stop) for start, stop in pairwise(ends)]:
        done.result()
