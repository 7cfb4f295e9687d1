"""Findings about the masks of one image: tiny, thin, full, in distant parts, in pairs, and against their boxes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.detection.boxes import sides
from maskrcnn.errors import counted
from maskrcnn.kernels.runs import count_pieces, intersection_areas
from maskrcnn.rle import RLE, RunTable
from maskrcnn.structures import MIN_VISIBLE_FRACTION

MIN_MASK_AREA = 4
"""In pixels. Smaller masks are usually slips in an annotation tool."""

MAX_MASK_FRACTION = 0.99
"""Masks that cover more of their image are usually inverted."""

MAX_SHARED = 1 - MIN_VISIBLE_FRACTION
"""Share of the smaller mask that another mask of its class may cover.

Beyond it, the smaller mask may keep less than half of its pixels where masks may not overlap (a submission, the Kaggle
score), and is dropped. Such a pair is usually one object that was drawn twice.
"""

NEARLY_EQUAL = 0.95
"""IoU of two masks above which they are one object. Two people who outline one object seldom agree as well."""

SIMILAR_AREA = 0.5
"""Area of the smaller part over that of the larger one from which they may be two objects. Crumbs and parts behind a
narrow thing are no second object."""

ROWS_AT_ONCE = 256
"""Masks that are compared at once with all others of an image, which bounds memory."""


def check_masks(data: Dataset, i: int) -> list[Problem]:
    """Return the findings about the masks of image i."""
    masks, first = data.runs(i), data.instances(i).start
    height = data.hw(i)[0]
    areas, boxes = masks.areas, masks.boxes(height)
    is_crowd = np.zeros(len(masks), bool) if data.crowd is None else data.crowd[data.instances(i)]
    is_tiny, is_full = areas < MIN_MASK_AREA, areas > MAX_MASK_FRACTION * data.sizes[i].prod()

    def problem(kind: Kind, k: int, message: str, share: float | None = None, other: int | None = None) -> Problem:
        instances = (first + k,) if other is None else (first + k, first + other)
        text = f"image {data.names[i]}: {message}"
        return Problem(kind, data.place(first + k), text, share, image=data.names[i], instances=instances)

    problems = [
        problem(Kind.TINY, k, f"the mask has {counted(int(areas[k]), 'pixel')}")
        for k in np.flatnonzero(is_tiny).tolist()
    ]
    for k in np.flatnonzero((sides(boxes).min(1) == 1) & ~is_tiny).tolist():
        width, length = sorted(sides(boxes)[k].tolist())
        problems.append(problem(Kind.SLIT, k, f"the mask is {width} pixel wide and {length:,} long"))
    for k in np.flatnonzero(is_full).tolist():
        problems.append(problem(Kind.FULL, k, "the mask covers the whole image"))
    pieces = count_pieces(masks.runs, masks.offsets, np.full(len(masks), height))
    for k in np.flatnonzero((pieces > 1) & ~is_tiny & ~is_crowd).tolist():
        if gap := _gap_between_parts(RLE(masks[k], data.hw(i))):
            message = f"the mask has parts of similar size, {counted(gap, 'pixel')} from one another"
            problems.append(problem(Kind.DISTANT_PARTS, k, message))
    labels = data.labels[data.instances(i)]
    for a, b, shared in overlapping_pairs(masks, boxes):
        if is_full[a] != is_full[b] or is_crowd[a] or is_crowd[b]:  # these cover others by their nature
            continue
        same_class, share = bool(labels[a] == labels[b]), shared / int(min(areas[a], areas[b]))
        other = f"that of {data.row_noun} {data.rows[first + a]}"
        iou = shared / int(areas[a] + areas[b] - shared)
        if iou > NEARLY_EQUAL:
            kind = Kind.REPEATED if iou == 1 else Kind.NEARLY_REPEATED
            verb = "repeats" if iou == 1 else "nearly repeats"
            end = "" if iou == 1 else f" (IoU {iou:.3f})"
            verb = verb if same_class else f"{verb}, with another class,"
            problems.append(problem(kind, b, f"the mask {verb} {other}{end}", share, a))
            continue
        kind = Kind.COVERED if same_class and share > MAX_SHARED else Kind.OVERLAP
        message = f"the mask shares {counted(shared, 'pixel')} with {other}, {share:.1%} of the smaller one"
        problems.append(problem(kind, b, message, share, a))
    return problems


def overlapping_pairs(masks: RunTable, boxes: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yield each pair a < b of masks of an image that share pixels, and how many. `boxes` (N, 4) are those of `masks`.

    Memory grows with the number of masks and not with its square.
    """
    for start in range(0, len(masks), ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, len(masks)))
        some = masks.take(rows)
        shared = intersection_areas(some.runs, some.offsets, boxes[rows], masks.runs, masks.offsets, boxes)
        for k, b in np.argwhere(np.triu(shared, start + 1)).tolist():
            yield start + k, b, int(shared[k, b])


def _gap_between_parts(mask: RLE) -> int | None:
    """Return the gap in pixels between two parts of similar size, if it is at least as wide as the narrower part.

    Parts lie beside or below one another: the widest band of empty columns or rows separates them.
    """
    inside = mask.to_mask(mask.box)
    for axis in (0, 1):
        profile = inside.sum(axis)
        filled = np.flatnonzero(profile)
        k = int(np.diff(filled, prepend=filled[0]).argmax())
        left_end, right_start = int(filled[max(k - 1, 0)]) + 1, int(filled[k])
        gap = right_start - left_end
        smaller, larger = sorted((int(profile[:left_end].sum()), int(profile[right_start:].sum())))
        if gap > 0 and gap >= min(left_end, len(profile) - right_start) and smaller >= SIMILAR_AREA * larger:
            return gap
    return None
