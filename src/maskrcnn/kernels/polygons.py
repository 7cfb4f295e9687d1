"""Rasterise polygons by COCO's rule: vertices -> crossings of pixel columns -> runs.

COCO's tools round vertices to a lattice of fifths of a pixel and draw each edge on it, one lattice point a step along
the edge's longer axis. Where the outline passes the middle of a pixel column, between the lattice columns 5c + 2 and
5c + 3, it crosses that column. A pixel is inside if the outline crosses its column an odd number of times above it.

This module computes each crossing directly instead of drawing the edge. The cost of an edge is the number of columns of
the picture that it crosses, whatever its length. Fractions of negative numbers are cut towards zero, as in C, because
COCO's masks are drawn so: the cut moves a vertex outside the picture by less than a fifth of a pixel.
"""

import numpy as np
from numba import njit

MAX_COORDINATE = 1e9
"""Coordinates up to this size, in pixels, are exact on the lattice in float64."""

SCALE = 5
"""Lattice points to a pixel."""

# Codes of `count_crossings`, in place of a count.
TOO_FEW_POINTS, BAD_COORDINATE = -1, -2


@njit(cache=True, nogil=True)
def count_crossings(points, polygon_offsets, mask_offsets, hw):
    """Return counts (n,) of column crossings of each mask, or a code, and the index of the polygon that caused it.

    `points` (P, 2) float64 are x and y; `polygon_offsets` delimits polygons in them, `mask_offsets` (n + 1,) delimits
    masks in the polygons, and `hw` (n, 2) holds the pictures' heights and widths.
    """
    n = len(mask_offsets) - 1
    counts = np.zeros(n, np.int64)
    faulty_polygons = np.zeros(n, np.int64)
    for i in range(n):
        for polygon in range(mask_offsets[i], mask_offsets[i + 1]):
            count = _count_of_polygon(points[polygon_offsets[polygon] : polygon_offsets[polygon + 1]], hw[i, 1])
            if count < 0:
                counts[i], faulty_polygons[i] = count, polygon
                break
            counts[i] += count
    return counts, faulty_polygons


@njit(cache=True, nogil=True)
def _count_of_polygon(points, width):
    """Return the number of column crossings of a polygon in a picture of `width` pixels, or a code."""
    if len(points) < 3:
        return TOO_FEW_POINTS
    count = 0
    for k in range(len(points)):
        if not (abs(points[k, 0]) <= MAX_COORDINATE and abs(points[k, 1]) <= MAX_COORDINATE):
            return BAD_COORDINATE
    previous = _to_lattice(points[-1, 0])
    for k in range(len(points)):
        current = _to_lattice(points[k, 0])
        first, end = _to_pixel(min(previous, current)), _to_pixel(max(previous, current))
        count += max(0, min(end, width) - max(first, 0))
        previous = current
    return count


@njit(cache=True, nogil=True)
def rasterize(points, polygon_offsets, mask_offsets, hw, even_odd, run_offsets, runs):
    """Write the runs of each mask into `runs` from ``run_offsets[i]`` on. Return the run counts (n,).

    With `even_odd`, a pixel is in a mask if an odd number of the mask's polygons contain it; otherwise if any does.
    A mask has space for half of its `count_crossings`; without space it is skipped.
    """
    n = len(mask_offsets) - 1
    counts = np.zeros(n, np.int64)
    for i in range(n):
        space = run_offsets[i + 1] - run_offsets[i]
        if space == 0:
            continue
        height, width = hw[i, 0], hw[i, 1]
        crossings = np.empty(2 * space, np.int64)
        n_crossings = 0
        for polygon in range(mask_offsets[i], mask_offsets[i + 1]):
            first = n_crossings
            n_crossings = _append_polygon(
                points[polygon_offsets[polygon] : polygon_offsets[polygon + 1]], height, width, crossings, n_crossings
            )
            if not even_odd:
                crossings[first:n_crossings].sort()
        if even_odd:
            crossings[:n_crossings].sort()
        elif mask_offsets[i + 1] - mask_offsets[i] > 1:
            starts, ends = np.sort(crossings[:n_crossings:2]), np.sort(crossings[1:n_crossings:2])
            counts[i] = join_intervals(starts, ends, runs[run_offsets[i] : run_offsets[i + 1]])
            continue
        counts[i] = join_intervals(
            crossings[:n_crossings:2], crossings[1:n_crossings:2], runs[run_offsets[i] : run_offsets[i + 1]]
        )
    return counts


@njit(cache=True, nogil=True)
def join_intervals(starts, ends, runs):
    """Write the union of intervals into `runs` as canonical runs and return their number.

    `starts` and `ends` are each sorted; together they describe the union, whichever start and end belong together.
    Intervals may be empty.
    """
    n = 0
    for k in range(len(starts)):
        if n > 0 and starts[k] <= runs[n - 1, 0] + runs[n - 1, 1]:
            runs[n - 1, 1] = ends[k] - runs[n - 1, 0]
        elif ends[k] > starts[k]:
            runs[n, 0], runs[n, 1] = starts[k], ends[k] - starts[k]
            n += 1
    return n


@njit(cache=True, nogil=True)
def _to_lattice(coordinate):
    """Return the nearest lattice coordinate, with fractions of negative numbers cut towards zero."""
    return np.int64(SCALE * coordinate + 0.5)


@njit(cache=True, nogil=True)
def _to_pixel(lattice):
    """Return the first pixel whose middle, between lattice lines 5c + 2 and 5c + 3, lies at or beyond `lattice`."""
    return (lattice + 2) // SCALE


@njit(cache=True, nogil=True)
def _append_polygon(points, height, width, crossings, n):
    """Append the crossings of a polygon, as pixel indices ``column * height + row``. Return their number."""
    previous_x, previous_y = _to_lattice(points[-1, 0]), _to_lattice(points[-1, 1])
    for k in range(len(points)):
        x, y = _to_lattice(points[k, 0]), _to_lattice(points[k, 1])
        n = _append_edge(previous_x, previous_y, x, y, height, width, crossings, n)
        previous_x, previous_y = x, y
    return n


@njit(cache=True, nogil=True)
def _append_edge(x1, y1, x2, y2, height, width, crossings, n):
    """Append the crossings of an edge between lattice points. An edge and its reverse have the same crossings."""
    first = max(_to_pixel(min(x1, x2)), 0)
    end = min(_to_pixel(max(x1, x2)), width)
    if end <= first:
        return n
    dx, dy = abs(x2 - x1), abs(y2 - y1)
    shallow = dx >= dy
    if (shallow and x1 > x2) or (not shallow and y1 > y2):
        x1, y1, x2, y2 = x2, y2, x1, y1
    slope = (y2 - y1) / dx if shallow else (x2 - x1) / dy
    for column in range(first, end):
        middle = SCALE * column + 3  # the lattice column behind the middle of the pixel column
        if shallow:
            step = middle - x1
            y = min(np.int64(y1 + slope * (step - 1) + 0.5), np.int64(y1 + slope * step + 0.5))
        else:
            # The last step before the edge passes the middle. The division is off by a step at most.
            step = np.int64((middle - 0.5 - x1) / slope)
            while step > 0 and (x1 + slope * step + 0.5 >= middle) == (slope > 0):
                step -= 1
            while (x1 + slope * (step + 1) + 0.5 >= middle) != (slope > 0):
                step += 1
            y = y1 + step
        crossings[n] = column * height + min(max(_to_pixel(y), 0), height)
        n += 1
    return n
