"""Polygons in a mask column, as in COCO's ``segmentation``: texts -> lists of numbers -> masks.

``[x, y, x, y, ...]`` and ``[[x, y, ...], ...]`` look like lists of runs. All rows together tell: x rarely increases
from point to point as the starts of runs must, and fractions and lists of several polygons are no runs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl

from maskrcnn.data.formats.dialects import MIN_OF_FORM, Translated, counts_of_object, parsed
from maskrcnn.rle import RLE, BadRuns, RLEError, RunTable, shortened

MARGIN = 1.0
"""In pixels. Annotation tools place points on the far edge of a picture, and slightly beyond it."""

MIN_NUMBERS = 6
"""Numbers of a triangle."""

Polygons = list[list[float]]


def read_polygons(texts: pl.Series, hw: np.ndarray, are_runs: np.ndarray) -> Translated | None:
    """Return the masks of texts that are polygons in pixels, or None if they have another form, or may be runs.

    `hw` (n, 2) are the (height, width) of the images. `are_runs` (n,) says which texts are valid as lists of runs. At
    least `MIN_OF_FORM` of the texts must be polygons inside their images. More of these must be impossible as runs, by
    their numbers or as lists of lists, than there are runs. A text may also be COCO's RLE, as it is for crowds.
    """
    polygons_of_text = [_polygons(parsed(text)) if text.startswith(("[", "(")) else None for text in texts]
    sizes = hw.tolist()
    pairs = list(zip(polygons_of_text, sizes, strict=True))
    are_polygons = np.array([polygons is not None and _inside(polygons, size) for polygons, size in pairs])
    are_nested = np.array([text.startswith(("[[", "((", "[(", "([")) for text in texts]) & are_polygons
    n_decisive, n_runs = int((are_polygons & (are_nested | ~are_runs)).sum()), int((are_runs & ~are_nested).sum())
    if are_polygons.sum() < MIN_OF_FORM * len(texts) or n_decisive <= n_runs:
        return None
    masks, bad = [], []
    for i, (text, (polygons, size)) in enumerate(zip(texts, pairs, strict=True)):
        try:
            masks.append(_mask(text, polygons, size).runs)
        except RLEError as error:
            masks.append(np.empty((0, 2), np.int64))
            bad.append(BadRuns(i, str(error)))
    name = f"polygons of x and y, because {n_decisive:,} of {len(texts):,} cannot be runs"
    return Translated(RunTable.of(masks), bad, name)


def _mask(text: str, polygons: Polygons | None, hw: list[int]) -> RLE:
    if text.startswith("{"):
        return RLE.from_coco({"size": hw, "counts": counts_of_object(text, hw)})
    if polygons is None:
        raise RLEError(f"{shortened(text)!r} is no polygon; expected [x, y, x, y, ...] of 3 points or more")
    if not _inside(polygons, hw):
        raise RLEError(f"the polygon {shortened(text)!r} goes beyond the image of {hw[0]} x {hw[1]} (height x width)")
    return RLE.from_polygons(polygons, (hw[0], hw[1]))


def _polygons(content: Any) -> Polygons | None:
    """Return the polygons in what a text says, or None if it says anything else."""
    if not isinstance(content, list | tuple) or not content:
        return None
    parts = content if isinstance(content[0], list | tuple) else [content]
    return [list(part) for part in parts] if all(map(_is_polygon, parts)) else None


def _is_polygon(part: Any) -> bool:
    if not isinstance(part, list | tuple) or len(part) < MIN_NUMBERS or len(part) % 2:
        return False
    return all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in part)


def _inside(polygons: Polygons, hw: list[int]) -> bool:
    """Whether all points lie in an image of `hw`, or next to it."""
    return all(
        min(part[k::2]) >= -MARGIN and max(part[k::2]) <= side + MARGIN
        for part in polygons
        for k, side in ((0, hw[1]), (1, hw[0]))
    )
