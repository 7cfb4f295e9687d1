"""Set operations, cropping and transposing of runs, without touching pixels.

A mask of height H is an ``(n, 2)`` int64 array of ``(start, length)`` pairs in column-major order: pixel
``(row, column)`` has the index ``column * H + row``. Canonical runs are increasing and separated by at least one pixel.
"""

import numpy as np
from numba import njit

PAST_ALL_PIXELS = 2**62
ALL_BITS = np.uint64(2**64 - 1)
NO_BITS = np.uint64(0)
LINE, LINE_WORDS = 64, 8
"""Pixels of a cache line, a byte each, and their words of 8."""


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
def visible_runs(runs, offsets, order, min_fraction, covered):
    """Return what earlier masks leave of each mask in `order`: runs, and the masks' offsets (len(order) + 1,) in them.

    A mask with less than `min_fraction` of its pixels free gets no runs and covers nothing. `covered` holds a bit per
    pixel, 64 to a uint64 word; it must be zero. Cost grows with the runs, 64 pixels at a time.
    """
    out = np.empty((len(runs) + 1, 2), np.int64)
    out_offsets = np.zeros(len(order) + 1, np.int64)
    n = 0
    for k in range(len(order)):
        first_run, end_run = offsets[order[k]], offsets[order[k] + 1]
        area = free = 0
        for i in range(first_run, end_run):
            end = runs[i, 0] + runs[i, 1]
            area += runs[i, 1]
            free_start = _find_bit(covered, ALL_BITS, runs[i, 0], end)
            while free_start < end:
                free_end = _find_bit(covered, NO_BITS, free_start, end)
                if n == len(out):
                    larger = np.empty((2 * len(out), 2), np.int64)
                    larger[:n] = out
                    out = larger
                out[n, 0], out[n, 1] = free_start, free_end - free_start
                n += 1
                free += free_end - free_start
                free_start = _find_bit(covered, ALL_BITS, free_end, end)
        if free < min_fraction * area:
            n = out_offsets[k]
        for i in range(out_offsets[k], n):
            _set_bits(covered, out[i, 0], out[i, 0] + out[i, 1])
        out_offsets[k + 1] = n
    return out[:n], out_offsets


@njit(cache=True, nogil=True)
def _find_bit(words, flipped, start, end):
    """Return the first position in ``[start, end)`` whose bit of ``words ^ flipped`` is set, or `end`."""
    position = start
    while position < end:
        word = (words[position >> 6] ^ flipped) >> np.uint64(position & 63)
        if word != NO_BITS:
            return min(position + _trailing_zeros(word), end)
        position = (position | 63) + 1
    return end


@njit(cache=True, nogil=True)
def _set_bits(words, start, end):
    """Set the bits of positions ``[start, end)``, which are not empty."""
    first, last = start >> 6, (end - 1) >> 6
    first_bits = ALL_BITS << np.uint64(start & 63)
    last_bits = ALL_BITS >> np.uint64(63 - ((end - 1) & 63))
    if first == last:
        words[first] |= first_bits & last_bits
        return
    words[first] |= first_bits
    words[first + 1 : last] = ALL_BITS
    words[last] |= last_bits


@njit(cache=True, nogil=True)
def _trailing_zeros(word):
    """Count the zero bits below the lowest set bit of a uint64: the set bits of a mask of them, added in parallel."""
    below = ~word & (word - np.uint64(1))
    below -= (below >> np.uint64(1)) & np.uint64(0x5555555555555555)
    below = (below & np.uint64(0x3333333333333333)) + ((below >> np.uint64(2)) & np.uint64(0x3333333333333333))
    below = (below + (below >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((below * np.uint64(0x0101010101010101)) >> np.uint64(56))


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
def runs_of_columns(pixels):
    """Return the runs of a dense mask in column-major memory, flat uint8 (W * H); nonzero pixels are the mask."""
    return _runs_between(_changes(pixels, 1))


@njit(cache=True, nogil=True)
def runs_of_rows(pixels, height, width):
    """Return the runs of a dense mask in row-major memory, flat uint8 (H * W); nonzero pixels are the mask.

    A pixel that differs from the one above it begins or ends a run of its column. The memory is read in its order,
    and only the changes are sorted by column: walking down the columns would miss the cache at every pixel.
    """
    changes = _changes(pixels, width)
    next_edge = np.zeros(width + 1, np.int64)  # counting sort: the place of each column's next edge
    row_start = 0
    for change in changes:
        while change >= row_start + width:
            row_start += width
        next_edge[change - row_start + 1] += 1
    for x in range(width):
        next_edge[x + 1] += next_edge[x]
    edges = np.empty(len(changes), np.int64)
    row = row_start = 0
    for change in changes:
        while change >= row_start + width:
            row, row_start = row + 1, row_start + width
        x = change - row_start
        edges[next_edge[x]] = x * height + row
        next_edge[x] += 1
    return _runs_between(edges)


@njit(cache=True, nogil=True)
def _changes(pixels, distance):
    """Return each index, up to ``len(pixels) + distance``, where a pixel and the one `distance` before it differ.

    They differ if one is zero and the other is not. Pixels beyond both ends are zero.
    """
    n_pixels = len(pixels)
    outside = np.zeros(distance, np.uint8)
    out = np.empty(512 + n_pixels // 32, np.int64)
    if n_pixels == 0:
        return out[:0]
    out, n = _append_differences(outside, pixels[:distance], 0, out, 0)
    out, n = _append_differences(pixels[: n_pixels - distance], pixels[distance:], distance, out, n)
    out, n = _append_differences(pixels[n_pixels - distance :], outside, n_pixels, out, n)
    return out[:n]


@njit(cache=True, nogil=True)
def _append_differences(a, b, first_index, out, n):
    """Append ``first_index + i`` for each i where one of `a` and `b` is zero and the other is not. Return out and n.

    Most stretches of a mask equal their neighbours: cache lines are compared first, then words, whose bytes are pixels
    in little-endian order. Lines may begin at any address, which x86-64 and ARM64 allow.
    """
    n_lines = len(a) // LINE
    words_a, words_b = a[: n_lines * LINE].view(np.uint64), b[: n_lines * LINE].view(np.uint64)
    line = _differing_line(words_a, words_b, 0, n_lines)
    while line < n_lines:
        out = _with_space(out, n + LINE)
        for k in range(LINE_WORDS * line, LINE_WORDS * (line + 1)):
            differing = _nonzero_bytes(words_a[k]) ^ _nonzero_bytes(words_b[k])
            while differing != NO_BITS:
                out[n] = first_index + 8 * k + _lowest_byte(differing)
                n += 1
                differing &= differing - np.uint64(1)
        line = _differing_line(words_a, words_b, line + 1, n_lines)
    out = _with_space(out, n + LINE)
    for i in range(n_lines * LINE, len(a)):
        if (a[i] != 0) != (b[i] != 0):
            out[n] = first_index + i
            n += 1
    return out, n


@njit(cache=True, nogil=True)
def _differing_line(words_a, words_b, line, n_lines):
    """Return the first cache line from `line` on where `words_a` and `words_b` differ, or `n_lines`."""
    while line < n_lines:
        begin = LINE_WORDS * line
        line_a, line_b = words_a[begin : begin + LINE_WORDS], words_b[begin : begin + LINE_WORDS]
        differing = NO_BITS
        for k in range(LINE_WORDS):
            differing |= line_a[k] ^ line_b[k]
        if differing != NO_BITS:
            break
        line += 1
    return line


@njit(cache=True, nogil=True)
def _with_space(values, size):
    """Return `values`, or a copy with twice the space if they are fewer than `size`."""
    if size <= len(values):
        return values
    larger = np.empty(2 * size, values.dtype)
    larger[: len(values)] = values
    return larger


@njit(cache=True, nogil=True)
def _nonzero_bytes(word):
    """Return the uint64 with the highest bit of each byte set if that byte of `word` is not zero."""
    low_bits = np.uint64(0x7F7F7F7F7F7F7F7F)
    return (((word & low_bits) + low_bits) | word) & ~low_bits


@njit(cache=True, nogil=True)
def _lowest_byte(word):
    """Return the index of the lowest byte whose highest bit is set; `word` has no other bits, and is not zero.

    The bits below that bit hold a 1 in each byte up to it. A product adds these up in the highest byte.
    """
    ones = np.uint64(0x0101010101010101)
    return np.int64(((~word & (word - np.uint64(1)) & ones) * ones) >> np.uint64(56)) - 1


@njit(cache=True, nogil=True)
def _runs_between(edges):
    """Return runs from `edges`, starts and ends in turn. A run that starts where the last one ends joins it."""
    out = np.empty((len(edges) // 2, 2), np.int64)
    n = 0
    for k in range(0, len(edges), 2):
        if n > 0 and edges[k] == out[n - 1, 0] + out[n - 1, 1]:
            out[n - 1, 1] += edges[k + 1] - edges[k]
        else:
            out[n, 0], out[n, 1] = edges[k], edges[k + 1] - edges[k]
            n += 1
    return out if n == len(out) else out[:n].copy()


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
