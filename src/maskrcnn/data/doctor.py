"""Checks for data that is valid but probably wrong, image by image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from maskrcnn.data.dataset import read_pixels
from maskrcnn.data.table import Dataset, Problem
from maskrcnn.errors import ImageError
from maskrcnn.kernels.runs import intersection_areas

MIN_MASK_AREA = 4
"""In pixels. Smaller masks are usually slips in an annotation tool."""

MAX_MASK_FRACTION = 0.99
"""Masks that cover more of their image are usually inverted."""


def find_problems(
    data: Dataset, *, decode: bool = True, on_image: Callable[[int], None] | None = None
) -> list[Problem]:
    """Find repeated, tiny, overlapping and image-filling masks and, with `decode`, damaged images."""
    problems: list[Problem] = []
    for i in range(len(data)):
        problems += _check_masks(data, i)
        if decode:
            try:
                read_pixels(data, i)
            except ImageError as error:
                problems.append(Problem("unreadable image", str(error)))
        if on_image is not None:
            on_image(i + 1)
    return problems


def _check_masks(data: Dataset, i: int) -> list[Problem]:
    masks, rows = data.runs(i), data.rows[data.instances(i)]
    labels, areas, boxes = data.labels[data.instances(i)], masks.areas, masks.boxes(data.hw(i)[0])
    name, max_area = data.names[i], MAX_MASK_FRACTION * int(data.sizes[i].prod())

    def problem(k: int, message: str) -> Problem:
        return Problem(f"{data.source}, row {rows[k]}", f"image {name}: {message}")

    problems = [problem(k, f"the mask has {areas[k]} pixels") for k in np.flatnonzero(areas < MIN_MASK_AREA).tolist()]
    problems += [problem(k, "the mask covers the whole image") for k in np.flatnonzero(areas > max_area).tolist()]
    intersections = intersection_areas(masks.runs, masks.offsets, boxes, masks.runs, masks.offsets, boxes)
    first, second = np.nonzero(np.triu(intersections, 1))
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        if intersections[a, b] == areas[a] == areas[b]:
            verb = "repeats" if labels[a] == labels[b] else "repeats, with another class,"
            problems.append(problem(b, f"the mask {verb} that of row {rows[a]}"))
        else:
            problems.append(problem(b, f"the mask shares {intersections[a, b]} pixels with that of row {rows[a]}"))
    return problems
