"""Encode dense masks: bytes in memory order -> places where neighbours differ -> runs (`kernels.runs`)."""

import numpy as np
from numba import njit

NO_BITS = np.uint64(0)
LINE, LINE_WORDS = 64, 8
"""Pixels of a cache line, a byte each, and their words of 8."""


@njit(cache=True, nogil=True)
def runs_of_columns(pixels):
    """Return the runs of a dense mask in column-major memory, flat uint8 (W * H); nonzero pixels are the mask."""
    return _runs_between(_changes(pixels, 1))


@njit(cache=True, nogil=True)
def runs_of_rows(pixels, height, width):
    """Return the runs of a dense mask in row-major memory, flat uint8 (H * W); nonzero pixels are the mask.

    A pixel that differs from the one above it begins or ends a run of its column. The memory is read in its order,
    and only the changes are sorted by column: walking down the columns would miss the cache at every pixel.
    """
    changes = _changes(pixels, width)
    next_edge = np.zeros(width + 1, np.int64)  # counting sort: the place of each column's next edge
    row_start = 0
    for change in changes:
        while change >= row_start + width:
            row_start += width
        next_edge[change - row_start + 1] += 1
    for x in range(width):
        next_edge[x + 1] += next_edge[x]
    edges = np.empty(len(changes), np.int64)
    row = row_start = 0
    for change in changes:
        while change >= row_start + width:
            row, row_start = row + 1, row_start + width
        x = change - row_start
        edges[next_edge[x]] = x * height + row
        next_edge[x] += 1
    return _runs_between(edges)


@njit(cache=True, nogil=True)
def _changes(pixels, distance):
    """Return each index, up to ``len(pixels) + distance``, where a pixel and the one `distance` before it differ.

    They differ if one is zero and the other is not. Pixels beyond both ends are zero.
    """
    n_pixels = len(pixels)
    outside = np.zeros(distance, np.uint8)
    out = np.empty(512 + n_pixels // 32, np.int64)
    if n_pixels == 0:
        return out[:0]
    out, n = _append_differences(outside, pixels[:distance], 0, out, 0)
    out, n = _append_differences(pixels[: n_pixels - distance], pixels[distance:], distance, out, n)
    out, n = _append_differences(pixels[n_pixels - distance :], outside, n_pixels, out, n)
    return out[:n]


@njit(cache=True, nogil=True)
def _append_differences(a, b, first_index, out, n):
    """Append ``first_index + i`` for each i where one of `a` and `b` is zero and the other is not. Return out and n.

    Most stretches of a mask equal their neighbours: cache lines are compared first, then words, whose bytes are pixels
    in little-endian order. Lines may begin at any address, which x86-64 and ARM64 allow.
    """
    n_lines = len(a) // LINE
    words_a, words_b = a[: n_lines * LINE].view(np.uint64), b[: n_lines * LINE].view(np.uint64)
    line = _differing_line(words_a, words_b, 0, n_lines)
    while line < n_lines:
        out = _with_space(out, n + LINE)
        for k in range(LINE_WORDS * line, LINE_WORDS * (line + 1)):
            differing = _nonzero_bytes(words_a[k]) ^ _nonzero_bytes(words_b[k])
            while differing != NO_BITS:
                out[n] = first_index + 8 * k + _lowest_byte(differing)
                n += 1
                differing &= differing - np.uint64(1)
        line = _differing_line(words_a, words_b, line + 1, n_lines)
    out = _with_space(out, n + LINE)
    for i in range(n_lines * LINE, len(a)):
        if (a[i] != 0) != (b[i] != 0):
            out[n] = first_index + i
            n += 1
    return out, n


@njit(cache=True, nogil=True)
def _differing_line(words_a, words_b, line, n_lines):
    """Return the first cache line from `line` on where `words_a` and `words_b` differ, or `n_lines`."""
    while line < n_lines:
        begin = LINE_WORDS * line
        line_a, line_b = words_a[begin : begin + LINE_WORDS], words_b[begin : begin + LINE_WORDS]
        differing = NO_BITS
        for k in range(LINE_WORDS):
            differing |= line_a[k] ^ line_b[k]
        if differing != NO_BITS:
            break
        line += 1
    return line


@njit(cache=True, nogil=True)
def _with_space(values, size):
    """Return `values`, or a copy with twice the space if they are fewer than `size`."""
    if size <= len(values):
        return values
    larger = np.empty(2 * size, values.dtype)
    larger[: len(values)] = values
    return larger


@njit(cache=True, nogil=True)
def _nonzero_bytes(word):
    """Return the uint64 with the highest bit of each byte set if that byte of `word` is not zero."""
    low_bits = np.uint64(0x7F7F7F7F7F7F7F7F)
    return (((word & low_bits) + low_bits) | word) & ~low_bits


@njit(cache=True, nogil=True)
def _lowest_byte(word):
    """Return the index of the lowest byte whose highest bit is set; `word` has no other bits, and is not zero.

    The bits below that bit hold a 1 in each byte up to it. A product adds these up in the highest byte.
    """
    ones = np.uint64(0x0101010101010101)
    return np.int64(((~word & (word - np.uint64(1)) & ones) * ones) >> np.uint64(56)) - 1


@njit(cache=True, nogil=True)
def _runs_between(edges):
    """Return runs from `edges`, starts and ends in turn. A run that starts where the last one ends joins it."""
    out = np.empty((len(edges) // 2, 2), np.int64)
    n = 0
    for k in range(0, len(edges), 2):
        if n > 0 and edges[k] == out[n - 1, 0] + out[n - 1, 1]:
            out[n - 1, 1] += edges[k + 1] - edges[k]
        else:
            out[n, 0], out[n, 1] = edges[k], edges[k + 1] - edges[k]
            n += 1
    return out if n == len(out) else out[:n].copy()
