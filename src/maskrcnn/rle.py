"""Run-length encoded masks: the only form of a mask between the loader and the evaluator.

    EncodedPixels, COCO RLE, polygons, dense arrays  <->  RLE  ->  area, box, crop, IoU, ...

A run is ``(start, length)``, 0-based and column-major: pixel ``(row, column)`` of an image of height H has the index
``column * H + row``. EncodedPixels use this order and count from 1. COCO's counts use it and alternate between
background and mask. Conversions between these forms touch no pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from maskrcnn.kernels import encode, overlaps, texts
from maskrcnn.kernels import runs as kernel
from maskrcnn.polygons import Part, rasterize_polygons, ring_points, trace_parts
from maskrcnn.runs import BadRuns, RLEError, RunTable, shortened

Order = Literal["column", "row"]
Origin = Literal[0, 1]


def _describe(problem: np.ndarray, text: str, n_pixels: int, origin: int) -> str:
    code, index, value = (int(v) for v in problem)
    words = text.split()
    word = words[index] if index < len(words) else str(value)
    place = f"value {index + 1} ({word[:40]!r})"
    return {
        texts.NOT_INTEGER: (
            f'{place} is not an integer in {shortened(text)!r}; expected "start length start length ...", integers '
            "separated by spaces"
        ),
        texts.ODD_COUNT: f"{place} is a start without a length: the number of values, {index + 1}, is odd",
        texts.NOT_POSITIVE: (
            f"{place} is a length below 1" if index % 2 else f"{place} is a start below {origin}, the first pixel"
        ),
        texts.PAST_END: f"{place} makes the run end past the image's last pixel ({n_pixels} pixels)",
        texts.OVERLAP: f"{place} starts inside the previous run",
        texts.DECREASING: f"{place} is smaller than the previous start; starts must increase",
    }[code]


def parse_column(
    text: np.ndarray, offsets: np.ndarray, n_pixels: np.ndarray, *, origin: int = 1, relative: bool = False
) -> tuple[RunTable, list[BadRuns]]:
    """Parse a column of start/length texts. Raise nothing: a malformed text gives an empty mask and a `BadRuns`.

    `text` holds the UTF-8 bytes (uint8) of all texts, `offsets` (n + 1,) delimits them, and `n_pixels` (n,) is H * W
    of each image, or -1 if unknown. One pass finds every bad text.
    """
    run_offsets = np.concatenate([[0], np.cumsum((texts.count_numbers(text, offsets) + 1) // 2)])
    runs = np.empty((run_offsets[-1], 2), np.int64)
    counts, problems = texts.parse_runs(text, offsets, n_pixels.astype(np.int64), run_offsets, origin, relative, runs)
    bad = []
    for i in np.flatnonzero(problems[:, 0]):
        words = text[offsets[i] : offsets[i + 1]].tobytes().decode("utf-8", "replace")
        bad.append(BadRuns(int(i), _describe(problems[i], words, int(n_pixels[i]), origin)))
        counts[i] = 0
    new_offsets = texts.compact_runs(runs, run_offsets, counts)
    return RunTable(runs[: new_offsets[-1]], new_offsets), bad


@dataclass(frozen=True, eq=False)
class RLE:
    """Mask of an image of size `hw` (height, width). `runs` is canonical: increasing, with gaps between runs."""

    runs: np.ndarray
    hw: tuple[int, int]

    # ---- from other forms -------------------------------------------------------------------------------------

    @classmethod
    def empty(cls, hw: tuple[int, int]) -> RLE:
        """Return a mask without pixels."""
        return cls(np.empty((0, 2), np.int64), (int(hw[0]), int(hw[1])))

    @classmethod
    def from_encoded_pixels(
        cls, text: str, hw: tuple[int, int], *, origin: Origin = 1, order: Order = "column", relative: bool = False
    ) -> RLE:
        """Parse ``"start length start length ..."``. An empty text is an empty mask.

        `origin` is the number of the first pixel. Kaggle counts from 1, down the columns; `order` "row" counts along
        the rows. With `relative`, each start is an offset from the end of the previous run. Raise `RLEError` for an odd
        number of values, a non-integer, a start before the origin, a length below 1, overlapping or decreasing runs,
        and a run past the end of the image.
        """
        h, w = int(hw[0]), int(hw[1])
        raw = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
        table, bad = parse_column(raw, np.array([0, len(raw)]), np.array([h * w]), origin=origin, relative=relative)
        if bad:
            raise RLEError(f"EncodedPixels of a {h}x{w} (height x width) image: {bad[0].message}")
        return cls(table.runs if order == "column" else kernel.transpose_runs(table.runs, h, w), (h, w))

    @classmethod
    def from_coco(cls, coco: dict[str, Any]) -> RLE:
        """Convert COCO's ``{"size": [h, w], "counts": ...}``, with counts as a list or a compressed string."""
        if not {"size", "counts"} <= set(coco):
            raise RLEError(f'COCO RLE needs "size" and "counts"; its keys are {sorted(coco)}')
        try:
            h, w = (int(v) for v in coco["size"])
        except (TypeError, ValueError, OverflowError):
            raise RLEError(f"COCO RLE: the size {shortened(str(coco['size']))} is not [height, width]") from None
        counts = coco["counts"]
        if isinstance(counts, str | bytes):
            # A half of a surrogate pair, which JSON can escape, becomes "?", which is no count either.
            chars = np.frombuffer(counts.encode("utf-8", "replace") if isinstance(counts, str) else counts, np.uint8)
            numbers, bad_position = texts.chars_to_counts(chars)
            if bad_position >= 0:
                raise RLEError(f"COCO RLE: character {bad_position + 1} of the counts is invalid")
        else:
            try:
                numbers = np.asarray(counts, np.int64)
            except (TypeError, ValueError, OverflowError):
                numbers = None
            if numbers is None or numbers.ndim != 1 or not np.array_equal(numbers, counts):
                raise RLEError(f"COCO RLE: the counts {shortened(str(counts))} are not a list of integers")
        try:
            return cls.from_counts(numbers, (h, w))
        except RLEError as error:
            raise RLEError(f"COCO RLE: {error}") from None

    @classmethod
    def from_counts(cls, counts: Sequence[int] | np.ndarray, hw: tuple[int, int], *, order: Order = "column") -> RLE:
        """Return the mask of counts that alternate between background (first) and mask, as integers (n,).

        Raise `RLEError` for a negative count and for counts that do not add up to the pixels of the image.
        """
        h, w = int(hw[0]), int(hw[1])
        numbers = np.asarray(counts, np.int64)
        for i in np.flatnonzero(numbers < 0)[:1]:
            raise RLEError(f"count {i + 1} is {numbers[i]}; counts cannot be negative")
        for i in np.flatnonzero(numbers > h * w)[:1]:  # their sum could overflow
            raise RLEError(f"count {i + 1} is {numbers[i]}, more than all {h} x {w} = {h * w} pixels")
        if numbers.sum() != h * w:
            raise RLEError(f"the counts add up to {numbers.sum()}, not to {h} x {w} = {h * w} pixels")
        lengths = numbers[1::2]
        runs = _join_touching(np.stack([np.cumsum(numbers)[1::2] - lengths, lengths], 1)[lengths > 0])
        return cls(runs if order == "column" else kernel.transpose_runs(runs, h, w), (h, w))

    @classmethod
    def from_mask(cls, mask: np.ndarray) -> RLE:
        """Encode a dense (H, W) array. Nonzero pixels are the mask.

        A bool or 8-bit array in row-major or column-major memory is read in place; any other array is copied once.
        """
        if mask.ndim != 2:
            raise RLEError(f"a mask must have the shape (height, width), not {mask.shape}")
        height, width = mask.shape
        pixels = mask if mask.dtype.char in "?bB" else mask != 0
        if pixels.flags.f_contiguous:
            return cls(encode.runs_of_columns(pixels.ravel("F").view(np.uint8)), (height, width))
        return cls(encode.runs_of_rows(pixels.ravel().view(np.uint8), height, width), (height, width))

    @classmethod
    def from_polygons(
        cls,
        polygons: Sequence[Sequence[float] | np.ndarray],
        hw: tuple[int, int],
        *,
        holes: Sequence[Sequence[float] | np.ndarray] = (),
    ) -> RLE:
        """Rasterise the union of `polygons` without the union of `holes`, by COCO's rule.

        A polygon is ``[x1, y1, x2, y2, ...]`` or points (n, 2), in pixels. `polygons.rasterize_polygons` explains the
        rule, and rasterises many masks in one pass. Raise `RLEError` for a polygon of fewer than 3 points, an odd count
        of numbers, and a coordinate that is not finite or beyond 1e9.
        """
        h, w = int(hw[0]), int(hw[1])
        rings = [ring_points(polygon, f"polygon {i + 1}") for i, polygon in enumerate(polygons)]
        rings += [ring_points(hole, f"hole {i + 1}") for i, hole in enumerate(holes)]
        offsets = np.concatenate([[0], np.cumsum([len(ring) for ring in rings], dtype=np.int64)])
        points = np.concatenate([np.empty((0, 2)), *rings])
        table, bad = rasterize_polygons(points, offsets, np.array([0, len(polygons), len(rings)]), (h, w))
        if bad:
            raise RLEError(bad[0].message if bad[0].index == 0 else f"of the holes, {bad[0].message}")
        mask = cls(table[0], (h, w))
        return mask.difference(cls(table[1], (h, w))) if len(table[1]) else mask

    # ---- to other forms ---------------------------------------------------------------------------------------

    def to_encoded_pixels(self, *, origin: Origin = 1, order: Order = "column", relative: bool = False) -> str:
        """Format as ``"start length ..."``. `from_encoded_pixels` explains the options."""
        runs = self._runs_in(order)
        starts = runs[:, 0] + origin
        if relative:
            starts = np.diff(runs[:, 0], prepend=0) - np.concatenate([[0], runs[:-1, 1]])
        return " ".join(map(str, np.stack([starts, runs[:, 1]], 1).ravel().tolist()))

    def counts(self, *, order: Order = "column") -> list[int]:
        """Return uncompressed counts, which alternate between background (first) and mask. COCO's go down columns."""
        return self._counts(order).tolist()

    def to_coco(self) -> dict[str, Any]:
        """Return COCO's compressed form, ``{"size": [h, w], "counts": str}``."""
        chars = texts.counts_to_chars(self._counts("column"))
        return {"size": [self.hw[0], self.hw[1]], "counts": chars.tobytes().decode("ascii")}

    def _counts(self, order: Order) -> np.ndarray:
        """Return `counts` as an int64 array."""
        n_pixels = self.hw[0] * self.hw[1]
        runs = self._runs_in(order)
        edges = np.concatenate([[0], np.stack([runs[:, 0], runs.sum(1)], 1).ravel(), [n_pixels]])
        numbers = np.diff(edges)
        return numbers[:-1] if len(numbers) > 1 and numbers[-1] == 0 else numbers

    def _runs_in(self, order: Order) -> np.ndarray:
        """Return the runs (n, 2) along columns or rows."""
        return self.runs if order == "column" else kernel.transpose_runs(self.runs, self.hw[1], self.hw[0])

    def to_polygons(self) -> list[Part]:
        """Trace the outlines of the parts of the mask along the edges of its pixels.

        A part is a set of pixels connected by edges; pixels that meet only at a corner are not connected by it. Points
        are corners of pixels, (n, 2) int64 x and y, without points on straight lines. `from_polygons` of a
        part's outer ring and holes gives back that part. `polygons.join_rings` makes one polygon of all rings.
        """
        return trace_parts(self.runs, self.hw[0])

    def to_mask(self, window: tuple[int, int, int, int] | None = None) -> np.ndarray:
        """Return a dense bool (H, W) array, or its window ``(x1, y1, x2, y2)``, which may extend beyond the image."""
        x1, y1, x2, y2 = window or (0, 0, self.hw[1], self.hw[0])
        mask = np.zeros((y2 - y1, x2 - x1), bool)
        kernel.paint_runs(self.runs, self.hw[0], x1, y1, mask)
        return mask

    # ---- measures and operations ------------------------------------------------------------------------------

    @property
    def area(self) -> int:
        """Pixel count."""
        return int(self.runs[:, 1].sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Half-open box (x1, y1, x2, y2): x2 is the last column + 1. An empty mask has (0, 0, 0, 0)."""
        x1, y1, x2, y2 = RunTable.of([self.runs]).boxes(self.hw[0])[0].tolist()
        return x1, y1, x2, y2

    def crop(self, window: tuple[int, int, int, int]) -> RLE:
        """Crop to the window ``(x1, y1, x2, y2)``; its corner becomes the origin. Outside the image is background."""
        x1, y1, x2, y2 = (int(v) for v in window)
        if x2 < x1 or y2 < y1:
            raise RLEError(f"the window (x1, y1, x2, y2) = {window} needs x1 <= x2 and y1 <= y2")
        return RLE(kernel.window_runs(self.runs, self.hw[0], x1, y1, x2, y2), (y2 - y1, x2 - x1))

    def shift(self, dx: int, dy: int, hw: tuple[int, int] | None = None) -> RLE:
        """Move by (dx, dy) pixels on a canvas of size `hw`, by default unchanged. Pixels off the canvas are lost."""
        h, w = hw or self.hw
        return self.crop((-dx, -dy, w - dx, h - dy))

    def union(self, other: RLE) -> RLE:
        """Return the pixels in either mask."""
        return self._merge(other, (True, True, True))

    def intersection(self, other: RLE) -> RLE:
        """Return the pixels in both masks."""
        return self._merge(other, (False, True, False))

    def difference(self, other: RLE) -> RLE:
        """Return the pixels of this mask that are not in `other`."""
        return self._merge(other, (True, False, False))

    def _merge(self, other: RLE, keep: tuple[bool, bool, bool]) -> RLE:
        if self.hw != other.hw:
            raise RLEError(f"cannot combine masks of different sizes (height, width): {self.hw} and {other.hw}")
        return RLE(kernel.merge_runs(self.runs, other.runs, *keep), self.hw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RLE) and self.hw == other.hw and np.array_equal(self.runs, other.runs)

    def __hash__(self) -> int:
        return hash((self.hw, self.runs.tobytes()))

    def __repr__(self) -> str:
        return f"RLE(hw={self.hw}, area={self.area}, box={self.box})"


def _join_touching(runs: np.ndarray) -> np.ndarray:
    """Join increasing runs that touch."""
    if len(runs) < 2:
        return runs
    first_runs = np.flatnonzero(np.concatenate([[True], runs[1:, 0] > runs[:-1, 0] + runs[:-1, 1]]))
    return np.stack([runs[first_runs, 0], np.add.reduceat(runs[:, 1], first_runs)], 1)


def intersection_matrix(a: Sequence[RLE], b: Sequence[RLE]) -> np.ndarray:
    """Return the intersection in pixels of each pair of masks of one image, (len(a), len(b)) int64."""
    height, _ = _common_hw([*a, *b])
    first, second = RunTable.of(r.runs for r in a), RunTable.of(r.runs for r in b)
    return kernel.intersection_areas(
        first.runs, first.offsets, first.boxes(height), second.runs, second.offsets, second.boxes(height)
    )


def iou_matrix(a: Sequence[RLE], b: Sequence[RLE]) -> np.ndarray:
    """Return the IoU of each pair of masks of one image, (len(a), len(b)) float64. Two empty masks have IoU 0."""
    intersections = intersection_matrix(a, b)
    areas_a = np.array([r.area for r in a], np.int64).reshape(-1, 1)
    areas_b = np.array([r.area for r in b], np.int64).reshape(1, -1)
    return intersections / np.maximum(areas_a + areas_b - intersections, 1)


def remove_overlaps(
    masks: Sequence[RLE], order: Sequence[int] | np.ndarray, min_visible_fraction: float = 0.0
) -> list[RLE]:
    """Give each pixel to the first mask in `order` that covers it. The list keeps the order of `masks`.

    A mask that would keep less than `min_visible_fraction` of its pixels becomes empty and leaves them to later masks.
    The pass takes a bit of memory per pixel of the image. Masks that `order` omits stay as they are.
    """
    height, width = _common_hw(masks)
    table = RunTable.of(mask.runs for mask in masks)
    covered = np.zeros(-(-height * width // 64), np.uint64)
    order = np.asarray(order, np.int64)
    runs, offsets = overlaps.visible_runs(table.runs, table.offsets, order, min_visible_fraction, covered)
    result = list(masks)
    for i, first_run, end_run in zip(order, offsets, offsets[1:], strict=False):
        result[i] = RLE(runs[first_run:end_run].copy(), (height, width))
    return result


def are_disjoint(masks: Sequence[RLE]) -> bool:
    """Return whether no pixel belongs to two of the masks, which are of one image."""
    _common_hw(masks)
    runs = RunTable.of(mask.runs for mask in masks).runs
    runs = runs[np.argsort(runs[:, 0], kind="stable")]
    return bool((runs[1:, 0] >= runs[:-1].sum(1)).all())


def _common_hw(masks: Iterable[RLE]) -> tuple[int, int]:
    """Return the size of the image that all masks share, (0, 0) without masks. Raise `RLEError` if sizes differ."""
    sizes = {mask.hw for mask in masks} or {(0, 0)}
    if len(sizes) > 1:
        raise RLEError(f"the masks belong to images of different sizes (height, width): {sorted(sizes)}")
    return sizes.pop()
