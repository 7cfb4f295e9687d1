"""Examination: what is legal to read and yet probably wrong, instance by instance and picture by picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from maskrcnn.data.dataset import read_pixels
from maskrcnn.data.images import ImageError
from maskrcnn.data.table import Dataset, Problem
from maskrcnn.kernels.runs import intersection_areas

TINY = 4
"""Masks of fewer pixels are most often slips of an annotation tool."""

WHOLE = 0.99
"""Masks that cover more of their image are most often inverted."""


def examine(data: Dataset, *, decode: bool = True, on_image: Callable[[int], None] | None = None) -> list[Problem]:
    """Problems of `data`: repeated, tiny, overlapping and image-filling masks; with `decode`, damaged pictures."""
    problems: list[Problem] = []
    for i in range(len(data)):
        problems += _masks_of(data, i)
        if decode:
            try:
                read_pixels(data, i)
            except ImageError as error:
                problems.append(Problem("unreadable image", str(error)))
        if on_image is not None:
            on_image(i + 1)
    return problems


def _masks_of(data: Dataset, i: int) -> list[Problem]:
    masks, rows = data.runs(i), data.rows[data.instances(i)]
    labels = data.labels[data.instances(i)]
    areas, boxes = masks.areas, masks.boxes(data.hw(i)[0])
    name, pixels = data.names[i], int(data.sizes[i].prod())

    def problem(k: int, message: str) -> Problem:
        return Problem(f"{data.source}, row {rows[k]}", f"image {name}: {message}")

    found = [problem(k, f"the mask has {areas[k]} pixels") for k in np.flatnonzero(areas < TINY).tolist()]
    found += [problem(k, "the mask covers the whole image") for k in np.flatnonzero(areas > WHOLE * pixels).tolist()]
    shared = intersection_areas(masks.runs, masks.offsets, boxes, masks.runs, masks.offsets, boxes)
    first, second = np.nonzero(np.triu(shared, 1))
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        if shared[a, b] == areas[a] == areas[b]:
            what = "repeats" if labels[a] == labels[b] else "is the same, under another class, as"
            found.append(problem(b, f"the mask {what} that of row {rows[a]}"))
        else:
            found.append(problem(b, f"the mask shares {shared[a, b]} pixels with that of row {rows[a]}"))
    return found
