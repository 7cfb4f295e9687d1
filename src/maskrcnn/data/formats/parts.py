"""The parts of a data set, such as train and val, by the words that people call them."""

from __future__ import annotations

from collections.abc import Iterable

PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Part of a data set by a word in the name of its file or folder."""


def part_named(word: str) -> str:
    """Return the part that a word such as "Validation" or "train2017" means, or ""."""
    return PARTS.get(word.lower().rstrip("0123456789"), "")


def first_part(words: Iterable[str]) -> str:
    """Return the part that the first word which means one means, or ""."""
    return next((part for word in words if (part := part_named(word))), "")
