"""Find paths by texts that lack the suffix, lack folders or have more of them: the best rank of matches decides."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import PurePath, PurePosixPath
from typing import NamedTuple
from urllib.parse import quote, unquote

from maskrcnn.data.images import picture_suffixes

LETTERS, CASE, SUFFIX, QUOTING = range(4)
"""How a text may differ from its path, from the closest to the loosest."""


class Match(NamedTuple):
    """Paths of the best rank, by index. Ranks compare: a higher one is closer. Several paths make a text ambiguous."""

    rank: tuple[int, int, int]
    indices: list[int]

    @property
    def is_loose(self) -> bool:
        """Whether the text has another case or suffix than the path, or percent signs for its characters."""
        return -self.rank[0] > LETTERS


STEM, NAME, PATH_WITHOUT_SUFFIX, PATH = range(1, 5)
NO_MATCH = Match((-QUOTING - 1, 0, 0), [])

Parts = tuple[str, ...]
ByKey = dict[tuple[int, Parts], list[int]]


class PathIndex:
    """Relative paths, found by a text in this order of preference.

    1. The text is the path.
    2. It is the path without its image suffix.
    3. It has the file name of the path; of several such paths, those that share the most folders with the text.
    4. The same for the file name without suffix.

    If there is no such path, the same again with letters of any case, then without the text's own image suffix, then
    with the text's percent signs decoded ("a%20b" for "a b").
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._by_path = {path: i for i, path in enumerate(paths)}

    @cached_property
    def _by_key(self) -> ByKey:
        return _keyed([_parts(path) for path in self._paths])

    @cached_property
    def _by_folded_key(self) -> ByKey:
        return _keyed([_folded(_parts(path)) for path in self._paths])

    def find(self, text: str) -> Match:
        """Return the paths that `text` means."""
        if text in self._by_path:
            return Match((LETTERS, PATH, text.count("/") + 1), [self._by_path[text]])
        parts, decoded = _parts(text), _parts(unquote(text))
        match, folded = self._find(LETTERS, parts), self._find(CASE, _folded(parts))
        if not match or (folded and len(match.indices) > len(folded.indices)):  # folders of another case
            match = folded
        match = match or self._find(SUFFIX, _folded(_without_suffix(parts)))
        if not match and decoded != parts:
            match = self._find(QUOTING, _folded(decoded)) or self._find(QUOTING, _folded(_without_suffix(decoded)))
        return match or NO_MATCH

    def _find(self, difference: int, parts: Parts) -> Match | None:
        by_key = self._by_folded_key if difference else self._by_key
        endings = [parts[k:] for k in range(len(parts))]  # longest first
        keys = [(PATH, parts), (PATH_WITHOUT_SUFFIX, parts)]
        keys += [(rank, ending) for rank in (NAME, STEM) for ending in endings]
        for rank, key in keys:
            if (rank, key) in by_key:
                return Match((-difference, rank, len(key)), by_key[rank, key])
        return None


def without_suffix(name: str) -> str:
    """Return a file name or path without its image suffix."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and dot + suffix.lower() in picture_suffixes() else name


def safe_places(names: Sequence[str], files: Sequence[PurePath]) -> list[PurePosixPath]:
    """Return a relative path for the picture of each name: names that leave a folder, such as ``../a.png``, stay in it.

    The suffix is that of the picture in `files`. Paths differ also without their suffix and in lower case, so that each
    picture can have a file of annotations with its own name on every file system.
    """
    places: list[PurePosixPath] = []
    n_named: dict[str, int] = {}
    for name, file in zip(names, files, strict=True):
        parts = [_written_part(part) for part in _parts(without_suffix(name))]
        stem = str(PurePosixPath(*(part for part in parts if part)))
        stem = "image" if stem == "." else stem
        suffix = next((s for s in (file.suffix, PurePath(name).suffix) if s.lower() in picture_suffixes()), ".png")
        unique = stem
        while n := n_named.get(unique.casefold(), 0):
            n_named[unique.casefold()] = n + 1
            unique = f"{unique}_{n + 1}"
        n_named[unique.casefold()] = 1
        places.append(PurePosixPath(unique + suffix))
    return places


UNWRITABLE = re.compile("[\0-\x1f\x7f:\ud800-\udfff]")
"""Characters that some file system refuses in a name: controls, the colon, and halves of surrogate pairs."""

MAX_PART_BYTES = 200
"""Bytes of a part of a path in UTF-8. File systems allow 255; a number and a suffix may follow."""


def _written_part(part: str) -> str:
    """Return a part of a path that every file system can hold; nothing remains of dots."""
    part = UNWRITABLE.sub("_", part)
    return part.encode()[:MAX_PART_BYTES].decode("utf-8", "ignore").rstrip(". ")


FOLDER_CHARACTERS = " !#$&'()+,;=@[]^`{}~"
"""Characters of a name, beside letters, digits and ``_.-``, that every file system allows in that of a folder."""


def quoted(name: str) -> str:
    """Return a name as that of a folder. What some file systems forbid or hide there is percent-encoded, as in URLs."""
    text = "".join(c if c.isalnum() else quote(c, safe=FOLDER_CHARACTERS) for c in unicodedata.normalize("NFC", name))
    hidden = f"%{ord(text[0]):02X}{text[1:]}" if text[:1] in (".", " ") else text
    return f"{hidden[:-1]}%{ord(hidden[-1]):02X}" if hidden[-1:] in (".", " ") else hidden


def unquoted(folder: str) -> str:
    """Return the name that `quoted` turned into that of a folder."""
    return unquote(folder)


def _without_suffix(parts: Parts) -> Parts:
    return (*parts[:-1], *(without_suffix(name) for name in parts[-1:]))


def _keyed(paths: list[Parts]) -> ByKey:
    """Return the index of each path under each rank and key by which it can be found: itself and its endings."""
    by_key: ByKey = {}
    for i, parts in enumerate(paths):
        stemmed = _without_suffix(parts)
        keys = [(PATH, parts), (PATH_WITHOUT_SUFFIX, stemmed)]
        for k in range(len(parts)):
            keys += [(NAME, parts[k:]), (STEM, stemmed[k:])]
        for key in keys:
            by_key.setdefault(key, []).append(i)
    return by_key


def _parts(text: str) -> Parts:
    """Split at slashes. Compose accented letters: archives made on a Mac decompose them, most tables do not."""
    folders = unicodedata.normalize("NFC", text.replace("\\", "/")).split("/")
    return tuple(part for part in folders if part not in ("", "."))


def _folded(parts: Parts) -> Parts:
    return tuple(part.casefold() for part in parts)
