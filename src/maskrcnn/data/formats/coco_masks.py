"""COCO's segmentations, and the ways in which programs write them: JSON -> runs.

[[x1, y1, x2, y2, ...], ...]           polygons, whose union is the mask
[x1, y1, ...], [[x1, y1], [x2, y2]]    one polygon; lists of such polygons, and of lists of polygons
{"size": [h, w], "counts": ...}        runs; also in a list
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from maskrcnn.data.formats.annotations import PolygonText
from maskrcnn.data.formats.source import decoded
from maskrcnn.errors import UserError
from maskrcnn.kernels.runs import count_pieces
from maskrcnn.rle import RLE, RLEError, shortened

MAX_EMPTY = 100
"""Bytes within which an empty segmentation ends, however it is indented."""

EMPTY = (b"null", b"[]", b"[[]]", b'""', b"{}")

MAX_DEPTH = 4
"""Lists within lists that a segmentation may have."""

MIN_SIDE_OF_FRACTIONS = 3
"""Side of a picture in pixels from which coordinates that are all between 0 and 1 are fractions of it."""


def has_mask(segmentation: msgspec.Raw) -> bool:
    """Whether a segmentation is not one of the forms of nothing."""
    text = memoryview(segmentation)
    return len(text) > MAX_EMPTY or b"".join(bytes(text).split()) not in EMPTY


class Segmentation(PolygonText):
    """A segmentation of `file`, decoded when it is drawn: a data set holds it as text until then."""

    __slots__ = ("file", "raw")

    def __init__(self, raw: msgspec.Raw, file: Path) -> None:
        self.raw, self.file = raw, file

    @property
    def is_runs(self) -> bool:
        """Whether it is an object of runs."""
        return bytes(memoryview(self.raw)[:1]) == b"{"

    @property
    def text(self) -> str | None:
        """Lists as they stand in the file, None for runs."""
        return None if self.is_runs else bytes(self.raw).decode(errors="replace")

    def __call__(self, hw: tuple[int, int]) -> RLE:
        """Draw it on a picture of (height, width). Raise `RLEError`."""
        try:
            value = decoded(self.raw, Any, self.file)
        except UserError as error:
            raise RLEError(f"the segmentation {str(error).removeprefix(f'{self.file} ')}") from None
        polygons, runs = [], []
        for shape in _shapes(value, 0):
            if isinstance(shape, dict):
                runs.append(draw_runs(shape, hw))
            elif len(shape) not in (2, 4):  # a point or a line, which covers no pixel
                polygons.append(shape)
        _refuse_fractions(polygons, hw)
        mask = RLE.from_polygons(polygons, hw) if polygons else RLE.empty(hw)
        for other in runs:
            mask = mask.union(other)
        return mask


def count_whole(segmentations: Sequence[Segmentation]) -> int:
    """Count those that are runs in one piece."""
    n = 0
    for segmentation in segmentations:
        try:
            mask = RLE.from_coco(msgspec.json.decode(segmentation.raw))
        except (msgspec.DecodeError, RLEError):
            continue  # a problem once it is drawn
        pieces = count_pieces(mask.runs, np.array([0, len(mask.runs)]), np.array([mask.hw[0]]))
        n += int(pieces[0]) == 1
    return n


def draw_runs(shape: dict[str, Any], hw: tuple[int, int]) -> RLE:
    """Decode runs of a picture of the size `hw`."""
    mask = RLE.from_coco(shape)
    if mask.hw != hw:
        swapped = "; its numbers are swapped" if mask.hw == hw[::-1] else ""
        stated = f"{mask.hw[0]} x {mask.hw[1]}"
        raise RLEError(f"the runs are of a picture of {stated}, not {hw[0]} x {hw[1]} (height x width){swapped}")
    return mask


def _shapes(value: Any, depth: int) -> Iterator[list[float] | dict[str, Any]]:
    """Yield the polygons, each ``[x1, y1, x2, y2, ...]``, and the runs that lists within lists hold."""
    if isinstance(value, dict):
        yield value
        return
    if not isinstance(value, list) or depth > MAX_DEPTH:
        raise RLEError(f"the segmentation {shortened(str(value))} is neither polygons nor runs")
    if all(_is_number(number) for number in value):
        if value:
            yield value
    elif all(_is_point(point) for point in value) and len(value) > 2:
        yield [number for point in value for number in point]
    else:
        for shape in value:
            yield from _shapes(shape, depth + 1)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _refuse_fractions(polygons: list[list[float]], hw: tuple[int, int]) -> None:
    """Raise `RLEError` if the coordinates are fractions of the picture, as other formats have them."""
    numbers = [number for polygon in polygons for number in polygon]
    between = bool(numbers) and min(numbers) >= 0 and max(numbers) <= 1
    if between and any(number % 1 for number in numbers) and min(hw) >= MIN_SIDE_OF_FRACTIONS:
        raise RLEError(
            "all coordinates are between 0 and 1, as fractions of the picture; COCO's are in pixels. Multiply x by the "
            "width and y by the height"
        )
