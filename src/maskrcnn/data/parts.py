"""The parts of a divided data set, train, val and test, by the words that folders and files have for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn.errors import UserError, counted

if TYPE_CHECKING:
    from maskrcnn.data.table import Dataset

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


def first_part(words: Iterable[str]) -> str:
    """Return the part that the first word which means one means, or ""."""
    return next((part for word in words if (part := part_named(word))), "")


def part_order(name: str) -> tuple[int, str]:
    """Return a key that sorts train, val and test before other parts."""
    known = list(dict.fromkeys(PARTS.values()))
    return (known.index(name) if name in known else len(known)), name


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


def describe_parts(sizes: Mapping[str, int]) -> str:
    """Return the parts with their number of images, for people."""
    return ", ".join(f"{name} ({counted(n, 'image')})" for name, n in sizes.items())


def for_training(data: Dataset) -> tuple[Dataset, str | None]:
    """Return the images that may train or validate, all but the part "test", and a sentence if that leaves some out."""
    kept = data.without_parts("test")
    if len(kept) in (0, len(data)):
        return data, None
    return kept, f"the part test of {data.source} ({counted(len(data) - len(kept), 'image')}) is left out of training"


def train_and_val(data: Dataset) -> tuple[Dataset, Dataset, str] | None:
    """Return what the source's own division trains and validates on, and a sentence; None if it has no part "val"."""
    if len(data.part_sizes) < 2 or "val" not in data.part_sizes:
        return None
    train, val = data.without_parts("val"), data.part("val")
    return train, val, f"{data.source} is divided into {describe_parts(data.part_sizes)}: its part val validates"


def for_scoring(data: Dataset) -> tuple[Dataset, str | None]:
    """Return the part "val" of a divided source, and a sentence; other data is returned as it is."""
    division = train_and_val(data)
    if division is None:
        return data, None
    scored = f"{data.source} is divided into {describe_parts(data.part_sizes)}: its part val is scored"
    return division[1], f"{scored}; --part scores another"
