"""The parts of a divided data set, train, val and test, by the words that folders and files have for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from maskrcnn.errors import UserError

PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Name of a part by what people call it."""


def part_named(word: str) -> str:
    """Return the part that a word names, such as "val" for "valid" and "Val2017", or ""."""
    return PARTS.get(word.lower().rstrip("0123456789"), "")


def part_word(texts: Iterable[str]) -> str:
    """Return the first word in the texts that names a part, or "". Anything but letters and digits parts words."""
    words = (word for text in texts for word in re.split(r"[^A-Za-z0-9]+", text))
    return next((word for word in words if part_named(word)), "")


def images_of_part(part_of_image: Sequence[str], name: str, source: Path) -> list[int]:
    """Return the indices of the images of part `name`, which may be called as a folder is ("valid").

    Raise `UserError` if `source` has no such part.
    """
    name = part_named(name) or name
    images = [i for i, part in enumerate(part_of_image) if part == name]
    if not name or not images:
        parts = sorted(set(part_of_image) - {""})
        has = f"its parts are {', '.join(parts)}" if parts else "it is not divided into parts"
        raise UserError(f"{source} has no part {name!r}; {has}")
    return images
