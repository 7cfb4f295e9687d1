"""Arithmetic on runs: set operations, cropping and transposing without touching pixels.

A mask of height H and width W is an ``(n, 2)`` int64 array of ``(start, length)`` pairs over the image in
column-major order: pixel ``(row, column)`` has the index ``column * H + row``. Canonical runs are increasing and
separated by at least one pixel.
"""

import numpy as np
from numba import njit

FAR = 2**62


@njit(cache=True, nogil=True)
def merge_runs(a, b, want_a_only, want_both, want_b_only):
    """Set operation on two canonical run lists: keep the pixels that are in only a, in both, in only b as asked."""
    out = np.empty((2 * (len(a) + len(b)) + 1, 2), np.int64)
    n = 0
    ia = ib = 0
    position = 0
    while ia < len(a) or ib < len(b):
        in_a = ia < len(a) and a[ia, 0] <= position
        in_b = ib < len(b) and b[ib, 0] <= position
        edge = FAR
        if ia < len(a):
            edge = min(edge, a[ia, 0] + a[ia, 1] if in_a else a[ia, 0])
        if ib < len(b):
            edge = min(edge, b[ib, 0] + b[ib, 1] if in_b else b[ib, 0])
        keep = (in_a and in_b and want_both) or (in_a and not in_b and want_a_only)
        keep = keep or (in_b and not in_a and want_b_only)
        if keep and edge > position:
            if n > 0 and out[n - 1, 0] + out[n - 1, 1] == position:
                out[n - 1, 1] += edge - position
            else:
                out[n, 0] = position
                out[n, 1] = edge - position
                n += 1
        position = edge
        if ia < len(a) and a[ia, 0] + a[ia, 1] <= position:
            ia += 1
        if ib < len(b) and b[ib, 0] + b[ib, 1] <= position:
            ib += 1
    return out[:n].copy()


@njit(cache=True, nogil=True)
def window_runs(runs, height, x1, y1, x2, y2):
    """Runs of the window ``[x1, x2) x [y1, y2)``, in the window's own coordinates; it may lie partly outside.

    Pixels outside the image are background. Cost grows with the number of runs and the columns they span.
    """
    size = 0
    for i in range(len(runs)):
        size += (runs[i, 0] + runs[i, 1] - 1) // height - runs[i, 0] // height + 1
    out = np.empty((size, 2), np.int64)
    n = 0
    h = y2 - y1
    for i in range(len(runs)):
        start = runs[i, 0]
        end = start + runs[i, 1]
        first = max(start // height, x1)
        last = min((end - 1) // height, x2 - 1)
        for x in range(first, last + 1):
            top = max(start - x * height, 0, y1)
            bottom = min(end - x * height, height, y2)
            if bottom <= top:
                continue
            s = (x - x1) * h + top - y1
            if n > 0 and out[n - 1, 0] + out[n - 1, 1] == s:
                out[n - 1, 1] += bottom - top
            else:
                out[n, 0] = s
                out[n, 1] = bottom - top
                n += 1
    return out[:n].copy()


@njit(cache=True, nogil=True)
def transpose_runs(runs, rows, columns):
    """Runs over `rows` lines of `columns` pixels each -> the same mask as runs over its columns.

    Walks line by line and notes where a line differs from the one before it: each difference begins or ends a run
    of the result. Cost grows with runs in plus runs out.
    """
    # Split at line ends: (line, first, end)
    size = 0
    for i in range(len(runs)):
        size += (runs[i, 0] + runs[i, 1] - 1) // columns - runs[i, 0] // columns + 1
    spans = np.empty((size, 3), np.int64)
    n = 0
    for i in range(len(runs)):
        start = runs[i, 0]
        end = start + runs[i, 1]
        for line in range(start // columns, (end - 1) // columns + 1):
            spans[n, 0] = line
            spans[n, 1] = max(start - line * columns, 0)
            spans[n, 2] = min(end - line * columns, columns)
            n += 1
    begun = np.full(columns, -1, np.int64)  # the line where the open run of a column began
    out = np.empty((16 + 2 * size, 2), np.int64)
    n_out = 0
    previous = 0
    at = 0
    line = -1
    while previous < at or at < n:
        # Spans [previous, at) are of the line above (`line`), [at, after) of the next one.
        line = spans[at, 0] if previous == at else line + 1
        after = at
        while after < n and spans[after, 0] == line:
            after += 1
        ia = previous
        ib = at
        x = 0
        while ia < at or ib < after:
            in_a = ia < at and spans[ia, 1] <= x
            in_b = ib < after and spans[ib, 1] <= x
            edge = columns
            if ia < at:
                edge = min(edge, spans[ia, 2] if in_a else spans[ia, 1])
            if ib < after:
                edge = min(edge, spans[ib, 2] if in_b else spans[ib, 1])
            if in_b and not in_a:
                for c in range(x, edge):
                    begun[c] = line
            elif in_a and not in_b:
                for c in range(x, edge):
                    if n_out == len(out):
                        grown = np.empty((2 * len(out), 2), np.int64)
                        grown[:n_out] = out
                        out = grown
                    out[n_out, 0] = c * rows + begun[c]
                    out[n_out, 1] = line - begun[c]
                    n_out += 1
            x = edge
            if ia < at and spans[ia, 2] <= x:
                ia += 1
            if ib < after and spans[ib, 2] <= x:
                ib += 1
        previous = at
        at = after
    out = out[:n_out]
    out = out[np.argsort(out[:, 0])]
    n = 0
    for i in range(len(out)):
        if n > 0 and out[n - 1, 0] + out[n - 1, 1] == out[i, 0]:
            out[n - 1, 1] += out[i, 1]
        else:
            out[n, 0] = out[i, 0]
            out[n, 1] = out[i, 1]
            n += 1
    return out[:n].copy()


@njit(cache=True, nogil=True)
def paint_runs(runs, height, x1, y1, mask):
    """Set to true in `mask` (h, w), a window whose corner is at (x1, y1), what `runs` cover of it."""
    y2 = y1 + mask.shape[0]
    x2 = x1 + mask.shape[1]
    for i in range(len(runs)):
        start = runs[i, 0]
        end = start + runs[i, 1]
        for x in range(max(start // height, x1), min((end - 1) // height, x2 - 1) + 1):
            for y in range(max(start - x * height, 0, y1), min(end - x * height, height, y2)):
                mask[y - y1, x - x1] = True


@njit(cache=True, nogil=True)
def find_runs(mask):
    """Runs of a dense (H, W) bool mask."""
    height, width = mask.shape
    n = 0
    before = False
    for x in range(width):
        for y in range(height):
            if mask[y, x] and not before:
                n += 1
            before = mask[y, x]
    out = np.empty((n, 2), np.int64)
    n = 0
    before = False
    for x in range(width):
        for y in range(height):
            if mask[y, x]:
                if before:
                    out[n - 1, 1] += 1
                else:
                    out[n, 0] = x * height + y
                    out[n, 1] = 1
                    n += 1
            before = mask[y, x]
    return out


@njit(cache=True, nogil=True)
def boxes_of_runs(runs, offsets, heights):
    """Tight half-open boxes (n, 4) xyxy of ragged runs; an empty mask has the box 0 0 0 0."""
    boxes = np.zeros((len(offsets) - 1, 4), np.int64)
    for i in range(len(offsets) - 1):
        if offsets[i + 1] == offsets[i]:
            continue
        height = heights[i]
        last = offsets[i + 1] - 1
        y1 = height
        y2 = 0
        for k in range(offsets[i], offsets[i + 1]):
            top = runs[k, 0] % height
            bottom = top + runs[k, 1]
            if bottom > height:
                top = 0
                bottom = height
            y1 = min(y1, top)
            y2 = max(y2, bottom)
        boxes[i, 0] = runs[offsets[i], 0] // height
        boxes[i, 1] = y1
        boxes[i, 2] = (runs[last, 0] + runs[last, 1] - 1) // height + 1
        boxes[i, 3] = y2
    return boxes


@njit(cache=True, nogil=True)
def intersection_areas(runs_a, offsets_a, boxes_a, runs_b, offsets_b, boxes_b):
    """Pixels shared by each pair of two ragged sets of masks of the same image: (len(a), len(b)) int64."""
    n = len(offsets_a) - 1
    m = len(offsets_b) - 1
    shared = np.zeros((n, m), np.int64)
    for i in range(n):
        for j in range(m):
            if boxes_a[i, 0] >= boxes_b[j, 2] or boxes_b[j, 0] >= boxes_a[i, 2]:
                continue
            if boxes_a[i, 1] >= boxes_b[j, 3] or boxes_b[j, 1] >= boxes_a[i, 3]:
                continue
            ka = offsets_a[i]
            kb = offsets_b[j]
            total = 0
            while ka < offsets_a[i + 1] and kb < offsets_b[j + 1]:
                end_a = runs_a[ka, 0] + runs_a[ka, 1]
                end_b = runs_b[kb, 0] + runs_b[kb, 1]
                total += max(0, min(end_a, end_b) - max(runs_a[ka, 0], runs_b[kb, 0]))
                if end_a <= end_b:
                    ka += 1
                else:
                    kb += 1
            shared[i, j] = total
    return shared
