"""Masks as other programs write them, where all rows of a table agree: texts -> texts of EncodedPixels.

Only a column without a single valid text is translated, so a dialect never competes with EncodedPixels.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import polars as pl

from maskrcnn.data.formats.mask_texts import Numbering
from maskrcnn.rle import RLE, RLEError

INTEGER, WHOLE_FLOAT, NUMBER = r"\d+", r"\d+\.0*", r"\d+(?:\.0*)?"
BRACKETS = r"[\[\](){}\s,]"
NUMBER_DIALECTS = {
    "numbers with decimal points": rf"^{WHOLE_FLOAT}(?:\s+{WHOLE_FLOAT})+$",
    "numbers separated by commas": rf"^{NUMBER}(?:\s*,\s*{NUMBER})+$",
    "lists of numbers": rf"^[\[(]{BRACKETS}*{NUMBER}(?:{BRACKETS}+{NUMBER})*{BRACKETS}*[\])]$",
}
"""Texts that become runs without their points, commas and brackets, by what they are called."""

COMPRESSED_COUNTS = re.compile(r"[0-o]+")


def translate(texts: pl.Series, hw: np.ndarray, numbering: Numbering) -> tuple[pl.Series, str] | None:
    """Return `texts` as EncodedPixels in `numbering` and what they were, or None if not all are of one dialect.

    `hw` (n, 2) are the (height, width) of the images.
    """
    for name, pattern in NUMBER_DIALECTS.items():
        if texts.str.contains(pattern).all():
            plain = texts.str.replace_all(r"\.0*", "").str.replace_all(BRACKETS + "+", " ").str.strip_chars()
            counts = _from_coco(plain, hw, numbering, lambda text, _: [int(word) for word in text.split()])
            return (plain, name) if counts is None else (counts, "COCO's counts")
    for name, counts_in in (("COCO's compressed counts", _compressed), ("COCO's RLE", _counts_of_object)):
        if (from_coco := _from_coco(texts, hw, numbering, counts_in)) is not None:
            return from_coco, name
    return None


def _from_coco(
    texts: pl.Series, hw: np.ndarray, numbering: Numbering, counts_in: Callable[[str, list[int]], Any]
) -> pl.Series | None:
    """Return the masks whose COCO counts `counts_in` finds in each text, or None if one has none for its image."""

    def encoded() -> Iterator[str]:
        for text, size in zip(texts, hw.tolist(), strict=True):
            mask = RLE.from_coco({"size": size, "counts": counts_in(text, size)})
            yield mask.to_encoded_pixels(origin=numbering.origin, order=numbering.order, relative=numbering.relative)

    try:
        return pl.Series(encoded(), dtype=pl.String)
    except (RLEError, ValueError, OverflowError):
        return None


def _compressed(text: str, hw: list[int]) -> str:
    if not COMPRESSED_COUNTS.fullmatch(text):
        raise RLEError("not compressed counts")
    return text


def _counts_of_object(text: str, hw: list[int]) -> Any:
    """Return the counts of an object ``{"size": ..., "counts": ...}``, as JSON or as Python prints it."""
    try:
        content = json.loads(text)
    except ValueError:
        try:
            content = ast.literal_eval(text)
        except (SyntaxError, TypeError, MemoryError, RecursionError):
            raise RLEError("not an object") from None
    if not isinstance(content, dict) or "counts" not in content:
        raise RLEError("not an object with counts")
    if list(content.get("size", hw)) != hw:
        raise RLEError("the size is not that of the image")
    return content["counts"]
