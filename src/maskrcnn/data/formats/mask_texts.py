"""The texts of a mask column: texts -> runs, malformed texts, and which other reading the texts suggest.

One text rarely shows that it is read wrongly. Row-wise runs usually parse as column-wise runs too, but each mask falls
into many fragments. All masks of a table together show it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl

from maskrcnn.kernels.runs import count_pieces, transpose_runs
from maskrcnn.rle import BadRuns, RunTable, parse_column

DIALECTS = (
    (re.compile(r"^\{"), "Some rows are objects, such as COCO's RLE, and some are not: write all rows alike"),
    (re.compile(r"[][(){}]"), "The runs are lists in brackets: write the numbers alone, with spaces between them"),
    (re.compile(r"\d,\d+\s+\d+,\d"), "The numbers have decimal commas: write integers, such as 1 for 1,0"),
    (re.compile(r"\d,\s*\d"), "Commas separate the numbers: write spaces instead"),
    (re.compile(r"\d\.\d"), "The numbers have decimal points: write integers, such as 1 for 1.0"),
)
"""What runs of other programs look like, and how to make them EncodedPixels where only some rows have them."""

CELL_LIMITS = {32_767: "Excel", 50_000: "Google Sheets"}
"""Characters that a cell of a spreadsheet holds. The rest is lost without a word."""

MAX_PIECES_LEFT = 0.25
"""Share of the surplus pieces (beyond one a mask) that a better reading leaves. The right reading of connected objects
leaves none; masks of several objects have about as many pieces in every reading, or more in a wrong one."""

MIN_AGREEING = 0.9
"""Share of the masks, of those that another reading changes, that it puts together."""

CHUNK = 50_000
"""Texts that are parsed at once."""

MIN_CHANGED, MIN_SURPLUS = 3, 10
"""Masks that another reading must change, or surplus pieces that a single mask must have, to decide anything."""


@dataclass(frozen=True)
class Numbering:
    """How runs number pixels; `open_dataset` explains the three options."""

    order: Literal["column", "row"] = "column"
    origin: Literal[0, 1] = 1
    relative: bool = False

    def chosen(self) -> list[str]:
        """Return the options that differ from their defaults, as the command line has them."""
        default = Numbering()
        options = {f"--order {self.order}": self.order != default.order}
        options |= {f"--origin {self.origin}": self.origin != default.origin, "--relative": self.relative}
        return [option for option, is_chosen in options.items() if is_chosen]

    def alternatives(self) -> dict[str, Numbering]:
        """Return the numberings that differ in one option, by that option on the command line."""
        order: Literal["column", "row"] = "row" if self.order == "column" else "column"
        origin: Literal[0, 1] = 0 if self.origin else 1
        return {
            f"--order {order}": replace(self, order=order),
            f"--origin {origin}": replace(self, origin=origin),
            "--no-relative" if self.relative else "--relative": replace(self, relative=not self.relative),
        }


def find_cut_cells(cells: pl.Series) -> dict[int, str]:
    """Return what is wrong with each cell that a spreadsheet cut, by index."""
    lengths = cells.str.len_chars().fill_null(0).to_numpy()
    return {
        i: f"the text has exactly {lengths[i]:,} characters, {CELL_LIMITS[lengths[i]]}'s limit of a cell: a "
        "spreadsheet cut the mask. Export the table again without one"
        for i in np.flatnonzero(np.isin(lengths, list(CELL_LIMITS))).tolist()
    }


def find_better_option(pieces: np.ndarray, readings: Iterable[tuple[str, np.ndarray]]) -> tuple[str, str] | None:
    """Return a sentence on the option that makes nearly all masks whole that lie in pieces, and the option; or None.

    `pieces` (n,) are the pieces of each mask; `readings` are those with each other option, asked for only if needed.
    """
    surplus = int((pieces - 1).clip(0).sum())
    if surplus < MIN_CHANGED:
        return None
    pieces_of_option = {}
    for option, other_pieces in readings:
        n_joined, n_changed = int((other_pieces < pieces).sum()), int((other_pieces != pieces).sum())
        decides = n_joined >= MIN_CHANGED or surplus >= MIN_SURPLUS
        left = int((other_pieces - 1).clip(0).sum())
        if decides and n_joined >= MIN_AGREEING * n_changed and left <= MAX_PIECES_LEFT * surplus:
            pieces_of_option[option] = int(other_pieces.sum())
    if not pieces_of_option:
        return None
    options, n_after = " or ".join(pieces_of_option), min(pieces_of_option.values())
    message = (
        f"{int((pieces > 1).sum()):,} of {len(pieces):,} masks lie in pieces, {pieces.sum():,} in all; with {options} "
        f"there are {n_after:,}: pass {options}"
    )
    return message, next(iter(pieces_of_option))


class MaskTexts:
    """A column of start/length texts, each with the (height, width) of its image in `hw` (n, 2)."""

    def __init__(self, texts: pl.Series, hw: np.ndarray) -> None:
        self.texts, self.hw = texts, hw
        self._last: tuple[Numbering, tuple[RunTable, list[BadRuns]]] | None = None

    def parse(self, numbering: Numbering) -> tuple[RunTable, list[BadRuns]]:
        """Return the masks, column-major, and the malformed texts, whose masks are empty."""
        masks, bad = self._parse(numbering)
        if numbering.order == "row":
            masks = RunTable.of(transpose_runs(masks[i], int(h), int(w)) for i, (h, w) in enumerate(self.hw))
        return masks, bad

    def are_runs(self, numbering: Numbering) -> np.ndarray:
        """Return which texts are valid, whichever number the first pixel has, (n,) bool."""
        valid = np.zeros(len(self.texts), bool)
        for origin in (0, 1):
            bad = self._parse(replace(numbering, origin=origin))[1]
            valid |= ~np.isin(np.arange(len(valid)), [item.index for item in bad])
        return valid

    def fault_of_all(self, numbering: Numbering, bad: list[BadRuns]) -> str:
        """Return what would make every row valid, or what all malformed texts share, as the end of an error message."""
        if not bad:
            return ""
        for option, other in numbering.alternatives().items():
            if not self._parse(other)[1]:
                return f"; every row is valid with {option}"
        for pattern, advice in DIALECTS:
            if pattern.search(self.texts[bad[0].index]):
                return f". {advice}"
        if len(bad) == len(self.texts) and not self._parse(numbering, sizes_known=False)[1]:
            return ". Every mask goes beyond its picture: are these smaller copies of the pictures that were annotated?"
        return ""

    def better_reading(self, numbering: Numbering, hw_of_option: dict[str, np.ndarray]) -> tuple[str, str] | None:
        """Say which option makes nearly all masks whole that lie in pieces as they are read, or None.

        ``hw_of_option[option]`` (n, 2) are the sizes of the images that another option gives.
        """
        n_bad = len(self._parse(numbering)[1])
        readings = [(option, MaskTexts(self.texts, hw), numbering) for option, hw in hw_of_option.items()]
        readings += [(option, self, other) for option, other in numbering.alternatives().items()]
        return find_better_option(
            self._pieces(numbering),
            (
                (option, texts._pieces(other))
                for option, texts, other in readings
                if len(texts._parse(other)[1]) <= n_bad
            ),
        )

    def _parse(self, numbering: Numbering, sizes_known: bool = True) -> tuple[RunTable, list[BadRuns]]:
        """Parse chunk by chunk: the texts of a large table take more memory than their runs. Keep the last result."""
        if self._last is not None and self._last[0] == numbering and sizes_known:
            return self._last[1]
        n_pixels = self.hw.prod(1) if sizes_known else np.full(len(self.hw), -1)
        tables, bad = [], []
        for start in range(0, len(self.texts), CHUNK):
            texts = self.texts[start : start + CHUNK]
            table, bad_here = parse_column(
                np.frombuffer(texts.str.join("").item().encode(), np.uint8),
                np.concatenate([[0], np.cumsum(texts.str.len_bytes().to_numpy(), dtype=np.int64)]),
                n_pixels[start : start + CHUNK],
                origin=numbering.origin,
                relative=numbering.relative,
            )
            tables.append(table)
            bad += [BadRuns(start + item.index, item.message) for item in bad_here]
        result = RunTable.concatenate(tables), bad
        if sizes_known:
            self._last = numbering, result
        return result

    def _pieces(self, numbering: Numbering) -> np.ndarray:
        """Return the number of connected pieces of each mask, (n,) int64."""
        masks, _ = self._parse(numbering)
        return count_pieces(masks.runs, masks.offsets, self.hw[:, 0 if numbering.order == "column" else 1].copy())
