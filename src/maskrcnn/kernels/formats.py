"""Formats of numbers that kernels read and write while they compute in float32: float32, bfloat16 and uint8.

NumPy and numba have no bfloat16: arrays of it are uint16, and each number is the upper half of a float32. A uint8
counts steps from a lowest value.
"""

import numpy as np
from numba import types
from numba.extending import overload


def to_float32(bits: np.ndarray) -> np.ndarray:
    """The float32 values of bfloat16 numbers, given as uint16."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def cut_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The upper halves of float32 numbers as uint16: bfloat16 numbers, rounded towards zero."""
    return (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def read(value):
    """Return an element of a float32 array, or of a bfloat16 array (uint16), as float32. For kernels only."""
    raise NotImplementedError


def write(values, sums, low, step):
    """Copy `sums` (C,) float32 to `values` (C,), rounded to nearest if it is bfloat16 (uint16) or uint8.

    bfloat16 rounds ties to even, and NaN stays NaN. uint8 counts `step` from `low`; values outside its range become
    0 or 255. For kernels only.
    """
    raise NotImplementedError


@overload(read, inline="always")
def _read(value):
    if value == types.uint16:
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


@overload(write)
def _write(values, sums, low, step):
    if values.dtype == types.uint16:
        return _write_rounded
    if values.dtype == types.uint8:
        return _write_counts
    return _copy


def _write_counts(values, sums, low, step):
    inverse, offset = np.float32(1) / np.float32(step), np.float32(0.5) - np.float32(low) / np.float32(step)
    for c in range(len(sums)):
        values[c] = np.uint8(min(max(sums[c] * inverse + offset, np.float32(0)), np.float32(255)))


def _copy(values, sums, low, step):
    for c in range(len(sums)):
        values[c] = sums[c]


def _write_rounded(values, sums, low, step):
    for c in range(len(sums)):
        bits = np.float32(sums[c]).view(np.uint32)
        upper = bits >> np.uint32(16)
        if (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000):  # NaN, which rounding could turn into infinity
            values[c] = np.uint16(upper | np.uint32(0x40))
        else:
            values[c] = np.uint16((bits + np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16))
