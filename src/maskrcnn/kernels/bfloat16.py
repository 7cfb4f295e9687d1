"""bfloat16 in kernels. numba has no such type: arrays of it are uint16 views, and a kernel computes in float32.

A bfloat16 is the upper half of a float32.
"""

import numpy as np
from numba import types
from numba.extending import overload


def read(value):
    """Return an element of a float32 array, or of a bfloat16 array (uint16), as float32. For kernels only."""
    raise NotImplementedError


def write(values, sums):
    """Copy `sums` (C,) float32 to `values` (C,), rounded to nearest, ties to even, if it is bfloat16 (uint16).

    NaN stays NaN. For kernels only.
    """
    raise NotImplementedError


@overload(read, inline="always")
def _read(value):
    if value == types.uint16:
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


@overload(write)
def _write(values, sums):
    if values.dtype == types.uint16:
        return _write_rounded
    return _copy


def _copy(values, sums):
    for c in range(len(sums)):
        values[c] = sums[c]


def _write_rounded(values, sums):
    for c in range(len(sums)):
        bits = np.float32(sums[c]).view(np.uint32)
        upper = bits >> np.uint32(16)
        if (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000):  # NaN, which rounding could turn into infinity
            values[c] = np.uint16(upper | np.uint32(0x40))
        else:
            values[c] = np.uint16((bits + np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16))
