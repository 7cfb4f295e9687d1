"""RoIAlign on channels-last maps, forward and backward, with separable sampling.

    feature (B, H, W, C), boxes (R, 4) -> rows of the map -> strip (W, C) -> its columns -> bins (R, S, S, C)

The average of a bin's bilinear samples is a weighting of rows times one of columns: a row of bins gathers rows of the
map into a strip, and a bin gathers its columns. That takes ``2 g`` instead of ``4 g^2`` multiplications per value.

Maps and the bins' gradients are float32 or bfloat16 (as uint16), bins also uint8; sums and the maps' gradients are
float32.

    R boxes, S bins per side, g samples per bin and side, T = 2 g taps, B images, H x W map cells, C channels
"""

import numpy as np
from numba import njit, prange

from maskrcnn.kernels.formats import read, write
from maskrcnn.kernels.parallel import parallel

SHIFTED, ALIGNED, CORNERS = 0, 1, 2
"""Sample positions: without the half-pixel shift, with it, or one sample per bin from corner to corner of the box."""


@njit(cache=True, nogil=True)
def axis_samples(low, high, scale, size, samples, pooling):
    """Return first sample, sample spacing and samples per bin along one axis. `scale` converts pixels to map cells."""
    shift = 0.5 if pooling == ALIGNED else 0.0
    start, extent = low * scale - shift, (high - low) * scale
    if pooling == SHIFTED:
        extent = max(extent, 1.0)
    if samples == 0:
        # Count in float32 like torchvision: the extent may lie on the border of one more sample.
        offset = np.float32(shift)
        cells = (high * np.float32(scale) - offset) - (low * np.float32(scale) - offset)
        if pooling == SHIFTED:
            cells = max(cells, np.float32(1.0))
        samples = max(int(np.ceil(cells / np.float32(size))), 0)
    step = extent / size
    return start + 0.5 * step / max(samples, 1), step / max(samples, 1), samples


@njit(cache=True, nogil=True)
def _taps(box, axis, positions, scale, length, size, samples, pooling):
    """Return index and weight (S, T) of the cells of each bin along one axis, and the half-open range of cells used."""
    start, step, n = axis_samples(box[axis], box[axis + 2], scale, size, samples, pooling)
    index = np.zeros((size, 2 * n), np.int64)
    weight = np.zeros((size, 2 * n), np.float32)
    first, last = length, -1
    min_position, max_position = (0.0, length - 1.0) if pooling == CORNERS else (-1.0, float(length))
    for bin_index in range(size):
        for sample in range(n):
            position = start + (bin_index * n + sample) * step
            if pooling == CORNERS:
                position = float(positions[axis, bin_index])
            if position < min_position or position > max_position:
                first, last = min(first, 0), max(last, 0)
                continue
            position = max(position, 0.0)
            cell = int(position)
            fraction = position - cell
            if cell >= length - 1:
                cell, fraction = length - 1, 0.0
            next_cell = min(cell + 1, length - 1)
            t = 2 * sample
            index[bin_index, t], index[bin_index, t + 1] = cell, next_cell
            weight[bin_index, t], weight[bin_index, t + 1] = (1.0 - fraction) / n, fraction / n
            first, last = min(first, cell), max(last, next_cell)
    return index, weight, min(first, last + 1), last + 1


@parallel(fastmath=True)
def roi_align_forward(feature, boxes, positions, image_index, rows_of_out, scale, samples, pooling, low, step, out):
    """Pool boxes (R, 4) of images `image_index` (R,) into ``out[rows_of_out]``, (.., S, S, C).

    Bins of uint8 count `step` from `low`. With CORNERS, `positions` (R, 2, S) holds the samples as x and y in map
    cells. The caller computes them: here the compiler may fuse multiplication and addition, which would move a sample
    on the map's last cell off the map.
    """
    height, width, channels = feature.shape[1:]
    size = out.shape[1]
    for r in prange(len(boxes)):
        rows, row_w, _, _ = _taps(boxes[r], 1, positions[r], scale, height, size, samples, pooling)
        columns, column_w, x1, x2 = _taps(boxes[r], 0, positions[r], scale, width, size, samples, pooling)
        image = feature[image_index[r]]
        strip = np.empty((x2 - x1, channels), np.float32)
        sums = np.empty(channels, np.float32)
        for by in range(size):
            strip[:] = 0.0
            for t in range(rows.shape[1]):
                w = row_w[by, t]
                if w == 0.0:
                    continue
                source = image[rows[by, t], x1:x2]
                for x in range(x2 - x1):
                    for c in range(channels):
                        strip[x, c] += w * read(source[x, c])
            for bx in range(size):
                sums[:] = 0.0
                for t in range(columns.shape[1]):
                    w = column_w[bx, t]
                    if w == 0.0:
                        continue
                    x = columns[bx, t] - x1
                    for c in range(channels):
                        sums[c] += w * strip[x, c]
                write(out[rows_of_out[r], by, bx], sums, low, step)


@parallel(fastmath=True)
def roi_align_backward(grad, boxes, positions, image_index, rows_of_grad, scale, samples, pooling, parts, out):
    """Add the map's gradient to `out` (B, H, W, C), given the bins' gradients ``grad[rows_of_grad]``, (.., S, S, C).

    Each of `parts` threads processes all boxes for a slice of the channels. No two threads write to one value, and the
    order of additions is fixed: results are the same to the last bit.
    """
    height, width, channels = out.shape[1:]
    size = grad.shape[1]
    for part in prange(parts):
        c1, c2 = part * channels // parts, (part + 1) * channels // parts
        strip = np.empty((width, c2 - c1), np.float32)
        for r in range(len(boxes)):
            rows, row_w, _, _ = _taps(boxes[r], 1, positions[r], scale, height, size, samples, pooling)
            columns, column_w, x1, x2 = _taps(boxes[r], 0, positions[r], scale, width, size, samples, pooling)
            image = out[image_index[r]]
            for by in range(size):
                strip[x1:x2] = 0.0
                for bx in range(size):
                    cell = grad[rows_of_grad[r], by, bx, c1:c2]
                    for t in range(columns.shape[1]):
                        w = column_w[bx, t]
                        if w == 0.0:
                            continue
                        x = columns[bx, t]
                        for c in range(c2 - c1):
                            strip[x, c] += w * read(cell[c])
                for t in range(rows.shape[1]):
                    w = row_w[by, t]
                    if w == 0.0:
                        continue
                    target = image[rows[by, t], x1:x2, c1:c2]
                    for x in range(x2 - x1):
                        for c in range(c2 - c1):
                            target[x, c] += w * strip[x1 + x, c]
