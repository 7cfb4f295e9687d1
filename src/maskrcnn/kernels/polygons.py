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

from maskrcnn.kernels.texts import compact_runs

MAX_COORDINATE = 1e9
"""Coordinates up to this size, in pixels, are exact on the lattice in float64."""

SCALE = 5
"""Lattice points to a pixel."""

MAX_REPETITIONS, MIN_CROSSINGS = 4, 2**20
"""A mask may cross the edges of all pixels this many times, and this many crossings are always allowed. It bounds the
memory of a mask: a crossing takes 8 bytes."""

# Codes of `plan_runs`.
OK, TOO_FEW_POINTS, BAD_COORDINATE, BAD_SIZE, TOO_MANY_CROSSINGS = range(5)


@njit(cache=True, nogil=True)
def plan_runs(points, polygon_offsets, mask_offsets, hw):
    """Return where the runs of each mask go, offsets (n + 1,), and problems (n, 2): a code and the polygon or a count.

    `points` (P, 2) float64 are x and y; `polygon_offsets` delimits polygons in them, `mask_offsets` (n + 1,) delimits
    masks in the polygons, and `hw` (n, 2) holds the pictures' heights and widths. Two crossings bound a run. A mask
    with a problem gets no space.
    """
    n = len(mask_offsets) - 1
    run_offsets = np.zeros(n + 1, np.int64)
    problems = np.zeros((n, 2), np.int64)
    for i in range(n):
        height, width = hw[i, 0], hw[i, 1]
        code, detail, n_crossings = OK, 0, 0
        if not (0 <= height <= MAX_COORDINATE and 0 <= width <= MAX_COORDINATE):
            code = BAD_SIZE
        else:
            for polygon in range(mask_offsets[i], mask_offsets[i + 1]):
                code, count = _count_crossings(points[polygon_offsets[polygon] : polygon_offsets[polygon + 1]], width)
                n_crossings += count
                if code != OK:
                    detail = polygon
                    break
            if code == OK and n_crossings > MIN_CROSSINGS + MAX_REPETITIONS * (height + 1) * width:
                code, detail = TOO_MANY_CROSSINGS, n_crossings
        problems[i, 0], problems[i, 1] = code, detail
        run_offsets[i + 1] = run_offsets[i] + (n_crossings // 2 if code == OK else 0)
    return run_offsets, problems


@njit(cache=True, nogil=True)
def _count_crossings(points, width):
    """Return a code and the number of column crossings of a polygon in a picture of `width` pixels."""
    if len(points) < 3:
        return TOO_FEW_POINTS, 0
    count = 0
    for k in range(len(points)):
        if not (abs(points[k, 0]) <= MAX_COORDINATE and abs(points[k, 1]) <= MAX_COORDINATE):
            return BAD_COORDINATE, 0
    previous = _to_lattice(points[-1, 0])
    for k in range(len(points)):
        current = _to_lattice(points[k, 0])
        first, end = _to_pixel(min(previous, current)), _to_pixel(max(previous, current))
        count += max(0, min(end, width) - max(first, 0))
        previous = current
    return OK, count


@njit(cache=True, nogil=True)
def rasterize(points, polygon_offsets, mask_offsets, hw, even_odd, run_offsets, runs):
    """Write the runs of each mask into `runs`, one after the other, and return their offsets (n + 1,).

    With `even_odd`, a pixel is in a mask if an odd number of the mask's polygons contain it; otherwise if any does.
    `run_offsets` are those of `plan_runs`, and `runs` has space for as many.
    """
    n = len(mask_offsets) - 1
    counts = np.zeros(n, np.int64)
    for i in range(n):
        space = run_offsets[i + 1] - run_offsets[i]
        if space == 0:
            continue
        height, width = hw[i, 0], hw[i, 1]
        crossings = np.empty(2 * space, np.int64)
        first, end = mask_offsets[i], mask_offsets[i + 1]
        out = runs[run_offsets[i] : run_offsets[i + 1]]
        if even_odd or end - first == 1:
            _write_crossings(points, polygon_offsets[first : end + 1], height, width, crossings)
            counts[i] = join_intervals(crossings[::2], crossings[1::2], out)
        else:
            n = 0
            for polygon in range(first, end):
                n += _write_crossings(points, polygon_offsets[polygon : polygon + 2], height, width, crossings[n:])
            counts[i] = join_intervals(np.sort(crossings[::2]), np.sort(crossings[1::2]), out)
    return compact_runs(runs, run_offsets, counts)


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
def _write_crossings(points, polygon_offsets, height, width, crossings):
    """Write the sorted crossings of polygons, pixel indices ``column * height + row``, and return their number.

    Counting sort by column: the edges show how many crossings each column has before any is computed.
    """
    left, right = width, 0  # the columns of the polygons
    for k in range(polygon_offsets[0], polygon_offsets[-1]):
        column = _to_pixel(_to_lattice(points[k, 0]))
        left, right = min(left, max(column, 0)), max(right, min(column, width))
    if right <= left:
        return 0
    next_crossing = np.zeros(right - left + 1, np.int64)  # first the changes of the count from column to column
    for polygon in range(len(polygon_offsets) - 1):
        previous = polygon_offsets[polygon + 1] - 1
        for k in range(polygon_offsets[polygon], polygon_offsets[polygon + 1]):
            a, b = _to_pixel(_to_lattice(points[previous, 0])), _to_pixel(_to_lattice(points[k, 0]))
            next_crossing[min(max(min(a, b), left), right) - left] += 1
            next_crossing[min(max(max(a, b), left), right) - left] -= 1
            previous = k
    count = n = 0
    for column in range(right - left + 1):
        count += next_crossing[column]
        next_crossing[column] = n
        n += count
    for polygon in range(len(polygon_offsets) - 1):
        previous = polygon_offsets[polygon + 1] - 1
        for k in range(polygon_offsets[polygon], polygon_offsets[polygon + 1]):
            _write_edge(
                _to_lattice(points[previous, 0]),
                _to_lattice(points[previous, 1]),
                _to_lattice(points[k, 0]),
                _to_lattice(points[k, 1]),
                height,
                left,
                right,
                next_crossing,
                crossings,
            )
            previous = k
    begin = 0
    for column in range(right - left):
        _sort_few(crossings[begin : next_crossing[column]])
        begin = next_crossing[column]
    return n


@njit(cache=True, nogil=True)
def _write_edge(x1, y1, x2, y2, height, left, right, next_crossing, crossings):
    """Write the crossings of an edge between lattice points with columns ``left`` to ``right`` at `next_crossing`.

    An edge and its reverse have the same crossings.
    """
    first = max(_to_pixel(min(x1, x2)), left)
    end = min(_to_pixel(max(x1, x2)), right)
    if end <= first:
        return
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
        crossings[next_crossing[column - left]] = column * height + min(max(_to_pixel(y), 0), height)
        next_crossing[column - left] += 1


@njit(cache=True, nogil=True)
def _sort_few(values):
    """Sort in place: by insertion, unless there are many."""
    if len(values) > 32:
        values.sort()
        return
    for k in range(1, len(values)):
        value, place = values[k], k
        while place > 0 and values[place - 1] > value:
            values[place] = values[place - 1]
            place -= 1
        values[place] = value
