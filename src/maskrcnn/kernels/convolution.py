"""3x3 convolutions of channels-last maps, and their gradients, on all cores: Winograd's algorithm (`winograd.py`).

blocks of tiles, shared out among threads: tiles -> one product of matrices for each of their 36 sums -> cells

B images of (M, N, C), C' channels out
"""

from __future__ import annotations

from functools import partial

import numpy as np

from maskrcnn.kernels.scratch import Scratch
from maskrcnn.kernels.threads import one_blas_thread, share
from maskrcnn.kernels.winograd import PRODUCTS, count_tiles, tiles_back, tiles_in, tiles_out, weights_of_sums

TILES = 256
"""So many tiles of 4 x 4 cells a thread works on at a time: with 256 channels 9 MB before the product, 9 behind it."""

TILES_A_THREAD = 64
"""Fewer are not worth a thread's waking."""

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
    """Fill `out` (B, M, N, C') with the convolution of `maps` (B, M, N, C), around which is zero.

    `weights` (36, C, C') are those of `transform_weights`, `bias` is (C',). All are float32.
    """
    share(_tiles(maps), TILES_A_THREAD, partial(_convolve, maps, weights, bias, relu, out), threads)


@one_blas_thread
def weight_gradient(maps: np.ndarray, gradients: np.ndarray, *, threads: int | None = None) -> np.ndarray:
    """(C', C, 3, 3): what `gradients` (B, M, N, C') of a convolution's output say of its weights; `maps` (B, M, N, C)
    was its input. The same bits for the same number of threads.
    """
    parts: dict[int, np.ndarray] = {}

    def gather(start: int, stop: int) -> None:
        parts[start] = _sums_of_products(maps, gradients, start, stop)

    share(_tiles(maps), TILES_A_THREAD, gather, threads)
    first, *others = (parts[start] for start in sorted(parts))
    for sums in others:
        first += sums
    return weights_of_sums(first)


def _tiles(maps: np.ndarray) -> int:
    return len(maps) * count_tiles(maps.shape[1]) * count_tiles(maps.shape[2])


def _convolve(
    maps: np.ndarray, weights: np.ndarray, bias: np.ndarray, relu: bool, out: np.ndarray, start: int, stop: int
) -> None:
    """Some of the tiles, in this thread."""
    channels, channels_out = weights.shape[1:]
    for first in range(start, stop, TILES):
        some = min(TILES, stop - first)
        tiles = _scratch.array("tiles", PRODUCTS, some, channels)
        products = _scratch.array("products", PRODUCTS, some, channels_out)
        tiles_in(maps, first, tiles)
        np.matmul(tiles, weights, out=products)
        tiles_out(products, first, bias, relu, out)


def _sums_of_products(maps: np.ndarray, gradients: np.ndarray, start: int, stop: int) -> np.ndarray:
    """(36, C, C'): over some of the tiles, in this thread."""
    channels, channels_out = maps.shape[3], gradients.shape[3]
    sums = np.zeros((PRODUCTS, channels, channels_out), np.float32)
    for first in range(start, stop, TILES):
        some = min(TILES, stop - first)
        tiles = _scratch.array("tiles", PRODUCTS, some, channels)
        back = _scratch.array("products", PRODUCTS, some, channels_out)
        of_block = _scratch.array("sums", *sums.shape)
        tiles_in(maps, first, tiles)
        tiles_back(gradients, first, back)
        np.matmul(tiles.transpose(0, 2, 1), back, out=of_block)
        sums += of_block
    return sums
