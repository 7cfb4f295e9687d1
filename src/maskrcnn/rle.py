"""Masks as run-length encodings: the one form that a mask has from the loader to the evaluator.

    EncodedPixels, COCO RLE, polygons, dense arrays  ->  RLE  ->  area, box, crop, IoU, ...  ->  any of those forms

Inside, a run is ``(start, length)`` in column-major order, 0-based: pixel ``(row, column)`` of an image of height H
has the index ``column * H + row``. Kaggle's EncodedPixels count the same way from 1; COCO's counts alternate between
background and mask in the same order. So conversions between run forms are arithmetic on runs and touch no pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from maskrcnn.errors import UserError
from maskrcnn.kernels import runs as kernel
from maskrcnn.kernels import texts

Order = Literal["column", "row"]


class RLEError(UserError, ValueError):
    """A run-length encoding that cannot be one: says which value is wrong, where it stands and why."""


def _describe(problem: np.ndarray, text: str, n_pixels: int, origin: int) -> str:
    code, word, value = (int(v) for v in problem)
    words = text.split()
    shown = words[word] if word < len(words) else str(value)
    place = f"value {word + 1} ({shown[:40]!r})"
    return {
        texts.NOT_INTEGER: f"{place} is not an integer",
        texts.ODD_COUNT: f"{place} is a start without a length: the count of values, {word + 1}, is odd",
        texts.NOT_POSITIVE: (
            f"{place} is a length below 1" if word % 2 else f"{place} is a start below {origin}, the first pixel"
        ),
        texts.PAST_END: f"{place} makes the run end past the image's last pixel ({n_pixels} pixels)",
        texts.OVERLAP: f"{place} starts inside the run before it",
        texts.DECREASING: f"{place} is smaller than the start before it; runs must increase",
    }[code]


@dataclass(frozen=True)
class RunTable:
    """Runs of many masks in two arrays: mask i is ``runs[offsets[i]:offsets[i + 1]]``, (n, 2) int64 start, length."""

    runs: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.runs[self.offsets[i] : self.offsets[i + 1]]

    def take(self, index: np.ndarray) -> RunTable:
        """The masks at `index` (n,), in that order, as a table of their own."""
        index = np.asarray(index, np.int64)
        lengths = (self.offsets[1:] - self.offsets[:-1])[index]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        source = np.repeat(self.offsets[:-1][index] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return RunTable(self.runs[source], offsets)

    @property
    def areas(self) -> np.ndarray:
        """(n,) int64 pixel counts."""
        total = np.concatenate([[0], np.cumsum(self.runs[:, 1])])
        return total[self.offsets[1:]] - total[self.offsets[:-1]]

    def boxes(self, heights: np.ndarray | int) -> np.ndarray:
        """(n, 4) int64 xyxy, half-open, of images of the given heights."""
        return kernel.boxes_of_runs(
            self.runs, self.offsets, np.broadcast_to(np.asarray(heights, np.int64), len(self)).copy()
        )

    @classmethod
    def of(cls, masks: Iterable[np.ndarray]) -> RunTable:
        """From run arrays, one a mask."""
        parts = [np.asarray(m, np.int64).reshape(-1, 2) for m in masks]
        offsets = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
        return cls(np.concatenate(parts) if parts else np.empty((0, 2), np.int64), offsets)


@dataclass(frozen=True)
class BadRuns:
    """What is wrong with one text of a column: its index there and a sentence for people."""

    index: int
    message: str


def parse_column(
    text: np.ndarray,
    offsets: np.ndarray,
    n_pixels: np.ndarray,
    *,
    origin: int = 1,
    relative: bool = False,
) -> tuple[RunTable, list[BadRuns]]:
    """Parse a whole column of start/length texts at once.

    `text` is the UTF-8 bytes (uint8) of all texts, `offsets` (n + 1) cuts them, `n_pixels` (n,) is each image's H * W
    or -1 where unknown. A bad text comes back as an empty mask and an entry of the list; nothing is raised, so that
    one pass finds every bad row.
    """
    run_offsets = np.concatenate([[0], np.cumsum((texts.count_numbers(text, offsets) + 1) // 2)])
    runs = np.empty((run_offsets[-1], 2), np.int64)
    counts, problem = texts.parse_runs(text, offsets, n_pixels.astype(np.int64), run_offsets, origin, relative, runs)
    bad = []
    for i in np.flatnonzero(problem[:, 0]):
        words = text[offsets[i] : offsets[i + 1]].tobytes().decode("utf-8", "replace")
        bad.append(BadRuns(int(i), _describe(problem[i], words, int(n_pixels[i]), origin)))
        counts[i] = 0
    new_offsets = texts.compact_runs(runs, run_offsets, counts)
    return RunTable(runs[: new_offsets[-1]], new_offsets), bad


def _mask_library() -> Any:
    from faster_coco_eval.core import mask

    return mask


@dataclass(frozen=True, eq=False)
class RLE:
    """One mask of an image of height and width `hw`; `runs` is canonical: increasing, apart from each other."""

    runs: np.ndarray
    hw: tuple[int, int]

    # ---- from other forms -------------------------------------------------------------------------------------

    @classmethod
    def empty(cls, hw: tuple[int, int]) -> RLE:
        """A mask without a pixel."""
        return cls(np.empty((0, 2), np.int64), (int(hw[0]), int(hw[1])))

    @classmethod
    def from_encoded_pixels(
        cls,
        text: str,
        hw: tuple[int, int],
        *,
        origin: Literal[0, 1] = 1,
        order: Order = "column",
        relative: bool = False,
    ) -> RLE:
        """Parse ``"start length start length ..."``.

        Kaggle counts pixels from `origin` 1 down the columns. `order` "row" reads pairs that count along the rows;
        `relative` reads starts that count from the end of the run before. The empty text is the empty mask.

        Raises `RLEError` on an odd count, a non-integer, a start before the origin, a length below 1, overlapping or
        decreasing runs and runs past the image's end, naming the value and its position.
        """
        h, w = int(hw[0]), int(hw[1])
        raw = np.frombuffer(text.encode(), np.uint8)
        table, bad = parse_column(raw, np.array([0, len(raw)]), np.array([h * w]), origin=origin, relative=relative)
        if bad:
            raise RLEError(f"EncodedPixels of a {h}x{w} (height x width) image: {bad[0].message}")
        return cls(table.runs if order == "column" else kernel.transpose_runs(table.runs, h, w), (h, w))

    @classmethod
    def from_coco(cls, coco: dict[str, Any]) -> RLE:
        """From COCO's ``{"size": [h, w], "counts": ...}``, counts as a list or as the compressed string."""
        if not {"size", "counts"} <= set(coco):
            raise RLEError(f'COCO RLE needs "size" and "counts"; it has {sorted(coco)}')
        h, w = (int(v) for v in coco["size"])
        counts = coco["counts"]
        if isinstance(counts, str | bytes):
            chars = np.frombuffer(counts.encode() if isinstance(counts, str) else counts, np.uint8)
            numbers, bad = texts.chars_to_counts(chars)
            if bad >= 0:
                raise RLEError(f"COCO RLE: character {bad + 1} of the counts cannot stand there")
        else:
            numbers = np.asarray(counts, np.int64)
            if not np.array_equal(numbers, counts):
                raise RLEError("COCO RLE: counts must be integers")
        if (numbers < 0).any():
            at = int(np.argmax(numbers < 0))
            raise RLEError(f"COCO RLE: count {at + 1} is {numbers[at]}; counts cannot be negative")
        if numbers.sum() != h * w:
            raise RLEError(f"COCO RLE: the counts add up to {numbers.sum()}, not to {h} x {w} = {h * w} pixels")
        ends = np.cumsum(numbers)
        lengths = numbers[1::2]
        runs = np.stack([ends[1::2] - lengths, lengths], 1)[lengths > 0]
        return cls(_join(runs), (h, w))

    @classmethod
    def from_mask(cls, mask: np.ndarray) -> RLE:
        """From a dense (H, W) array; non-zero is mask."""
        if mask.ndim != 2:
            raise RLEError(f"a mask has the shape (height, width), not {mask.shape}")
        return cls(kernel.find_runs(np.ascontiguousarray(mask != 0)), (mask.shape[0], mask.shape[1]))

    @classmethod
    def from_polygons(cls, polygons: Sequence[Sequence[float]], hw: tuple[int, int]) -> RLE:
        """From polygons ``[x1, y1, x2, y2, ...]`` in pixels, joined; rasterised by COCO's own rule."""
        h, w = int(hw[0]), int(hw[1])
        for i, polygon in enumerate(polygons):
            if len(polygon) < 6 or len(polygon) % 2:
                raise RLEError(f"polygon {i + 1} has {len(polygon)} numbers; it needs at least 6 and an even count")
        if not polygons:
            return cls.empty((h, w))
        library = _mask_library()
        parts = library.frPyObjects([[float(v) for v in p] for p in polygons], h, w)
        return cls.from_coco(library.merge(parts))

    # ---- to other forms ---------------------------------------------------------------------------------------

    def to_encoded_pixels(self, *, origin: Literal[0, 1] = 1, order: Order = "column", relative: bool = False) -> str:
        """``"start length ..."`` as `from_encoded_pixels` reads it."""
        runs = self.runs if order == "column" else kernel.transpose_runs(self.runs, self.hw[1], self.hw[0])
        starts = runs[:, 0] + origin
        if relative:
            starts = np.diff(runs[:, 0], prepend=0) - np.concatenate([[0], runs[:-1, 1]])
        return " ".join(map(str, np.stack([starts, runs[:, 1]], 1).ravel().tolist()))

    def counts(self) -> list[int]:
        """COCO's uncompressed counts: background first, then mask and background in turn."""
        gaps = self.runs[:, 0] - np.concatenate([[0], (self.runs[:, 0] + self.runs[:, 1])[:-1]])
        numbers = np.stack([gaps, self.runs[:, 1]], 1).ravel().tolist()
        rest = self.hw[0] * self.hw[1] - sum(numbers)
        return [*numbers, rest] if rest or not numbers else numbers

    def to_coco(self) -> dict[str, Any]:
        """COCO's compressed form, ``{"size": [h, w], "counts": str}``."""
        chars = texts.counts_to_chars(np.asarray(self.counts(), np.int64))
        return {"size": [self.hw[0], self.hw[1]], "counts": chars.tobytes().decode("ascii")}

    def to_mask(self, window: tuple[int, int, int, int] | None = None) -> np.ndarray:
        """Dense bool (H, W), or only the window ``(x1, y1, x2, y2)`` of it, which may reach outside the image."""
        x1, y1, x2, y2 = window or (0, 0, self.hw[1], self.hw[0])
        mask = np.zeros((y2 - y1, x2 - x1), bool)
        kernel.paint_runs(self.runs, self.hw[0], x1, y1, mask)
        return mask

    # ---- measures and operations ------------------------------------------------------------------------------

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(self.runs[:, 1].sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x1, y1, x2, y2), half-open: x2 is the last column + 1. (0, 0, 0, 0) when empty."""
        x1, y1, x2, y2 = RunTable.of([self.runs]).boxes(self.hw[0])[0].tolist()
        return x1, y1, x2, y2

    def crop(self, window: tuple[int, int, int, int]) -> RLE:
        """The part inside ``(x1, y1, x2, y2)``, whose corner becomes the origin; outside the image is background."""
        x1, y1, x2, y2 = (int(v) for v in window)
        if x2 < x1 or y2 < y1:
            raise RLEError(f"a window (x1, y1, x2, y2) must not end before it begins: {window}")
        return RLE(kernel.window_runs(self.runs, self.hw[0], x1, y1, x2, y2), (y2 - y1, x2 - x1))

    def shift(self, dx: int, dy: int, hw: tuple[int, int] | None = None) -> RLE:
        """Moved by (dx, dy) pixels on a canvas `hw` (its own by default); what leaves the canvas is lost."""
        h, w = hw or self.hw
        return self.crop((-dx, -dy, w - dx, h - dy))

    def union(self, other: RLE) -> RLE:
        """Pixels of either mask."""
        return self._merge(other, (True, True, True))

    def intersection(self, other: RLE) -> RLE:
        """Pixels of both masks."""
        return self._merge(other, (False, True, False))

    def difference(self, other: RLE) -> RLE:
        """Pixels of this mask that the other lacks."""
        return self._merge(other, (True, False, False))

    def _merge(self, other: RLE, keep: tuple[bool, bool, bool]) -> RLE:
        if self.hw != other.hw:
            raise RLEError(f"masks of different sizes, {self.hw} and {other.hw} (height, width), cannot be combined")
        return RLE(kernel.merge_runs(self.runs, other.runs, *keep), self.hw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RLE) and self.hw == other.hw and np.array_equal(self.runs, other.runs)

    def __hash__(self) -> int:
        return hash((self.hw, self.runs.tobytes()))

    def __repr__(self) -> str:
        return f"RLE(hw={self.hw}, area={self.area}, box={self.box})"


def _join(runs: np.ndarray) -> np.ndarray:
    """Join runs that touch; they must be increasing."""
    if len(runs) < 2:
        return runs
    begins = np.concatenate([[True], runs[1:, 0] > runs[:-1, 0] + runs[:-1, 1]])
    starts = runs[begins, 0]
    lengths = np.add.reduceat(runs[:, 1], np.flatnonzero(begins))
    return np.stack([starts, lengths], 1)


def intersection_matrix(a: Sequence[RLE], b: Sequence[RLE]) -> np.ndarray:
    """Pixels shared by each pair of masks of one image: (len(a), len(b)) int64."""
    sizes = {r.hw for r in a} | {r.hw for r in b}
    if len(sizes) > 1:
        raise RLEError(f"masks of different sizes cannot be compared: {sorted(sizes)} (height, width)")
    height = next(iter(sizes))[0] if sizes else 1
    ta, tb = RunTable.of(r.runs for r in a), RunTable.of(r.runs for r in b)
    return kernel.intersection_areas(ta.runs, ta.offsets, ta.boxes(height), tb.runs, tb.offsets, tb.boxes(height))


def iou_matrix(a: Sequence[RLE], b: Sequence[RLE]) -> np.ndarray:
    """Intersection over union of each pair of masks of one image: (len(a), len(b)) float64; 0 for two empty ones."""
    shared = intersection_matrix(a, b)
    areas_a = np.array([r.area for r in a], np.int64).reshape(-1, 1)
    areas_b = np.array([r.area for r in b], np.int64).reshape(1, -1)
    return shared / np.maximum(areas_a + areas_b - shared, 1)


def remove_overlaps(masks: Sequence[RLE], order: Sequence[int] | np.ndarray) -> list[RLE]:
    """Give every pixel to one mask only: to the one that comes first in `order`. The list keeps its own order."""
    result = list(masks)
    taken: RLE | None = None
    for i in order:
        mask = masks[int(i)]
        result[int(i)] = mask if taken is None else mask.difference(taken)
        taken = mask if taken is None else taken.union(mask)
    return result
