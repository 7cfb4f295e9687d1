"""Set operations, cropping and transposing of runs, without touching pixels.

A mask of height H is an ``(n, 2)`` int64 array of ``(start, length)`` pairs in column-major order: pixel
``(row, column)`` has the index ``column * H + row``. Canonical runs are increasing and separated by at least one pixel.
"""

import numpy as np
from numba import njit

PAST_ALL_PIXELS = 2**62


@njit(cache=True, nogil=True)
def merge_runs(a, b, keep_a_only, keep_both, keep_b_only):
    """Merge two canonical run lists. The flags say whether to keep pixels only in a, in both, and only in b."""
    out = np.empty((2 * (len(a) + len(b)) + 1, 2), np.int64)
    n = ia = ib = position = 0
    while ia < len(a) or ib < len(b):
        in_a = ia < len(a) and a[ia, 0] <= position
        in_b = ib < len(b) and b[ib, 0] <= position
        edge = PAST_ALL_PIXELS
        if ia < len(a):
            edge = min(edge, a[ia, 0] + a[ia, 1] if in_a else a[ia, 0])
        if ib < len(b):
            edge = min(edge, b[ib, 0] + b[ib, 1] if in_b else b[ib, 0])
        keep = (in_a and in_b and keep_both) or (in_a and not in_b and keep_a_only)
        keep = keep or (in_b and not in_a and keep_b_only)
        if keep and edge > position:
            if n > 0 and out[n - 1, 0] + out[n - 1, 1] == position:
                out[n - 1, 1] += edge - position
            else:
                out[n, 0], out[n, 1] = position, edge - position
                n += 1
        position = edge
        if ia < len(a) and a[ia, 0] + a[ia, 1] <= position:
            ia += 1
        if ib < len(b) and b[ib, 0] + b[ib, 1] <= position:
            ib += 1
    return out[:n].copy()


@njit(cache=True, nogil=True)
def window_runs(runs, height, x1, y1, x2, y2):
    """Crop runs to the window ``[x1, x2) x [y1, y2)``, in window coordinates; outside the image is background.

    Cost grows with the runs and the columns they span.
    """
    capacity = 0
    for i in range(len(runs)):
        capacity += (runs[i, 0] + runs[i, 1] - 1) // height - runs[i, 0] // height + 1
    out = np.empty((capacity, 2), np.int64)
    n = 0
    for i in range(len(runs)):
        start, end = runs[i, 0], runs[i, 0] + runs[i, 1]
        for x in range(max(start // height, x1), min((end - 1) // height, x2 - 1) + 1):
            top, bottom = max(start - x * height, 0, y1), min(end - x * height, height, y2)
            if bottom <= top:
                continue
            window_start = (x - x1) * (y2 - y1) + top - y1
            if n > 0 and out[n - 1, 0] + out[n - 1, 1] == window_start:
                out[n - 1, 1] += bottom - top
            else:
                out[n, 0], out[n, 1] = window_start, bottom - top
                n += 1
    return out[:n].copy()


@njit(cache=True, nogil=True)
def transpose_runs(runs, rows, columns):
    """Convert runs along `rows` lines of `columns` pixels each to runs along the columns of the same mask.

    Each line is compared with the line above: a difference begins or ends a run. Cost grows with the runs in and out.
    """
    # Split runs at line ends: (line, first column, end column).
    n_spans = 0
    for i in range(len(runs)):
        n_spans += (runs[i, 0] + runs[i, 1] - 1) // columns - runs[i, 0] // columns + 1
    spans = np.empty((n_spans, 3), np.int64)
    n = 0
    for i in range(len(runs)):
        start, end = runs[i, 0], runs[i, 0] + runs[i, 1]
        for line in range(start // columns, (end - 1) // columns + 1):
            spans[n, 0] = line
            spans[n, 1] = max(start - line * columns, 0)
            spans[n, 2] = min(end - line * columns, columns)
            n += 1
    open_line = np.full(columns, -1, np.int64)  # line where the open run of each column began
    out = np.empty((16 + 2 * n_spans, 2), np.int64)
    n_out = begin_above = begin = 0
    line = -1
    while begin_above < begin or begin < n:
        # Spans [begin_above, begin) lie on the line above `line`, spans [begin, stop) on it.
        line = spans[begin, 0] if begin_above == begin else line + 1
        stop = begin
        while stop < n and spans[stop, 0] == line:
            stop += 1
        ia, ib, x = begin_above, begin, 0
        while ia < begin or ib < stop:
            in_a = ia < begin and spans[ia, 1] <= x
            in_b = ib < stop and spans[ib, 1] <= x
            edge = columns
            if ia < begin:
                edge = min(edge, spans[ia, 2] if in_a else spans[ia, 1])
            if ib < stop:
                edge = min(edge, spans[ib, 2] if in_b else spans[ib, 1])
            if in_b and not in_a:
                for c in range(x, edge):
                    open_line[c] = line
            elif in_a and not in_b:
                for c in range(x, edge):
                    if n_out == len(out):
                        larger = np.empty((2 * len(out), 2), np.int64)
                        larger[:n_out] = out
                        out = larger
                    out[n_out, 0], out[n_out, 1] = c * rows + open_line[c], line - open_line[c]
                    n_out += 1
            x = edge
            if ia < begin and spans[ia, 2] <= x:
                ia += 1
            if ib < stop and spans[ib, 2] <= x:
                ib += 1
        begin_above, begin = begin, stop
    out = out[:n_out]
    out = out[np.argsort(out[:, 0])]
    n = 0
    for i in range(len(out)):
        if n > 0 and out[n - 1, 0] + out[n - 1, 1] == out[i, 0]:
            out[n - 1, 1] += out[i, 1]
        else:
            out[n, 0], out[n, 1] = out[i, 0], out[i, 1]
            n += 1
    return out[:n].copy()


@njit(cache=True, nogil=True)
def paint_runs(runs, height, x1, y1, mask):
    """Set the pixels of `runs` to True in `mask` (h, w), a window of the image with its corner at (x1, y1)."""
    y2, x2 = y1 + mask.shape[0], x1 + mask.shape[1]
    for i in range(len(runs)):
        start, end = runs[i, 0], runs[i, 0] + runs[i, 1]
        for x in range(max(start // height, x1), min((end - 1) // height, x2 - 1) + 1):
            for y in range(max(start - x * height, 0, y1), min(end - x * height, height, y2)):
                mask[y - y1, x - x1] = True


@njit(cache=True, nogil=True)
def boxes_of_runs(runs, offsets, heights):
    """Return tight half-open boxes (n, 4) int64 xyxy of ragged runs. An empty mask has the box 0 0 0 0."""
    boxes = np.zeros((len(offsets) - 1, 4), np.int64)
    for i in range(len(offsets) - 1):
        if offsets[i + 1] == offsets[i]:
            continue
        height = heights[i]
        last = offsets[i + 1] - 1
        y1, y2 = height, 0
        for k in range(offsets[i], offsets[i + 1]):
            top = runs[k, 0] % height
            bottom = top + runs[k, 1]
            if bottom > height:
                top, bottom = 0, height
            y1, y2 = min(y1, top), max(y2, bottom)
        boxes[i, 0], boxes[i, 1] = runs[offsets[i], 0] // height, y1
        boxes[i, 2], boxes[i, 3] = (runs[last, 0] + runs[last, 1] - 1) // height + 1, y2
    return boxes


@njit(cache=True, nogil=True)
def intersection_areas(runs_a, offsets_a, boxes_a, runs_b, offsets_b, boxes_b):
    """Return the intersection in pixels of each pair of masks, (len(a), len(b)) int64; all are of one image."""
    n, m = len(offsets_a) - 1, len(offsets_b) - 1
    areas = np.zeros((n, m), np.int64)
    for i in range(n):
        for j in range(m):
            if boxes_a[i, 0] >= boxes_b[j, 2] or boxes_b[j, 0] >= boxes_a[i, 2]:
                continue
            if boxes_a[i, 1] >= boxes_b[j, 3] or boxes_b[j, 1] >= boxes_a[i, 3]:
                continue
            ka, kb, total = offsets_a[i], offsets_b[j], 0
            while ka < offsets_a[i + 1] and kb < offsets_b[j + 1]:
                end_a = runs_a[ka, 0] + runs_a[ka, 1]
                end_b = runs_b[kb, 0] + runs_b[kb, 1]
                total += max(0, min(end_a, end_b) - max(runs_a[ka, 0], runs_b[kb, 0]))
                if end_a <= end_b:
                    ka += 1
                else:
                    kb += 1
            areas[i, j] = total
    return areas


@njit(cache=True, nogil=True)
def count_pieces(runs, offsets, heights):
    """Count the connected pieces of each mask, (n,) int64; `count_pieces_and_holes` explains."""
    return count_pieces_and_holes(runs, offsets, heights)[0]


@njit(cache=True, nogil=True)
def count_pieces_and_holes(runs, offsets, heights):
    """Count the connected pieces and the holes of each mask, (n,) int64 each.

    Pixels that share an edge or a corner are connected; those of a hole share edges. Mask i is
    ``runs[offsets[i]:offsets[i + 1]]``, in columns of ``heights[i]`` pixels. Cost grows with the runs.

    Spans of neighbouring columns that touch are the edges of a graph without triangles, whose components are the pieces
    and whose independent cycles are the holes: an edge joins two pieces, or closes a hole.
    """
    pieces = np.zeros(len(offsets) - 1, np.int64)
    holes = np.zeros(len(offsets) - 1, np.int64)
    for i in range(len(pieces)):
        height = heights[i]
        # Split runs at column ends: (column, first row, end row), joined in a forest whose roots are the pieces.
        n_spans = 0
        for k in range(offsets[i], offsets[i + 1]):
            n_spans += (runs[k, 0] + runs[k, 1] - 1) // height - runs[k, 0] // height + 1
        spans = np.empty((n_spans, 3), np.int64)
        n = 0
        for k in range(offsets[i], offsets[i + 1]):
            start, end = runs[k, 0], runs[k, 0] + runs[k, 1]
            for column in range(start // height, (end - 1) // height + 1):
                spans[n, 0] = column
                spans[n, 1] = max(start - column * height, 0)
                spans[n, 2] = min(end - column * height, height)
                n += 1
        parent = np.arange(n_spans)
        pieces[i] = n_spans
        left = 0  # the first span of the column to the left that may still touch
        for s in range(n_spans):
            while spans[left, 0] < spans[s, 0] - 1 or (
                spans[left, 0] == spans[s, 0] - 1 and spans[left, 2] < spans[s, 1]
            ):
                left += 1
            other = left
            while spans[other, 0] == spans[s, 0] - 1 and spans[other, 1] <= spans[s, 2]:
                a, b = s, other
                while parent[a] != a:
                    parent[a] = parent[parent[a]]
                    a = parent[a]
                while parent[b] != b:
                    parent[b] = parent[parent[b]]
                    b = parent[b]
                if a != b:
                    parent[a] = b
                    pieces[i] -= 1
                else:
                    holes[i] += 1
                other += 1
    return pieces, holes
