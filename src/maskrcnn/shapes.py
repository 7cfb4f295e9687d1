"""Rectangles, circles, ellipses and lines of annotation tools -> masks of a picture of size `hw` (height, width).

Coordinates are continuous: pixel ``i`` spans ``[i, i + 1)``, and its centre is ``i + 0.5``. A pixel belongs to a shape
if its centre does. Rectangles are polygons, whose corners COCO's rule rounds to fifths of a pixel. Upright ones follow
the rule of centres exactly; a centre on the right or bottom side is inside, one on the left or top side is not.

Angles are in degrees, clockwise on the screen. What lies outside the picture is cut off. A point has no area, hence no
mask.

Every function raises `RLEError` for a number that is not finite or beyond 1e9, and for a negative radius or width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from maskrcnn.kernels.polygons import MAX_COORDINATE, join_intervals
from maskrcnn.rle import RLE
from maskrcnn.runs import RLEError, shortened

Point = Sequence[float]

SEGMENTS = 256
"""Segments of a line that are drawn together. It bounds memory at 40 bytes for each of them and each column."""


def rectangle(box: Sequence[float], hw: tuple[int, int], *, degrees: float = 0.0, pivot: Point | None = None) -> RLE:
    """Return a rectangle ``(x1, y1, x2, y2)``, in any order of its corners, turned around `pivot`.

    The pivot is the centre by default, as in CVAT. Label Studio turns around the corner (x1, y1).
    """
    x1, y1, x2, y2 = _checked("rectangle", box, 4)
    (angle,) = _checked("rectangle's angle", [degrees], 1)
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    if angle % 360:
        center = np.array([(x1 + x2) / 2, (y1 + y2) / 2] if pivot is None else _checked("pivot", pivot, 2))
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        corners = (corners - center) @ np.array([[cos, sin], [-sin, cos]]) + center
    return RLE.from_polygons([corners], hw)


def circle(center: Point, radius: float, hw: tuple[int, int]) -> RLE:
    """Return the disc of `radius` around `center` (x, y), as in VIA. LabelMe gives a point on the circle instead."""
    return ellipse(center, (radius, radius), hw)


def ellipse(center: Point, radii: Sequence[float], hw: tuple[int, int], *, degrees: float = 0.0) -> RLE:
    """Return an ellipse with the half axes `radii` (rx, ry) around `center` (x, y), turned by `degrees`.

    CVAT has cx, cy, rx, ry and degrees. VIA's theta is in radians.
    """
    cx, cy = _checked("centre of an ellipse", center, 2)
    rx, ry = _checked("radii of an ellipse", radii, 2, min_value=0)
    (angle,) = _checked("ellipse's angle", [degrees], 1)
    cos, sin = math.cos(math.radians(angle % 360)), math.sin(math.radians(angle % 360))
    half_width = math.hypot(rx * cos, ry * sin)
    if min(rx, ry, half_width) == 0:
        return RLE.empty(hw)
    columns = _columns(cx - half_width, cx + half_width, hw)
    # At the distance u from the centre, in half widths, a column is cut at equal distances from a sheared axis.
    u = (columns + 0.5 - cx) / half_width
    middle = cy + u * ((rx - ry) * (rx + ry) * sin * cos / half_width)
    half = rx * ry / half_width * np.sqrt(np.maximum(1 - u * u, 0))
    return _from_intervals([(columns, middle - half, middle + half)], hw)


def polyline(points: Sequence[Point] | np.ndarray, width: float, hw: tuple[int, int]) -> RLE:
    """Return the pixels within ``width / 2`` of a line through `points` (n, 2) x and y: its ends and joins are round.

    This covers LabelMe's line and linestrip, VIA's and CVAT's polyline. They have no width: the caller chooses it.
    """
    if len(points) == 0:
        return RLE.empty(hw)
    (radius,) = (w / 2 for w in _checked("width of a line", [width], 1, min_value=0))
    vertices = [_checked(f"point {i + 1} of a line", point, 2) for i, point in enumerate(points)]
    segments = list(pairwise(vertices)) or [(vertices[0], vertices[0])]
    mask = RLE.empty(hw)
    for first in range(0, len(segments), SEGMENTS):
        capsules = [_capsule(start, end, radius, hw) for start, end in segments[first : first + SEGMENTS]]
        mask = mask.union(_from_intervals(capsules, hw))
    return mask


def _capsule(start: Point, end: Point, radius: float, hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return columns and the interval of y in each of the points within `radius` of a segment.

    The set is convex: in each column, it is the hull of the discs around both ends and of the strip between them.
    """
    (x1, y1), (x2, y2) = sorted([tuple(start), tuple(end)])
    columns = _columns(x1 - radius, x2 + radius, hw)
    x = columns + 0.5
    tops, bottoms = [], []
    for cx, cy in ((x1, y1), (x2, y2)):
        inside = np.abs(x - cx) <= radius
        half = np.sqrt(np.maximum((radius - (x - cx)) * (radius + (x - cx)), 0))
        tops.append(np.where(inside, cy - half, np.inf))
        bottoms.append(np.where(inside, cy + half, -np.inf))
    length = math.hypot(x2 - x1, y2 - y1)
    if length > 0:
        # The strip is the hull of two parallels to the segment, shifted by `radius` to either side.
        dx, dy = (x2 - x1) / length, (y2 - y1) / length
        for side in (-radius, radius):
            inside = (x >= x1 - side * dy) & (x <= x2 - side * dy) & (dx > 0)
            y = y1 + side * dx + (x - (x1 - side * dy)) * (dy / dx if dx > 0 else 0)
            tops.append(np.where(inside, y, np.inf))
            bottoms.append(np.where(inside, y, -np.inf))
    return columns, np.min(tops, 0), np.max(bottoms, 0)


def _columns(left: float, right: float, hw: tuple[int, int]) -> np.ndarray:
    """Return the columns of a picture whose centres lie in ``[left, right]``, (n,) int64."""
    first, end = math.ceil(max(left - 0.5, 0)), math.floor(min(right - 0.5, hw[1] - 1)) + 1
    return np.arange(first, max(first, end))


def _from_intervals(intervals: list[tuple[np.ndarray, np.ndarray, np.ndarray]], hw: tuple[int, int]) -> RLE:
    """Return the union of closed intervals, each (column, top, bottom), of pixels whose centres lie in them."""
    columns, top, bottom = (np.concatenate(parts) for parts in zip(*intervals, strict=True))
    h, w = int(hw[0]), int(hw[1])
    first = np.ceil(np.clip(top - 0.5, 0, h)).astype(np.int64)
    end = np.floor(np.clip(bottom - 0.5, -1, h - 1)).astype(np.int64) + 1
    inside = end > first
    starts, ends = (columns * h + first)[inside], (columns * h + end)[inside]
    runs = np.empty((len(starts), 2), np.int64)
    n = join_intervals(np.sort(starts), np.sort(ends), runs)
    return RLE(runs[:n].copy(), (h, w))


def _checked(name: str, values: Sequence[float], n: int, min_value: float = -MAX_COORDINATE) -> list[float]:
    """Return n numbers, or raise `RLEError` if they are others, not finite, beyond the limit or below `min_value`."""
    try:
        numbers = [float(v) for v in values]
    except (TypeError, ValueError, OverflowError):
        raise RLEError(f"{name}: {shortened(str(values))} are not numbers") from None
    if len(numbers) != n:
        raise RLEError(f"{name}: expected {n} numbers, not {len(numbers)}")
    for number in numbers:
        if not min_value <= number <= MAX_COORDINATE:
            raise RLEError(f"{name}: {number:g} is not between {min_value:g} and {MAX_COORDINATE:g}")
    return numbers
