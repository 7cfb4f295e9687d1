"""Checks for data that is valid but probably wrong, image by image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from maskrcnn.data.dataset import read_pixels
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.errors import ImageError
from maskrcnn.kernels.runs import intersection_areas
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


def find_problems(
    data: Dataset, *, decode: bool = True, on_image: Callable[[int], None] | None = None
) -> list[Problem]:
    """Find repeated, tiny, overlapping and image-filling masks and, with `decode`, damaged images.

    Crowd regions may be of any size and overlap anything.
    """
    problems: list[Problem] = []
    objects = data.without_crowd
    for i in range(len(data)):
        problems += _check_masks(objects, i)
        if decode:
            try:
                read_pixels(data, i)
            except ImageError as error:
                problems.append(Problem(Kind.UNREADABLE, "unreadable image", str(error)))
        if on_image is not None:
            on_image(i + 1)
    return problems


def _check_masks(data: Dataset, i: int) -> list[Problem]:
    masks, first = data.runs(i), data.instances(i).start
    labels, areas, boxes = data.labels[data.instances(i)], masks.areas, masks.boxes(data.hw(i)[0])
    name, max_area = data.names[i], MAX_MASK_FRACTION * int(data.sizes[i].prod())

    def problem(kind: Kind, k: int, message: str, share: float | None = None) -> Problem:
        return Problem(kind, data.place(first + k), f"image {name}: {message}", share)

    tiny, full = (np.flatnonzero(found).tolist() for found in (areas < MIN_MASK_AREA, areas > max_area))
    problems = [problem(Kind.TINY, k, f"the mask has {areas[k]} pixel{'s' if areas[k] > 1 else ''}") for k in tiny]
    problems += [problem(Kind.FULL, k, "the mask covers the whole image") for k in full]
    intersections = intersection_areas(masks.runs, masks.offsets, boxes, masks.runs, masks.offsets, boxes)
    for a, b in np.argwhere(np.triu(intersections, 1)).tolist():
        same_class, shared = bool(labels[a] == labels[b]), int(intersections[a, b])
        share = shared / int(min(areas[a], areas[b]))
        other = f"that of {data.row_noun} {data.rows[first + a]}"
        if shared == areas[a] == areas[b]:
            verb = "repeats" if same_class else "repeats, with another class,"
            problems.append(problem(Kind.REPEATED, b, f"the mask {verb} {other}", share))
            continue
        kind = Kind.COVERED if same_class and share > MAX_SHARED else Kind.OVERLAP
        message = f"the mask shares {shared:,} pixels with {other}, {share:.1%} of the smaller one"
        problems.append(problem(kind, b, message, share))
    return problems
