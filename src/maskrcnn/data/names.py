"""Find paths by texts that lack the suffix, lack folders or have more of them: the best rank of matches decides."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from maskrcnn.data.images import SUFFIXES


class Match(NamedTuple):
    """Paths of the best rank, by index. Ranks compare: a higher one is closer. Several paths make a text ambiguous."""

    rank: tuple[int, int]
    indices: list[int]


NO_MATCH = Match((0, 0), [])
STEM, NAME, PATH_WITHOUT_SUFFIX, PATH = range(1, 5)


class PathIndex:
    """Relative paths, found by a text in this order of preference.

    1. The text is the path.
    2. It is the path without its image suffix.
    3. It has the file name of the path; of several such paths, those that share the most folders with the text.
    4. The same for the file name without suffix.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._parts = [_parts(path) for path in paths]
        self._by_key: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        for i, parts in enumerate(self._parts):
            stem = without_suffix(parts[-1]) if parts else ""
            keys = [(PATH, parts), (PATH_WITHOUT_SUFFIX, (*parts[:-1], stem)), (NAME, parts[-1:]), (STEM, (stem,))]
            for key in keys:
                self._by_key.setdefault(key, []).append(i)

    def find(self, text: str) -> Match:
        """Return the paths that `text` means."""
        parts = _parts(text)
        for rank, key in ((PATH, parts), (PATH_WITHOUT_SUFFIX, parts), (NAME, parts[-1:]), (STEM, parts[-1:])):
            matches = self._by_key.get((rank, key), [])
            if matches:
                shared = [_common_folders(parts, self._parts[i]) for i in matches]
                most = max(shared)
                return Match((rank, most), [i for i, n in zip(matches, shared, strict=True) if n == most])
        return NO_MATCH


def without_suffix(name: str) -> str:
    """Return a file name or path without its image suffix."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and dot + suffix.lower() in SUFFIXES else name


def _parts(text: str) -> tuple[str, ...]:
    """Split at slashes. Compose accented letters: archives made on a Mac decompose them, most tables do not."""
    folders = unicodedata.normalize("NFC", text.replace("\\", "/")).split("/")
    return tuple(part for part in folders if part not in ("", "."))


def _common_folders(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """Return how many folders above the file agree, from the file upwards."""
    n = 0
    for x, y in zip(reversed(a[:-1]), reversed(b[:-1]), strict=False):
        if x != y:
            break
        n += 1
    return n
