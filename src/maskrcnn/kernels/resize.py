"""Plain bilinear scaling of a picture to floats."""

import numpy as np
from numba import njit, prange


@njit(cache=True, nogil=True)
def _source(out, length, step):
    """The two source pixels of each of `out` ones and the weight of the second; the border is repeated.

    A position is rounded to float32 once, as by the fused multiply-add of torch's kernels on AVX2 and later.
    """
    first = np.empty(out, np.int64)
    second = np.empty(out, np.int64)
    weight = np.empty(out, np.float32)
    for i in range(out):
        position = max(np.float32(np.float64(step) * (i + 0.5) - 0.5), np.float32(0.0))
        first[i] = min(int(position), length - 1)
        second[i] = min(first[i] + 1, length - 1)
        weight[i] = position - np.float32(first[i])
    return first, second, weight


@njit(cache=True, nogil=True, parallel=True)
def resize_bilinear(image, h, w):
    """Image (H, W, 3) -> float32 (h, w, 3): samples at pixel centres, no averaging (torch's ``interpolate``)."""
    top, bottom, wy = _source(h, image.shape[0], np.float32(image.shape[0]) / np.float32(h))
    left, right, wx = _source(w, image.shape[1], np.float32(image.shape[1]) / np.float32(w))
    out = np.empty((h, w, 3), np.float32)
    one = np.float32(1.0)
    for y in prange(h):
        fy = wy[y]
        for x in range(w):
            fx = wx[x]
            for c in range(3):
                above = (one - fx) * image[top[y], left[x], c] + fx * image[top[y], right[x], c]
                below = (one - fx) * image[bottom[y], left[x], c] + fx * image[bottom[y], right[x], c]
                out[y, x, c] = (one - fy) * above + fy * below
    return out
