"""Rows of YOLO's label files, and what they are: polygons, boxes, rotated boxes or key points. All rows decide.

5 numbers         a box             class, centre x and y, width, height
6                 a box of a prediction, with its score
7, 9, 11, ...     a polygon         class, x and y of each point
8, 10, ...        a polygon of a prediction, with its score; or key points with their visibility
9 in every row    rotated boxes, if they are parallelograms; else polygons of four points
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskrcnn.data.formats.source import read_bytes
from maskrcnn.data.problem import Kind, Problem

BOX, CORNERS, MIN_POLYGON = 4, 8, 6
"""Numbers after the class of a box, of four points and of the smallest polygon."""

MARGIN = 0.01
"""How far a coordinate may lie outside 0 .. 1: what rounding does, and what Ultralytics accepts."""

MAX_SKEW = 0.01
"""How far the diagonals of a rotated box may miss each other, as a part of their length: what rounding does."""


class Row(NamedTuple):
    """A row of a label file: its number from 1, its class, and the numbers after it."""

    number: int
    label: int
    values: np.ndarray


def read_rows(file: Path, problems: list[Problem]) -> list[Row]:
    """Return the rows of a label file. What is no class and numbers becomes a problem. Raise `UserError`."""
    rows = []
    for number, line in enumerate(read_bytes(file).decode("utf-8", "replace").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            label, values = float(words[0]), np.array([float(word) for word in words[1:]])
        except ValueError:
            message = f"expected a class number and coordinates separated by spaces, not {line.strip()[:60]!r}"
            problems.append(Problem(Kind.BAD_ROW, f"{file}, row {number}", message))
            continue
        if not label.is_integer() or label < 0:
            message = f"the class {words[0]} is not a whole number from 0"
            problems.append(Problem(Kind.BAD_ROW, f"{file}, row {number}", message))
            continue
        rows.append(Row(number, int(label), values))
    return rows


@dataclass(frozen=True)
class RowKinds:
    """What the rows of a data set are, by how many numbers follow the class.

    `lengths` counts rows by that number. `keypoints` is the one of key points, 0 without any.
    """

    lengths: Counter[int]
    keypoints: int = 0
    have_scores: bool = False
    are_rotated_boxes: bool = False

    @classmethod
    def of(cls, rows: list[Row], keypoint_shape: tuple[int, ...]) -> RowKinds:
        """Decide by all rows, and by the shape of key points that data.yaml states."""
        lengths = Counter(len(row.values) for row in rows)
        longer = [row for row in rows if len(row.values) > BOX + 1]
        if keypoint_shape:
            return cls(lengths, BOX + math.prod(keypoint_shape))
        if not longer or not all(len(row.values) % 2 for row in longer):
            return cls(lengths, are_rotated_boxes=_are_rotated_boxes(longer))
        if len({len(row.values) for row in longer}) == 1 and all(_has_visibility(row.values) for row in longer):
            return cls(lengths, len(longer[0].values))
        return cls(lengths, have_scores=True)

    @property
    def n_boxes(self) -> int:
        """Number of upright boxes."""
        return self.lengths[BOX] + self.lengths[BOX + 1]

    def is_left_out(self, row: Row) -> bool:
        """Whether the row is a box or key points."""
        return len(row.values) in (BOX, BOX + 1, self.keypoints)

    def why_no_masks(self) -> str:
        """Say why no row can be a mask, or "" if some can or there are no rows."""
        need = "Masks need YOLO segmentation labels: class x1 y1 x2 y2 x3 y3 ..."
        n, n_keypoints = self.lengths.total(), self.lengths[self.keypoints] if self.keypoints else 0
        if self.are_rotated_boxes:
            return (
                f"its rows ({self.lengths[CORNERS]:,}) are rotated boxes of four corners (YOLO OBB), not masks. {need}"
            )
        if n == 0 or self.n_boxes + n_keypoints < n:
            return ""
        if n_keypoints:
            return f"its rows ({n:,}) are poses (boxes and key points), not masks. {need}"
        return f"its rows ({n:,}) are boxes of 4 numbers (YOLO detection), not masks. {need}"

    def notes(self) -> list[str]:
        """Say what is left out and what was decided."""
        notes = []
        if self.n_boxes:
            notes.append(f"rows that are boxes without a mask ({self.n_boxes:,}) are left out")
        if self.keypoints and (n := self.lengths[self.keypoints]):
            notes.append(f"rows that are poses, boxes and key points without a mask ({n:,}), are left out")
        if self.have_scores:
            notes.append("rows end in a score, as in predictions of Ultralytics")
        if set(self.lengths) - {BOX, BOX + 1} == {CORNERS}:
            notes.append("all polygons have four points; they are no rotated boxes, for their sides are not parallel")
        return notes

    def fault(self, row: Row) -> str:
        """Say what is wrong with a row of a polygon, or ""."""
        values = row.values[:-1] if self.have_scores else row.values
        if len(values) < MIN_POLYGON or len(values) % 2:
            return (
                f"{len(row.values)} numbers follow the class; a polygon has an even count of at least {MIN_POLYGON}: "
                "x1 y1 x2 y2 x3 y3 ..."
            )
        outside = ~((values >= -MARGIN) & (values <= 1 + MARGIN))
        if outside.any():
            k = int(np.argmax(outside))
            advice = " These look like pixels: divide x by the width and y by the height" if values.max() > 2 else ""
            return f"the {'xy'[k % 2]} coordinate {values[k]:g} of point {k // 2 + 1} is outside 0 .. 1.{advice}"
        return ""

    def polygon(self, row: Row) -> tuple[np.ndarray, float | None]:
        """Return the points (n, 2) of a row without fault, and its score if rows have one."""
        if self.have_scores:
            return row.values[:-1].reshape(-1, 2), float(row.values[-1])
        return row.values.reshape(-1, 2), None


def _are_rotated_boxes(rows: list[Row]) -> bool:
    """Whether all rows have four points, and most are parallelograms: a stretched rectangle stays one."""
    if not rows or any(len(row.values) != CORNERS for row in rows):
        return False
    corners = np.stack([row.values for row in rows]).reshape(-1, 4, 2)
    miss = np.abs(corners[:, 0] + corners[:, 2] - corners[:, 1] - corners[:, 3]).max(1)
    length = np.ptp(corners, axis=1).max(1)
    return bool((miss <= MAX_SKEW * length).mean() > 0.5)


def _has_visibility(values: np.ndarray) -> bool:
    """Whether the numbers after a box come in threes whose last is 0, 1 or 2."""
    triples = values[BOX:]
    return len(triples) % 3 == 0 and bool(np.isin(triples[2::3], (0, 1, 2)).all())
