"""Transforms of Winograd's algorithm F(4x4, 3x3), which needs a quarter of the multiplications of a 3x3 convolution.

    tile of 6 x 6 input cells -> 36 sums -> 36 matrix products over the channels -> 4 x 4 output cells

The method is from Lavin and Gray 2016. Rows and columns of a tile and of the kernel are polynomials; they are
multiplied by evaluating them at the points 0, +-sqrt(1/2), +-sqrt(2) and infinity. These points had the smallest
float32 error of a dozen pairs tried, less than half the error of the common +-1 and +-2. With
M(x) = x (x^2 - 1/2) (x^2 - 2), the sum of a point p weights the cells with the coefficients of M(x) / (x - p), and the
sum of infinity with the coefficients of M.

B images of (H, W, C), T tiles in a block, C' output channels
"""

from math import sqrt

import numpy as np
from numba import njit

from maskrcnn.winograd.threads import one_blas_thread

SIDE = 4
"""Output cells of a tile along a side."""

PRODUCTS = (SIDE + 2) ** 2
"""Matrix products of a tile."""

ROOT_HALF, ROOT_TWO = np.float32(sqrt(0.5)), np.float32(sqrt(2))
HALF, TWO, FIVE_HALVES = np.float32(0.5), np.float32(2), np.float32(2.5)


def _kernel_sums() -> np.ndarray:
    """Return (36, 9): evaluates a kernel at each pair of points and divides by the distances to the other points."""
    points = np.array([sqrt(0.5), -sqrt(0.5), sqrt(2), -sqrt(2)])
    other_pair = points[[2, 2, 0, 0]]
    scale = 2 * points**2 * (points**2 - other_pair**2)
    rows = np.stack([np.ones(4), points, points**2], 1) / scale[:, None]
    matrix = np.concatenate([[[1, 0, 0]], rows, [[0, 0, 1]]])  # (6, 3)
    return np.kron(matrix, matrix).astype(np.float32)


KERNEL_SUMS = _kernel_sums()


@one_blas_thread
def transform_weights(weight: np.ndarray) -> np.ndarray:
    """Kernels (C', C, 3, 3) -> factors of the matrix products (36, C, C'), float32."""
    flat = np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).reshape(9, -1)
    return (KERNEL_SUMS @ flat).reshape(PRODUCTS, weight.shape[1], weight.shape[0])


def weights_of_sums(sums: np.ndarray) -> np.ndarray:
    """Gradients (36, C, C') -> gradients (C', C, 3, 3) of the kernels: the transpose of `transform_weights`."""
    flat = KERNEL_SUMS.T @ sums.reshape(PRODUCTS, -1)
    return flat.reshape(3, 3, *sums.shape[1:]).transpose(3, 2, 0, 1)


@njit(cache=True, nogil=True)
def count_tiles(length):
    """Return the number of tiles that cover `length` cells."""
    return (length + SIDE - 1) // SIDE


@njit(cache=True, nogil=True)
def _tile_origin(tile, height, width):
    """Return the image of a tile and the row and column of its first output cell."""
    rows, columns = count_tiles(height), count_tiles(width)
    return tile // (rows * columns), tile // columns % rows * SIDE, tile % columns * SIDE


@njit(cache=True, nogil=True)
def _sums(d0, d1, d2, d3, d4, d5):
    """Six cells of a row -> sums for the points 0, sqrt(1/2), -sqrt(1/2), sqrt(2), -sqrt(2), infinity."""
    half_even, half_odd = d4 - TWO * d2, ROOT_HALF * d3 - ROOT_TWO * d1
    two_even, two_odd = d4 - HALF * d2, ROOT_TWO * d3 - ROOT_HALF * d1
    return (
        d0 - FIVE_HALVES * d2 + d4,
        half_even + half_odd,
        half_even - half_odd,
        two_even + two_odd,
        two_even - two_odd,
        d1 - FIVE_HALVES * d3 + d5,
    )


@njit(cache=True, nogil=True)
def _cells(m0, m1, m2, m3, m4, m5):
    """Six products in the order of the points -> four cells of a row: sums weighted with powers of the points."""
    half_sum, half_difference, two_sum, two_difference = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return (
        m0 + half_sum + two_sum,
        ROOT_HALF * half_difference + ROOT_TWO * two_difference,
        HALF * half_sum + TWO * two_sum,
        HALF * ROOT_HALF * half_difference + TWO * ROOT_TWO * two_difference + m5,
    )


@njit(cache=True, nogil=True)
def _spread(y0, y1, y2, y3):
    """Transpose of `_cells`: four cells of a row -> six products in the order of the points."""
    half_even, half_odd = y0 + HALF * y2, ROOT_HALF * (y1 + HALF * y3)
    two_even, two_odd = y0 + TWO * y2, ROOT_TWO * (y1 + TWO * y3)
    return y0, half_even + half_odd, half_even - half_odd, two_even + two_odd, two_even - two_odd, y3


@njit(cache=True, nogil=True, fastmath={"contract"})
def tiles_in(maps, first, out):
    """Write the sums of tile ``first + t`` of zero-padded maps (B, H, W, C) to ``out[:, t]``; `out` is (36, T, C)."""
    height, width, channels = maps.shape[1:]
    patch = np.empty((6, 6, channels), np.float32)
    zeros = np.zeros(channels, np.float32)
    for t in range(out.shape[1]):
        image, top, left = _tile_origin(first + t, height, width)
        for x in range(6):
            column = left + x - 1
            inside = 0 <= column < width
            d0 = maps[image, top - 1, column] if inside and top > 0 else zeros
            d1 = maps[image, top, column] if inside else zeros
            d2 = maps[image, top + 1, column] if inside and top + 1 < height else zeros
            d3 = maps[image, top + 2, column] if inside and top + 2 < height else zeros
            d4 = maps[image, top + 3, column] if inside and top + 3 < height else zeros
            d5 = maps[image, top + 4, column] if inside and top + 4 < height else zeros
            for c in range(channels):
                sums = _sums(d0[c], d1[c], d2[c], d3[c], d4[c], d5[c])
                for k in range(6):
                    patch[k, x, c] = sums[k]
        for y in range(6):
            row = patch[y]
            for c in range(channels):
                sums = _sums(row[0, c], row[1, c], row[2, c], row[3, c], row[4, c], row[5, c])
                for k in range(6):
                    out[6 * y + k, t, c] = sums[k]


@njit(cache=True, nogil=True, fastmath={"contract"})
def tiles_out(products, first, bias, relu, out):
    """Write the output cells of the tiles to `out` (B, H, W, C'), from products (36, T, C') and bias (C',)."""
    height, width, channels = out.shape[1:]
    floor = np.float32(0.0) if relu else np.float32(-np.inf)
    strip = np.empty((SIDE, 6, channels), np.float32)
    cells = np.empty((SIDE, channels), np.float32)
    for t in range(products.shape[1]):
        image, top, left = _tile_origin(first + t, height, width)
        for x in range(6):
            m0, m1, m2 = products[x, t], products[6 + x, t], products[12 + x, t]
            m3, m4, m5 = products[18 + x, t], products[24 + x, t], products[30 + x, t]
            for c in range(channels):
                column = _cells(m0[c], m1[c], m2[c], m3[c], m4[c], m5[c])
                for k in range(SIDE):
                    strip[k, x, c] = column[k]
        for y in range(min(SIDE, height - top)):
            row = strip[y]
            for c in range(channels):
                sums = _cells(row[0, c], row[1, c], row[2, c], row[3, c], row[4, c], row[5, c])
                for k in range(SIDE):
                    cells[k, c] = max(sums[k] + bias[c], floor)
            for x in range(min(SIDE, width - left)):
                out[image, top + y, left + x] = cells[x]


@njit(cache=True, nogil=True, fastmath={"contract"})
def tiles_back(gradients, first, out):
    """Transpose of `tiles_out`: gradients (B, H, W, C') of the cells -> `out` (36, T, C'), those of the products."""
    height, width, channels = gradients.shape[1:]
    strip = np.empty((6, SIDE, channels), np.float32)
    zeros = np.zeros(channels, np.float32)
    for t in range(out.shape[1]):
        image, top, left = _tile_origin(first + t, height, width)
        for x in range(SIDE):
            inside = left + x < width
            y0 = gradients[image, top, left + x] if inside else zeros
            y1 = gradients[image, top + 1, left + x] if inside and top + 1 < height else zeros
            y2 = gradients[image, top + 2, left + x] if inside and top + 2 < height else zeros
            y3 = gradients[image, top + 3, left + x] if inside and top + 3 < height else zeros
            for c in range(channels):
                products = _spread(y0[c], y1[c], y2[c], y3[c])
                for k in range(6):
                    strip[k, x, c] = products[k]
        for y in range(6):
            row = strip[y]
            for c in range(channels):
                products = _spread(row[0, c], row[1, c], row[2, c], row[3, c])
                for k in range(6):
                    out[6 * y + k, t, c] = products[k]
