"""Masks as other programs write them: texts -> texts of EncodedPixels, or COCO's RLE -> masks.

A dialect never competes with EncodedPixels: only texts that are no integers are read so, and COCO's RLE is considered
only where at least half of the texts are none. COCO's pixels have one order and no numbers, so the options that number
pixels do not hold for them.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from maskrcnn.rle import RLE, BadRuns, RLEError, RunTable, shortened

WHOLE_FLOAT, NUMBER = r"\d+\.0*", r"\d+(?:\.0*)?"
BRACKETS = r"[\[\](){}\s,]"
NUMBER_DIALECTS = {
    "numbers with decimal points": rf"^{WHOLE_FLOAT}(?:\s+{WHOLE_FLOAT})+$",
    "numbers separated by commas": rf"^{NUMBER}(?:\s*,\s*{NUMBER})+$",
    "lists of numbers": rf"^[\[(]{BRACKETS}*{NUMBER}(?:{BRACKETS}+{NUMBER})*{BRACKETS}*[\])]$",
}
"""Texts that become runs without their points, commas and brackets, by what they are called."""

COUNT = re.compile(r"\d{1,18}(?:\.0*)?")
COMPRESSED_COUNTS = re.compile(r"[0-o]+")

PLAIN = r"^[\d\s]+$"

MIN_OF_FORM = 0.5
"""Share of the texts that must have a form for a column to have it. The others are bad rows."""


@dataclass(frozen=True)
class Translated:
    """Masks of texts in another form, empty for the `bad` texts, and what the form is called."""

    masks: RunTable
    bad: list[BadRuns]
    name: str

    @property
    def note(self) -> str:
        """What is said about the column, after its name."""
        n_empty = int((self.masks.areas == 0).sum()) - len(self.bad)
        return f"is read as {self.name}" + (f"; {n_empty:,} cover no pixel" if n_empty else "")


@dataclass(frozen=True)
class Numbers:
    """Texts as integers between blanks where they are numbers, and what they were.

    `is_dialect` (n,) says which texts were of the dialect `name`, and `is_number` (n,) which of it or plain integers.
    """

    texts: pl.Series
    name: str
    is_dialect: np.ndarray
    is_number: np.ndarray

    def explained(self, bad: list[BadRuns]) -> list[BadRuns]:
        """Return `bad`, with what was expected where a text is no number of the dialect."""
        expected = f"expected integers between blanks or, as in other rows, {self.name}"

        def explained(item: BadRuns) -> BadRuns:
            if self.is_number[item.index]:
                return item
            return BadRuns(item.index, f"{shortened(self.texts[item.index])!r} is no list of runs; {expected}")

        return [explained(item) for item in bad]

    @property
    def note(self) -> str:
        """What is said about the column, after its name."""
        n_plain = int((self.is_number & ~self.is_dialect).sum())
        beside = f", beside plain integers in {n_plain:,} of {len(self.texts):,} rows" if n_plain else ""
        return f"is read as {self.name}{beside}"


def translate_numbers(texts: pl.Series) -> Numbers | None:
    """Return the texts of the dialect that most texts have as plain integers; other texts stay as they are.

    Return None if no text is of a dialect, or if fewer than `MIN_OF_FORM` of the texts are of it or plain integers.
    """
    of_dialect = {name: texts.str.contains(pattern) for name, pattern in NUMBER_DIALECTS.items()}
    name, is_dialect = max(of_dialect.items(), key=lambda item: item[1].sum())
    is_number = is_dialect | texts.str.contains(PLAIN)
    if not is_dialect.any() or is_number.sum() < MIN_OF_FORM * len(texts):
        return None
    plain = texts.str.replace_all(r"\.0*", "").str.replace_all(BRACKETS + "+", " ").str.strip_chars()
    return Numbers(plain.zip_with(is_dialect, texts), name, is_dialect.to_numpy(), is_number.to_numpy())


def read_coco(texts: pl.Series, hw: np.ndarray) -> Translated | None:
    """Return the masks of texts that are COCO's RLE, or None if the texts have another form.

    `hw` (n, 2) are the (height, width) of the images. At least `MIN_OF_FORM` of the texts begin as an object does, or
    are counts that add up to the pixels of the image.
    """
    if texts.str.starts_with("{").sum() >= MIN_OF_FORM * len(texts):
        return _converted(texts, hw, counts_of_object, "COCO's RLE")
    for name, counts_in in (("COCO's counts", _counts_of_list), ("COCO's compressed counts", _compressed)):
        column = _converted(texts, hw, counts_in, name)
        if len(texts) - len(column.bad) >= MIN_OF_FORM * len(texts):
            return column
    return None


def _converted(texts: pl.Series, hw: np.ndarray, counts_in: Callable[[str, list[int]], Any], name: str) -> Translated:
    """Convert the COCO counts that `counts_in` finds in each text."""
    masks, bad = [], []
    for i, (text, size) in enumerate(zip(texts, hw.tolist(), strict=True)):
        try:
            masks.append(RLE.from_coco({"size": size, "counts": counts_in(text, size)}).runs)
        except RLEError as error:
            masks.append(np.empty((0, 2), np.int64))
            bad.append(BadRuns(i, str(error)))
    return Translated(RunTable.of(masks), bad, name)


def _counts_of_list(text: str, hw: list[int]) -> list[int]:
    words = re.sub(f"{BRACKETS}+", " ", text).split()
    if not all(COUNT.fullmatch(word) for word in words):
        raise RLEError(f"{shortened(text)!r} is not a list of counts")
    return [int(word.partition(".")[0]) for word in words]


def _compressed(text: str, hw: list[int]) -> str:
    if not COMPRESSED_COUNTS.fullmatch(text):
        raise RLEError(f"{shortened(text)!r} is not COCO's compressed counts")
    return text


def counts_of_object(text: str, hw: list[int]) -> Any:
    """Return the counts of an object ``{"size": ..., "counts": ...}``, as JSON or as Python prints it."""
    content = parsed(text)
    if not isinstance(content, dict) or "counts" not in content:
        raise RLEError(f'{shortened(text)!r} is not an object {{"size": [height, width], "counts": ...}}')
    size = content.get("size", hw)
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise RLEError(f"the size {shortened(str(size))} is not [height, width]")
    if list(size) != hw:
        raise RLEError(f"the size {size[0]} x {size[1]} is not that of the image, {hw[0]} x {hw[1]} (height x width)")
    return content["counts"]


def parsed(text: str) -> Any:
    """Return what the text says in JSON or in Python, or None if it is neither, or nested too deeply."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
