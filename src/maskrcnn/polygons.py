"""Polygons -> runs, by the rule of COCO's tools, and back: runs -> outlines along the edges of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from maskrcnn.kernels import outlines
from maskrcnn.kernels import polygons as kernel
from maskrcnn.runs import BadRuns, RLEError, RunTable, shortened

Fill = Literal["union", "even-odd"]


def rasterize_polygons(
    points: np.ndarray,
    polygon_offsets: np.ndarray,
    mask_offsets: np.ndarray,
    hw: np.ndarray | tuple[int, int],
    *,
    fill: Fill = "union",
) -> tuple[RunTable, list[BadRuns]]:
    """Rasterise the polygons of n masks. A malformed polygon raises nothing: it gives an empty mask and a `BadRuns`.

    `points` (P, 2) float are x and y in pixels. Polygon k is ``points[polygon_offsets[k]:polygon_offsets[k + 1]]``,
    closed implicitly, and mask i has the polygons from ``mask_offsets[i]`` to ``mask_offsets[i + 1]``. `hw` holds the
    heights and widths of the masks' pictures, (n, 2), or one size for all.

    `fill` "union" takes the pixels of any polygon of a mask, as COCO does; "even-odd" those of an odd number of them,
    so that holes are polygons like others. Within one polygon, the rule is always even-odd. What lies outside the
    picture is cut off.

    The masks equal those of ``pycocotools.mask.frPyObjects`` bit for bit. They differ where pycocotools' 32-bit numbers
    overflow, at coordinates of more than 429 million pixels: here such polygons are cut off like any other.
    """
    # Kernels are compiled for writable arrays in C order alone.
    points = np.require(points, np.float64, ["C", "W"])
    polygon_offsets, mask_offsets = (np.require(o, np.int64, ["C", "W"]) for o in (polygon_offsets, mask_offsets))
    sizes = np.empty((len(mask_offsets) - 1, 2), np.int64)
    sizes[:] = hw
    run_offsets, problems = kernel.plan_runs(points, polygon_offsets, mask_offsets, sizes)
    runs = np.empty((run_offsets[-1], 2), np.int64)
    offsets = kernel.rasterize(points, polygon_offsets, mask_offsets, sizes, fill == "even-odd", run_offsets, runs)
    bad = []
    for i in np.flatnonzero(problems[:, 0]).tolist():
        code, detail = problems[i].tolist()
        if code in (kernel.TOO_FEW_POINTS, kernel.BAD_COORDINATE):
            polygon = points[polygon_offsets[detail] : polygon_offsets[detail + 1]]
            fault = f"polygon {detail - mask_offsets[i] + 1} {_describe(code, polygon)}"
        elif code == kernel.BAD_SIZE:
            fault = f"the picture is {sizes[i, 0]}x{sizes[i, 1]} (height x width) pixels"
        else:
            fault = (
                f"the polygons cross the columns of a {sizes[i, 0]}x{sizes[i, 1]} (height x width) picture {detail:,} "
                "times, more than any outline of pixels"
            )
        bad.append(BadRuns(i, fault))
    return RunTable(runs[: offsets[-1]], offsets), bad


def _describe(code: int, polygon: np.ndarray) -> str:
    """Say what `code` of `kernels.polygons.plan_runs` means for a polygon (P, 2)."""
    if code == kernel.TOO_FEW_POINTS:
        return f"has {len(polygon)} points; it needs at least 3"
    k, axis = np.argwhere(~(np.abs(polygon) <= kernel.MAX_COORDINATE))[0].tolist()
    return (
        f"has the {'xy'[axis]} coordinate {polygon[k, axis]:g} at point {k + 1}; coordinates are finite and at most "
        f"{kernel.MAX_COORDINATE:,.0f} pixels"
    )


def ring_points(ring: Sequence[float] | np.ndarray, name: str) -> np.ndarray:
    """Return the points (n, 2) float64 of ``[x1, y1, x2, y2, ...]`` or of points (n, 2). `name` stands in errors."""
    try:
        numbers = np.asarray(ring, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise RLEError(f"{name} is not a list of numbers: {shortened(str(ring))}") from None
    if numbers.ndim == 1 and len(numbers) % 2:
        raise RLEError(f"{name} has {len(numbers)} numbers; it needs an even count: x1, y1, x2, y2, ...")
    if numbers.ndim > 2 or (numbers.ndim != 1 and numbers.shape[1:] != (2,)):
        raise RLEError(f"{name} has the shape {numbers.shape}; expected x1, y1, x2, y2, ... or points (n, 2)")
    return numbers.reshape(-1, 2)


class Part(NamedTuple):
    """A connected part of a mask: its outer ring and the rings of its holes, each (n, 2) int64 x and y."""

    outer: np.ndarray
    holes: list[np.ndarray]


def trace_parts(runs: np.ndarray, height: int) -> list[Part]:
    """Return the parts of a mask; `RLE.to_polygons` explains them. Cost grows with the runs and the columns they span.

    The parts are in the order of their first pixels. Outer rings turn clockwise on the screen, holes the other way.
    """
    points, ring_offsets, part_of_ring = outlines.trace_rings(runs, height)
    rings = np.split(points, ring_offsets[1:-1]) if len(points) else []
    parts: list[Part] = []
    for ring, part in zip(rings, part_of_ring.tolist(), strict=True):
        if part == len(parts):
            parts.append(Part(ring, []))
        else:
            parts[part].holes.append(ring)
    return parts


def join_rings(rings: Sequence[np.ndarray]) -> np.ndarray:
    """Join rings (n, 2), outer rings and holes alike, into one polygon for formats that allow one polygon an object.

    A bridge of no width connects each ring's first point with a near point of the rings before it. The polygon walks
    every bridge there and back, which cancels under the even-odd rule: COCO's tools and `rasterize_polygons` give the
    mask of the rings. Programs that also draw the outline, such as ``cv2.fillPoly``, draw the bridges too.
    Points keep their type. Raise `RLEError` without rings and for a ring without points.
    """
    float_rings = [ring_points(ring, f"ring {i + 1}") for i, ring in enumerate(rings)]
    lengths = [len(ring) for ring in float_rings]
    if min(lengths, default=0) == 0:
        raise RLEError("only rings of at least one point can be joined into a polygon")
    points = np.concatenate(float_rings)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    order = outlines.order_of_bridged_points(points, offsets, np.lexsort(points.T[::-1]))
    return np.concatenate([np.reshape(ring, (-1, 2)) for ring in rings])[order]
