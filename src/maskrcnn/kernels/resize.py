"""Bilinear resizing of images to float32, without antialiasing."""

import numpy as np
from numba import njit, prange

from maskrcnn.kernels.parallel import parallel


@njit(cache=True, nogil=True)
def _source_pixels(n_out, n_in, step):
    """Return both source pixels of each output pixel and the weight of the second. Border pixels are repeated.

    Positions are rounded to float32 once, like the fused multiply-add of torch's kernels on AVX2 and later.
    """
    first, second = np.empty(n_out, np.int64), np.empty(n_out, np.int64)
    weight = np.empty(n_out, np.float32)
    for i in range(n_out):
        position = max(np.float32(np.float64(step) * (i + 0.5) - 0.5), np.float32(0.0))
        first[i] = min(int(position), n_in - 1)
        second[i] = min(first[i] + 1, n_in - 1)
        weight[i] = position - np.float32(first[i])
    return first, second, weight


@parallel()
def resize_bilinear(image, h, w):
    """Resize `image` (H, W, 3) to (h, w, 3) float32, sampled at pixel centres like torch's ``interpolate``."""
    top, bottom, wy = _source_pixels(h, image.shape[0], np.float32(image.shape[0]) / np.float32(h))
    left, right, wx = _source_pixels(w, image.shape[1], np.float32(image.shape[1]) / np.float32(w))
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
