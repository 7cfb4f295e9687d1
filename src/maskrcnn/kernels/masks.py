"""Mask targets and pasting: run-length masks to and from grids of M x M cells over a box.

    runs, box -> coverage -> grid (M, M) -> grid_to_runs -> runs

Coordinates are continuous and pixel ``i`` spans ``[i, i + 1)``. `grid_to_runs` inverts `coverage`: it interpolates
bilinearly between cell centres, and a pixel is in the mask if the value at its centre is >= 0.
"""

import math

import numpy as np
from numba import njit, prange

from maskrcnn.kernels.parallel import parallel


@njit(cache=True, nogil=True)
def coverage(runs, height, box, size):
    """Return the covered fraction of each of ``size x size`` cells of `box` (4,) xyxy, as float32 [row, column]."""
    grid = np.zeros((size, size), np.float64)
    x1, y1, x2, y2 = box[0], box[1], box[2], box[3]
    cell_w, cell_h = max(x2 - x1, 1e-6) / size, max(y2 - y1, 1e-6) / size
    row_coverage = np.empty(size, np.float64)
    k = 0
    for x in range(max(int(math.floor(x1)), 0), int(math.ceil(x2))):
        row_coverage[:] = 0.0
        crossed = False
        # Skip runs that end before this column, then add up the runs that cross it.
        while k < len(runs) and runs[k, 0] + runs[k, 1] <= x * height:
            k += 1
        j = k
        while j < len(runs) and runs[j, 0] < (x + 1) * height:
            top = max(float(max(runs[j, 0] - x * height, 0)), y1)
            bottom = min(float(min(runs[j, 0] + runs[j, 1] - x * height, height)), y2)
            j += 1
            if bottom <= top:
                continue
            crossed = True
            begin, end = (top - y1) / cell_h, (bottom - y1) / cell_h
            for r in range(max(int(begin), 0), min(int(math.ceil(end)), size)):
                row_coverage[r] += max(0.0, min(end, r + 1.0) - max(begin, float(r)))
        if not crossed:
            continue
        begin, end = (max(float(x), x1) - x1) / cell_w, (min(x + 1.0, x2) - x1) / cell_w
        for c in range(max(int(begin), 0), min(int(math.ceil(end)), size)):
            covered_width = min(end, c + 1.0) - max(begin, float(c))
            if covered_width > 0:
                for r in range(size):
                    grid[r, c] += covered_width * row_coverage[r]
    return np.minimum(grid, 1.0).astype(np.float32)


@parallel()
def coverage_of_boxes(runs, offsets, height, mask_index, boxes, size):
    """Return `coverage` for N boxes, (N, size, size) float32. Box i reads mask ``mask_index[i]`` of ragged runs."""
    out = np.empty((len(boxes), size, size), np.float32)
    for i in prange(len(boxes)):
        m = mask_index[i]
        out[i] = coverage(runs[offsets[m] : offsets[m + 1]], height, boxes[i].astype(np.float64), size)
    return out


@njit(cache=True, nogil=True)
def _column_runs(profile, size, y1, cell_h, top, bottom, column_start, out, n):
    """Append the runs of the pixel column that begins at index `column_start` to the first `n` of `out`; return n.

    `profile` (M,) holds the column's values at cell centres. Values are linear between centres: a run begins and ends
    where they cross zero, and no pixel is visited.
    """
    first = 0
    while first < size:
        if profile[first] < 0.0:
            first += 1
            continue
        # Cells first to last are >= 0; find where the value crosses zero on either side of them.
        last = first
        while last + 1 < size and profile[last + 1] >= 0.0:
            last += 1
        start = y1
        if first > 0:
            start = y1 + cell_h * (first - 0.5 + profile[first - 1] / (profile[first - 1] - profile[first]))
        stop = bottom + 0.0
        if last + 1 < size:
            stop = y1 + cell_h * (last + 0.5 + profile[last] / (profile[last] - profile[last + 1]))
        # A pixel is inside if its centre, y + 0.5, is.
        begin_y = max(int(math.ceil(start - 0.5)), top)
        end_y = min(int(math.floor(stop - 0.5)) + 1, bottom)
        if end_y > begin_y:
            if n > 0 and out[n - 1, 0] + out[n - 1, 1] == column_start + begin_y:
                out[n - 1, 1] += end_y - begin_y
            else:
                out[n, 0], out[n, 1] = column_start + begin_y, end_y - begin_y
                n += 1
        first = last + 1
    return n


@njit(cache=True, nogil=True)
def grid_to_runs(grid, box, height, width):
    """Return the runs of pixels with centres in `box` (4,) xyxy where the interpolated `grid` (M, M) is >= 0.

    Values are constant beyond the outermost cell centres. Cost is box width times M, whatever the image size.
    """
    size = grid.shape[0]
    x1, y1, x2, y2 = box[0], box[1], box[2], box[3]
    left, right = max(int(math.ceil(x1 - 0.5)), 0), min(int(math.ceil(x2 - 0.5)), width)
    top, bottom = max(int(math.ceil(y1 - 0.5)), 0), min(int(math.ceil(y2 - 0.5)), height)
    if right <= left or bottom <= top:
        return np.empty((0, 2), np.int64)
    out = np.empty(((right - left) * (size // 2 + 1), 2), np.int64)
    n = 0
    cell_w, cell_h = (x2 - x1) / size, (y2 - y1) / size
    profile = np.empty(size, np.float64)
    for x in range(left, right):
        grid_x = min(max((x + 0.5 - x1) / cell_w - 0.5, 0.0), size - 1.0)
        cell = min(int(grid_x), size - 2)
        weight = grid_x - cell
        for r in range(size):
            profile[r] = (1.0 - weight) * grid[r, cell] + weight * grid[r, cell + 1]
        n = _column_runs(profile, size, y1, cell_h, top, bottom, x * height, out, n)
    return out[:n].copy()
