"""RoIAlign on channels-last maps, forward and backward, with its samples split into rows and columns.

The average over a bin's bilinear samples is separable: it is a weighting of rows times a weighting of columns. So
each output row is first gathered from the map's rows into one strip, and its bins from the strip's columns, which
takes ``2 g`` (g samples a side) products for each number instead of ``4 g^2``.

    R boxes, S output cells along a side, T = 2 g taps, C channels, feature (B, H, W, C)
"""

import numpy as np
from numba import njit, prange

SHIFTED, ALIGNED, CORNERS = 0, 1, 2
"""Where samples lie: without or with the half-pixel shift, or from corner to corner of the box, one a bin."""


@njit(cache=True, nogil=True)
def _axis(low, high, scale, size, samples, pooling):
    """Of one axis of a box in pixels times `scale`: its first sample, the step between samples, the samples a bin."""
    shift = 0.5 if pooling == ALIGNED else 0.0
    start, extent = low * scale - shift, (high - low) * scale
    if pooling == SHIFTED:
        extent = max(extent, 1.0)
    if samples == 0:
        # In float32, as torchvision counts them: a box may lie on the edge of needing one more.
        offset = np.float32(shift)
        cells = (high * np.float32(scale) - offset) - (low * np.float32(scale) - offset)
        if pooling == SHIFTED:
            cells = max(cells, np.float32(1.0))
        samples = max(int(np.ceil(cells / np.float32(size))), 0)
    step = extent / size
    return start + 0.5 * step / max(samples, 1), step / max(samples, 1), samples


@njit(cache=True, nogil=True)
def _taps(box, axis, positions, scale, limit, size, samples, pooling):
    """Index and weight (S, T) of the cells that make up each bin along one axis, and the span of cells used."""
    start, step, n = _axis(box[axis], box[axis + 2], scale, size, samples, pooling)
    index = np.zeros((size, 2 * n), np.int64)
    weight = np.zeros((size, 2 * n), np.float32)
    first, last = limit, -1
    before, beyond = (0.0, limit - 1.0) if pooling == CORNERS else (-1.0, float(limit))
    for b in range(size):
        for s in range(n):
            position = start + (b * n + s) * step
            if pooling == CORNERS:
                position = float(positions[axis, b])
            if position < before or position > beyond:
                first, last = min(first, 0), max(last, 0)
                continue
            position = max(position, 0.0)
            i = int(position)
            f = position - i
            if i >= limit - 1:
                i = limit - 1
                f = 0.0
            j = min(i + 1, limit - 1)
            t = 2 * s
            index[b, t] = i
            index[b, t + 1] = j
            weight[b, t] = (1.0 - f) / n
            weight[b, t + 1] = f / n
            first, last = min(first, i), max(last, j)
    return index, weight, min(first, last + 1), last + 1


@njit(cache=True, nogil=True, parallel=True, fastmath=True)
def roi_align_forward(feature, boxes, positions, image_index, rows_of_out, scale, samples, pooling, out):
    """Pool boxes (R, 4) of images (R,) into ``out[rows_of_out]``, (.., S, S, C).

    Under CORNERS the samples are at `positions` (R, 2, S), x and y in cells, which are worked out elsewhere: a
    compiler that fuses products and sums would move those that fall on the map's last cell off it.
    """
    height, width, channels = feature.shape[1:]
    size = out.shape[1]
    for r in prange(len(boxes)):
        rows, row_w, _, _ = _taps(boxes[r], 1, positions[r], scale, height, size, samples, pooling)
        columns, column_w, x1, x2 = _taps(boxes[r], 0, positions[r], scale, width, size, samples, pooling)
        image = feature[image_index[r]]
        strip = np.empty((x2 - x1, channels), np.float32)
        for by in range(size):
            strip[:] = 0.0
            for t in range(rows.shape[1]):
                w = row_w[by, t]
                if w == 0.0:
                    continue
                source = image[rows[by, t], x1:x2]
                for x in range(x2 - x1):
                    for c in range(channels):
                        strip[x, c] += w * source[x, c]
            for bx in range(size):
                cell = out[rows_of_out[r], by, bx]
                cell[:] = 0.0
                for t in range(columns.shape[1]):
                    w = column_w[bx, t]
                    if w == 0.0:
                        continue
                    x = columns[bx, t] - x1
                    for c in range(channels):
                        cell[c] += w * strip[x, c]


@njit(cache=True, nogil=True, parallel=True, fastmath=True)
def roi_align_backward(grad, boxes, positions, image_index, rows_of_grad, scale, samples, pooling, parts, out):
    """Add to `out` (B, H, W, C) what the gradients ``grad[rows_of_grad]``, (.., S, S, C), say about the map.

    Each of `parts` threads takes a slice of the channels of all boxes: no two write to one number, and the order of
    the additions, so the result to the last bit, does not depend on their timing.
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
                            strip[x, c] += w * cell[c]
                for t in range(rows.shape[1]):
                    w = row_w[by, t]
                    if w == 0.0:
                        continue
                    target = image[rows[by, t], x1:x2, c1:c2]
                    for x in range(x2 - x1):
                        for c in range(c2 - c1):
                            target[x, c] += w * strip[x1 + x, c]
