"""Masks as other programs write them: texts -> texts of EncodedPixels, or COCO's RLE -> masks.

Only a column without a single valid text is read so: a dialect never competes with EncodedPixels. COCO's pixels have
one order and no numbers, so the options that number pixels do not hold for them.
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

INTEGER, WHOLE_FLOAT, NUMBER = r"\d+", r"\d+\.0*", r"\d+(?:\.0*)?"
BRACKETS = r"[\[\](){}\s,]"
NUMBER_DIALECTS = {
    "numbers with decimal points": rf"^{WHOLE_FLOAT}(?:\s+{WHOLE_FLOAT})+$",
    "numbers separated by commas": rf"^{NUMBER}(?:\s*,\s*{NUMBER})+$",
    "lists of numbers": rf"^[\[(]{BRACKETS}*{NUMBER}(?:{BRACKETS}+{NUMBER})*{BRACKETS}*[\])]$",
}
"""Texts that become runs without their points, commas and brackets, by what they are called."""

COUNT = re.compile(r"\d{1,18}(?:\.0*)?")
COMPRESSED_COUNTS = re.compile(r"[0-o]+")

MIN_OF_FORM = 0.5
"""Share of the texts that must be objects, or counts of their images, for a column to be COCO's."""


@dataclass(frozen=True)
class CocoColumn:
    """Masks of a column of COCO's RLE, empty for the `bad` texts, and what the texts are called."""

    masks: RunTable
    bad: list[BadRuns]
    name: str


def translate_numbers(texts: pl.Series) -> tuple[pl.Series, str] | None:
    """Return `texts` as integers between blanks and what they were, or None if not all are of one dialect."""
    for name, pattern in NUMBER_DIALECTS.items():
        if texts.str.contains(pattern).all():
            plain = texts.str.replace_all(r"\.0*", "").str.replace_all(BRACKETS + "+", " ").str.strip_chars()
            return plain, name
    return None


def read_coco(texts: pl.Series, hw: np.ndarray) -> CocoColumn | None:
    """Return the masks of texts that are COCO's RLE, or None if the texts have another form.

    `hw` (n, 2) are the (height, width) of the images. At least `MIN_OF_FORM` of the texts begin as an object does, or
    are counts that add up to the pixels of the image.
    """
    if texts.str.starts_with("{").sum() >= MIN_OF_FORM * len(texts):
        return _converted(texts, hw, _counts_of_object, "COCO's RLE")
    for name, counts_in in (("COCO's counts", _counts_of_list), ("COCO's compressed counts", _compressed)):
        column = _converted(texts, hw, counts_in, name)
        if len(texts) - len(column.bad) >= MIN_OF_FORM * len(texts):
            return column
    return None


def _converted(texts: pl.Series, hw: np.ndarray, counts_in: Callable[[str, list[int]], Any], name: str) -> CocoColumn:
    """Convert the COCO counts that `counts_in` finds in each text."""
    masks, bad = [], []
    for i, (text, size) in enumerate(zip(texts, hw.tolist(), strict=True)):
        try:
            masks.append(RLE.from_coco({"size": size, "counts": counts_in(text, size)}).runs)
        except RLEError as error:
            masks.append(np.empty((0, 2), np.int64))
            bad.append(BadRuns(i, str(error)))
    return CocoColumn(RunTable.of(masks), bad, name)


def _counts_of_list(text: str, hw: list[int]) -> list[int]:
    words = re.sub(f"{BRACKETS}+", " ", text).split()
    if not all(COUNT.fullmatch(word) for word in words):
        raise RLEError(f"{shortened(text)!r} is not a list of counts")
    return [int(word.partition(".")[0]) for word in words]


def _compressed(text: str, hw: list[int]) -> str:
    if not COMPRESSED_COUNTS.fullmatch(text):
        raise RLEError(f"{shortened(text)!r} is not COCO's compressed counts")
    return text


def _counts_of_object(text: str, hw: list[int]) -> Any:
    """Return the counts of an object ``{"size": ..., "counts": ...}``, as JSON or as Python prints it."""
    content = _object(text)
    if not isinstance(content, dict) or "counts" not in content:
        raise RLEError(f'{shortened(text)!r} is not an object {{"size": [height, width], "counts": ...}}')
    size = content.get("size", hw)
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise RLEError(f"the size {shortened(str(size))} is not [height, width]")
    if list(size) != hw:
        raise RLEError(f"the size {size[0]} x {size[1]} is not that of the image, {hw[0]} x {hw[1]} (height x width)")
    return content["counts"]


def _object(text: str) -> Any:
    """Return what the text says in JSON or in Python, or None if it is neither, or nested too deeply."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
