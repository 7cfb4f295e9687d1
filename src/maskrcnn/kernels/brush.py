"""Label Studio's brush masks: runs -> bit-packed runs of RGBA values, and back.

A mask is a stream of bits, the highest bit of a byte first. The header holds the number of values (32 bits), the size
of a value in bits minus 1 (5 bits) and four sizes of lengths minus 1 (4 bits each). Packets follow: a bit that says
whether one value is repeated, the index of a size (2 bits), a length minus 1 of that size, and one value or as many as
the length says. The values are those of pixels along the rows, four a pixel; the fourth, alpha, is the mask.
"""

import numpy as np
from numba import njit

HEADER_BITS = 32 + 5 + 4 * 4
VALUE_BITS = 8
LENGTH_BITS = np.array([3, 4, 8, 16])
"""Sizes of lengths that Label Studio writes; the last one bounds a packet at 65,536 values."""

# Codes of `decode`.
OK, TRUNCATED, WRONG_COUNT, PAST_END = range(4)


@njit(cache=True, nogil=True)
def decode(data, n_values):
    """Return the runs (n, 2) along rows in the bytes `data` (uint8), a code, and the value that it is about.

    `n_values` is four times the number of pixels. Cost and memory grow with `data`, whatever its lengths say.
    """
    runs = np.empty((256, 2), np.int64)
    n_bits = 8 * len(data)
    if n_bits < HEADER_BITS:
        return runs[:0], TRUNCATED, 0
    stated = _read_bits(data, 0, 32)
    if stated != n_values:
        return runs[:0], WRONG_COUNT, stated
    value_bits = _read_bits(data, 32, 5) + 1
    length_bits = np.array([_read_bits(data, 37 + 4 * k, 4) + 1 for k in range(4)])
    position, value_index, n = HEADER_BITS, 0, 0
    while value_index < n_values:
        if position + 3 > n_bits:
            return runs[:0], TRUNCATED, value_index
        repeated = _read_bits(data, position, 1) == 1
        size = length_bits[_read_bits(data, position + 1, 2)]
        position += 3
        if position + size > n_bits:
            return runs[:0], TRUNCATED, value_index
        length = _read_bits(data, position, size) + 1
        position += size
        if value_index + length > n_values:
            return runs[:0], PAST_END, value_index
        n_read, length_of_value = (1, length) if repeated else (length, 1)
        if position + n_read * value_bits > n_bits:
            return runs[:0], TRUNCATED, value_index
        for _ in range(n_read):
            value = _read_bits(data, position, value_bits)
            position += value_bits
            # Alpha values have the indices 4p + 3.
            first, end = value_index // 4, (value_index + length_of_value) // 4
            value_index += length_of_value
            if value == 0 or end == first:
                continue
            if n > 0 and runs[n - 1, 0] + runs[n - 1, 1] == first:
                runs[n - 1, 1] += end - first
                continue
            if n == len(runs):
                larger = np.empty((2 * n, 2), np.int64)
                larger[:n] = runs
                runs = larger
            runs[n, 0], runs[n, 1] = first, end - first
            n += 1
    return runs[:n].copy(), OK, 0


@njit(cache=True, nogil=True)
def encode(runs, n_pixels):
    """Return the bytes of `runs` (n, 2) along rows: all four values of a pixel are 255 in the mask and 0 outside.

    The bytes are those of label-studio-converter, which ends in at least one zero bit.
    """
    n_packets = 2 * len(runs) + 1 + 4 * n_pixels // 2 ** LENGTH_BITS[-1]
    max_packet_bits = 3 + LENGTH_BITS[-1] + VALUE_BITS
    data = np.zeros((HEADER_BITS + n_packets * max_packet_bits) // 8 + 1, np.uint8)
    position = _write_bits(data, 0, 4 * n_pixels, 32)
    position = _write_bits(data, position, VALUE_BITS - 1, 5)
    for size in LENGTH_BITS:
        position = _write_bits(data, position, size - 1, 4)
    previous_end = 0
    for k in range(len(runs)):
        position = _write_packets(data, position, 0, 4 * (runs[k, 0] - previous_end))
        position = _write_packets(data, position, 255, 4 * runs[k, 1])
        previous_end = runs[k, 0] + runs[k, 1]
    position = _write_packets(data, position, 0, 4 * (n_pixels - previous_end))
    return data[: position // 8 + 1].copy()


@njit(cache=True, nogil=True)
def _write_packets(data, position, value, length):
    """Write `length` times `value` and return the position behind it."""
    size = 0
    while size < 3 and length > 2 ** LENGTH_BITS[size]:
        size += 1
    while length > 0:
        n = min(length, 2 ** LENGTH_BITS[size])
        position = _write_bits(data, position, 4 + size, 3)  # a repeated value, and the index of the size
        position = _write_bits(data, position, n - 1, LENGTH_BITS[size])
        position = _write_bits(data, position, value, VALUE_BITS)
        length -= n
    return position


@njit(cache=True, nogil=True)
def _read_bits(data, position, n_bits):
    """Return the number in `n_bits` bits (at most 32) from `position` on."""
    value = 0
    while n_bits > 0:
        free = 8 - position % 8
        taken = min(free, n_bits)
        value = (value << taken) | ((np.int64(data[position // 8]) >> (free - taken)) & ((1 << taken) - 1))
        position += taken
        n_bits -= taken
    return value


@njit(cache=True, nogil=True)
def _write_bits(data, position, value, n_bits):
    """Write `value` in `n_bits` bits at `position` into zeros, and return the position behind it."""
    while n_bits > 0:
        free = 8 - position % 8
        taken = min(free, n_bits)
        n_bits -= taken
        data[position // 8] |= ((value >> n_bits) & ((1 << taken) - 1)) << (free - taken)
        position += taken
    return position
