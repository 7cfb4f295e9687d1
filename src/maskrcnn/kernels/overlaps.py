"""Give each pixel to the first of several masks: runs, order -> runs without overlaps, over a bitmap of the image."""

import numpy as np
from numba import njit

ALL_BITS = np.uint64(2**64 - 1)
NO_BITS = np.uint64(0)


@njit(cache=True, nogil=True)
def visible_runs(runs, offsets, order, min_fraction, covered):
    """Return what earlier masks leave of each mask in `order`: runs, and the masks' offsets (len(order) + 1,) in them.

    A mask with less than `min_fraction` of its pixels free gets no runs and covers nothing. `covered` holds a bit per
    pixel, 64 to a uint64 word; it must be zero. Cost grows with the runs, 64 pixels at a time.
    """
    out = np.empty((len(runs) + 1, 2), np.int64)
    out_offsets = np.zeros(len(order) + 1, np.int64)
    n = 0
    for k in range(len(order)):
        first_run, end_run = offsets[order[k]], offsets[order[k] + 1]
        area = free = 0
        for i in range(first_run, end_run):
            end = runs[i, 0] + runs[i, 1]
            area += runs[i, 1]
            free_start = _find_bit(covered, ALL_BITS, runs[i, 0], end)
            while free_start < end:
                free_end = _find_bit(covered, NO_BITS, free_start, end)
                if n == len(out):
                    larger = np.empty((2 * len(out), 2), np.int64)
                    larger[:n] = out
                    out = larger
                out[n, 0], out[n, 1] = free_start, free_end - free_start
                n += 1
                free += free_end - free_start
                free_start = _find_bit(covered, ALL_BITS, free_end, end)
        if free < min_fraction * area:
            n = out_offsets[k]
        for i in range(out_offsets[k], n):
            _set_bits(covered, out[i, 0], out[i, 0] + out[i, 1])
        out_offsets[k + 1] = n
    return out[:n], out_offsets


@njit(cache=True, nogil=True)
def _find_bit(words, flipped, start, end):
    """Return the first position in ``[start, end)`` whose bit of ``words ^ flipped`` is set, or `end`."""
    position = start
    while position < end:
        word = (words[position >> 6] ^ flipped) >> np.uint64(position & 63)
        if word != NO_BITS:
            return min(position + _trailing_zeros(word), end)
        position = (position | 63) + 1
    return end


@njit(cache=True, nogil=True)
def _set_bits(words, start, end):
    """Set the bits of positions ``[start, end)``, which are not empty."""
    first, last = start >> 6, (end - 1) >> 6
    first_bits = ALL_BITS << np.uint64(start & 63)
    last_bits = ALL_BITS >> np.uint64(63 - ((end - 1) & 63))
    if first == last:
        words[first] |= first_bits & last_bits
        return
    words[first] |= first_bits
    words[first + 1 : last] = ALL_BITS
    words[last] |= last_bits


@njit(cache=True, nogil=True)
def _trailing_zeros(word):
    """Count the zero bits below the lowest set bit of a uint64: the population count of a mask of these bits."""
    below = ~word & (word - np.uint64(1))
    below -= (below >> np.uint64(1)) & np.uint64(0x5555555555555555)
    below = (below & np.uint64(0x3333333333333333)) + ((below >> np.uint64(2)) & np.uint64(0x3333333333333333))
    below = (below + (below >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((below * np.uint64(0x0101010101010101)) >> np.uint64(56))
