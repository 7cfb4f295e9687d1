"""Multithreaded 3x3 convolutions of channels-last maps and their weight gradients, by Winograd's algorithm.

Each thread takes blocks of tiles: maps -> 36 sums of each tile -> 36 matrix products -> output cells (`transforms.py`).

B images of M x N cells, C input channels, C' output channels
"""

from __future__ import annotations

from functools import partial

import numpy as np

from maskrcnn.kernels.scratch import Scratch
from maskrcnn.winograd.threads import one_blas_thread, run_in_threads
from maskrcnn.winograd.transforms import PRODUCTS, count_tiles, tiles_back, tiles_in, tiles_out, weights_of_sums

TILES = 256
"""Tiles of 4 x 4 cells in a block. With 256 channels, a block takes 9 MB before the matrix products and 9 after."""

TILES_A_THREAD = 64
"""Minimum per thread: waking a thread for fewer takes longer than it saves."""

_scratch = Scratch()


@one_blas_thread
def convolve(
    maps: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    out: np.ndarray,
    *,
    relu: bool = False,
    threads: int | None = None,
) -> None:
    """Zero-padded `maps` (B, M, N, C), `transform_weights` (36, C, C'), bias (C',) -> `out` (B, M, N, C'), float32."""
    run_in_threads(_n_tiles(maps), TILES_A_THREAD, partial(_convolve, maps, weights, bias, relu, out), threads)


@one_blas_thread
def weight_gradient(maps: np.ndarray, gradients: np.ndarray, *, threads: int | None = None) -> np.ndarray:
    """Maps (B, M, N, C), output gradients (B, M, N, C') -> gradient (C', C, 3, 3). Its bits depend on `threads`."""
    parts: dict[int, np.ndarray] = {}

    def add_part(start: int, stop: int) -> None:
        parts[start] = _gradient_sums(maps, gradients, start, stop)

    run_in_threads(_n_tiles(maps), TILES_A_THREAD, add_part, threads)
    total, *remaining = (parts[start] for start in sorted(parts))
    for part in remaining:
        total += part
    return weights_of_sums(total)


def _n_tiles(maps: np.ndarray) -> int:
    return len(maps) * count_tiles(maps.shape[1]) * count_tiles(maps.shape[2])


def _convolve(
    maps: np.ndarray, weights: np.ndarray, bias: np.ndarray, relu: bool, out: np.ndarray, start: int, stop: int
) -> None:
    """Compute the tiles from `start` to `stop` in the calling thread."""
    channels, channels_out = weights.shape[1:]
    for first in range(start, stop, TILES):
        count = min(TILES, stop - first)
        tiles = _scratch.array("tiles", PRODUCTS, count, channels)
        products = _scratch.array("products", PRODUCTS, count, channels_out)
        tiles_in(maps, first, tiles)
        np.matmul(tiles, weights, out=products)
        tiles_out(products, first, bias, relu, out)


def _gradient_sums(maps: np.ndarray, gradients: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Sum the gradients (36, C, C') of the transformed weights over the tiles from `start` to `stop`."""
    channels, channels_out = maps.shape[3], gradients.shape[3]
    sums = np.zeros((PRODUCTS, channels, channels_out), np.float32)
    for first in range(start, stop, TILES):
        count = min(TILES, stop - first)
        tiles = _scratch.array("tiles", PRODUCTS, count, channels)
        product_gradients = _scratch.array("products", PRODUCTS, count, channels_out)
        block_sums = _scratch.array("sums", *sums.shape)
        tiles_in(maps, first, tiles)
        tiles_back(gradients, first, product_gradients)
        np.matmul(tiles.transpose(0, 2, 1), product_gradients, out=block_sums)
        sums += block_sums
    return sums
