"""Between masks as runs and the small square grids that the mask head sees.

Coordinates are continuous and pixel ``i`` spans ``[i, i + 1)``. A box ``(x1, y1, x2, y2)`` is cut into M x M cells.
`coverage` gives the part of each cell that a mask covers (the mask head's target); `grid_to_runs` is its inverse:
it interpolates a grid between cell centres, and a pixel belongs to the mask where the value at its centre is >= 0.
"""

import math

import numpy as np
from numba import njit, prange


@njit(cache=True, nogil=True)
def coverage(runs, height, box, size):
    """Covered part, in [0, 1], of each of ``size x size`` cells of `box` (4,) xyxy; float32, [row, column]."""
    grid = np.zeros((size, size), np.float64)
    x1, y1, x2, y2 = box[0], box[1], box[2], box[3]
    cell_w = max(x2 - x1, 1e-6) / size
    cell_h = max(y2 - y1, 1e-6) / size
    column = np.empty(size, np.float64)
    first_x = max(int(math.floor(x1)), 0)
    last_x = int(math.ceil(x2))
    k = 0
    for x in range(first_x, last_x):
        column[:] = 0.0
        touched = False
        # Skip what ends before this column, then add up every run that meets it.
        while k < len(runs) and runs[k, 0] + runs[k, 1] <= x * height:
            k += 1
        j = k
        while j < len(runs) and runs[j, 0] < (x + 1) * height:
            top = max(float(max(runs[j, 0] - x * height, 0)), y1)
            bottom = min(float(min(runs[j, 0] + runs[j, 1] - x * height, height)), y2)
            j += 1
            if bottom <= top:
                continue
            touched = True
            a = (top - y1) / cell_h
            b = (bottom - y1) / cell_h
            for r in range(max(int(a), 0), min(int(math.ceil(b)), size)):
                column[r] += max(0.0, min(b, r + 1.0) - max(a, float(r)))
        if not touched:
            continue
        a = (max(float(x), x1) - x1) / cell_w
        b = (min(x + 1.0, x2) - x1) / cell_w
        for c in range(max(int(a), 0), min(int(math.ceil(b)), size)):
            part = min(b, c + 1.0) - max(a, float(c))
            if part > 0:
                for r in range(size):
                    grid[r, c] += part * column[r]
    return np.minimum(grid, 1.0).astype(np.float32)


@njit(cache=True, nogil=True, parallel=True)
def coverage_of_boxes(runs, offsets, height, mask_index, boxes, size):
    """`coverage` for many boxes: box i looks at mask ``mask_index[i]`` of ragged runs; (N, size, size) float32."""
    out = np.empty((len(boxes), size, size), np.float32)
    for i in prange(len(boxes)):
        m = mask_index[i]
        out[i] = coverage(runs[offsets[m] : offsets[m + 1]], height, boxes[i].astype(np.float64), size)
    return out


@njit(cache=True, nogil=True)
def _column_runs(profile, size, y1, cell_h, top, bottom, base, out, n):
    """Append the runs of one pixel column, whose values at cell centres are `profile`, to `out`; returns the count.

    Between two centres the value is linear, so a run begins and ends where a line crosses zero: no pixel is visited.
    """
    r = 0
    while r < size:
        if profile[r] < 0.0:
            r += 1
            continue
        # Cells r..e are >= 0; find where the value rises above and falls below zero around them.
        e = r
        while e + 1 < size and profile[e + 1] >= 0.0:
            e += 1
        start = y1
        if r > 0:
            start = y1 + cell_h * (r - 0.5 + profile[r - 1] / (profile[r - 1] - profile[r]))
        stop = bottom + 0.0
        if e + 1 < size:
            stop = y1 + cell_h * (e + 0.5 + profile[e] / (profile[e] - profile[e + 1]))
        # A pixel is inside when its centre, y + 0.5, is.
        a = max(int(math.ceil(start - 0.5)), top)
        b = min(int(math.floor(stop - 0.5)) + 1, bottom)
        if b > a:
            if n > 0 and out[n - 1, 0] + out[n - 1, 1] == base + a:
                out[n - 1, 1] += b - a
            else:
                out[n, 0] = base + a
                out[n, 1] = b - a
                n += 1
        r = e + 1
    return n


@njit(cache=True, nogil=True)
def grid_to_runs(grid, box, height, width):
    """Runs of the pixels whose centres lie in `box` (4,) xyxy and where `grid` (M, M), interpolated, is >= 0.

    Beyond the outermost cell centres the value stays constant. Cost: the box's width times M, whatever the image.
    """
    size = grid.shape[0]
    x1, y1, x2, y2 = box[0], box[1], box[2], box[3]
    left = max(int(math.ceil(x1 - 0.5)), 0)
    right = min(int(math.ceil(x2 - 0.5)), width)
    top = max(int(math.ceil(y1 - 0.5)), 0)
    bottom = min(int(math.ceil(y2 - 0.5)), height)
    if right <= left or bottom <= top:
        return np.empty((0, 2), np.int64)
    out = np.empty(((right - left) * (size // 2 + 1), 2), np.int64)
    n = 0
    cell_w = (x2 - x1) / size
    cell_h = (y2 - y1) / size
    profile = np.empty(size, np.float64)
    for x in range(left, right):
        u = min(max((x + 0.5 - x1) / cell_w - 0.5, 0.0), size - 1.0)
        c = min(int(u), size - 2)
        f = u - c
        for r in range(size):
            profile[r] = (1.0 - f) * grid[r, c] + f * grid[r, c + 1]
        n = _column_runs(profile, size, y1, cell_h, top, bottom, x * height, out, n)
    return out[:n].copy()
