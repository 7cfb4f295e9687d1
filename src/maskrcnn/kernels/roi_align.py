"""RoIAlign on channels-last maps, forward and backward, with its samples split into rows and columns.

The average over a bin's bilinear samples is separable: it is a weighting of rows times a weighting of columns. So
each output row is first gathered from the map's rows into one strip, and its bins from the strip's columns, which
takes ``2 g`` (g samples a side) products for each number instead of ``4 g^2``.

    R boxes, S output cells along a side, T = 2 g taps, C channels, feature (B, H, W, C)
"""

import numpy as np
from numba import njit, prange


@njit(cache=True, nogil=True, fastmath=True)
def _axis_taps(low, high, limit, size, samples, aligned, index, weight):
    """Fill index and weight (S, T) for one axis of one box, already in cells of the map; returns the span used."""
    extent = high - low
    if not aligned:
        extent = max(extent, 1.0)
    step = extent / size
    first, last = limit, -1
    for b in range(size):
        for s in range(samples):
            position = low + (b + (s + 0.5) / samples) * step
            t = 2 * s
            if position < -1.0 or position > limit:
                index[b, t] = index[b, t + 1] = 0
                weight[b, t] = weight[b, t + 1] = 0.0
                first, last = min(first, 0), max(last, 0)
                continue
            position = max(position, 0.0)
            i = int(position)
            f = position - i
            if i >= limit - 1:
                i = limit - 1
                f = 0.0
            j = min(i + 1, limit - 1)
            index[b, t] = i
            index[b, t + 1] = j
            weight[b, t] = (1.0 - f) / samples
            weight[b, t + 1] = f / samples
            first, last = min(first, i), max(last, j)
    return first, last + 1


@njit(cache=True, nogil=True, fastmath=True)
def _taps_of_box(box, scale, offset, hw, size, samples, aligned, rows, row_w, columns, column_w):
    _axis_taps(box[1] * scale - offset, box[3] * scale - offset, hw[0], size, samples, aligned, rows, row_w)
    return _axis_taps(
        box[0] * scale - offset, box[2] * scale - offset, hw[1], size, samples, aligned, columns, column_w
    )


@njit(cache=True, nogil=True, parallel=True, fastmath=True)
def roi_align_forward(feature, boxes, image_index, rows_of_out, scale, samples, aligned, out):
    """Pool boxes (R, 4) of images (R,) into ``out[rows_of_out]``, (.., S, S, C)."""
    height, width, channels = feature.shape[1:]
    size = out.shape[1]
    offset = 0.5 if aligned else 0.0
    for r in prange(len(boxes)):
        taps = 2 * samples
        rows = np.empty((size, taps), np.int64)
        columns = np.empty((size, taps), np.int64)
        row_w = np.empty((size, taps), np.float32)
        column_w = np.empty((size, taps), np.float32)
        x1, x2 = _taps_of_box(
            boxes[r], scale, offset, (height, width), size, samples, aligned, rows, row_w, columns, column_w
        )
        image = feature[image_index[r]]
        strip = np.empty((x2 - x1, channels), np.float32)
        for by in range(size):
            strip[:] = 0.0
            for t in range(taps):
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
                for t in range(taps):
                    w = column_w[bx, t]
                    if w == 0.0:
                        continue
                    x = columns[bx, t] - x1
                    for c in range(channels):
                        cell[c] += w * strip[x, c]


@njit(cache=True, nogil=True, parallel=True, fastmath=True)
def roi_align_backward(grad, boxes, image_index, rows_of_grad, scale, samples, aligned, parts, out):
    """Add to `out` (B, H, W, C) what the gradients ``grad[rows_of_grad]``, (.., S, S, C), say about the map.

    Each of `parts` threads takes a slice of the channels of all boxes: no two write to one number, and the order of
    the additions, so the result to the last bit, does not depend on their timing.
    """
    height, width, channels = out.shape[1:]
    size = grad.shape[1]
    offset = 0.5 if aligned else 0.0
    for part in prange(parts):
        c1, c2 = part * channels // parts, (part + 1) * channels // parts
        taps = 2 * samples
        rows = np.empty((size, taps), np.int64)
        columns = np.empty((size, taps), np.int64)
        row_w = np.empty((size, taps), np.float32)
        column_w = np.empty((size, taps), np.float32)
        strip = np.empty((width, c2 - c1), np.float32)
        for r in range(len(boxes)):
            x1, x2 = _taps_of_box(
                boxes[r],
                scale,
                offset,
                (height, width),
                size,
                samples,
                aligned,
                rows,
                row_w,
                columns,
                column_w,
            )
            image = out[image_index[r]]
            for by in range(size):
                strip[x1:x2] = 0.0
                for bx in range(size):
                    cell = grad[rows_of_grad[r], by, bx, c1:c2]
                    for t in range(taps):
                        w = column_w[bx, t]
                        if w == 0.0:
                            continue
                        x = columns[bx, t]
                        for c in range(c2 - c1):
                            strip[x, c] += w * cell[c]
                for t in range(taps):
                    w = row_w[by, t]
                    if w == 0.0:
                        continue
                    target = image[rows[by, t], x1:x2, c1:c2]
                    for x in range(x2 - x1):
                        for c in range(c2 - c1):
                            target[x, c] += w * strip[x1 + x, c]
