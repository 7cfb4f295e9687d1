"""The pictures that a command line names: files, folders and patterns, each with a name for its outputs."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from maskrcnn.cli import STANDARD_INPUT
from maskrcnn.data.pictures import image_files
from maskrcnn.errors import UserError


def find_files(pictures: list[str]) -> Iterator[tuple[Path, PurePosixPath]]:
    """Yield the path and the output name of each picture on the command line. Raises `UserError`."""
    for text in pictures:
        path = Path(text)
        if text == STANDARD_INPUT:
            continue
        if path.is_dir():
            files = image_files(path)
            if not files:
                raise UserError(f"the folder {path} contains no pictures")
            yield from ((p, PurePosixPath(p.relative_to(path).as_posix())) for p in files)
        elif path.exists() or not glob.has_magic(text):
            yield path, PurePosixPath(path.name)
        else:
            matches = sorted(match for match in map(Path, glob.glob(text, recursive=True)) if match.is_file())
            if not matches:
                raise UserError(f"nothing matches {text!r}")
            yield from ((match, PurePosixPath(match.name)) for match in matches)


class UniqueNames:
    """Number repeated output names: a second ``a.png``, or an ``a.jpg`` after it, becomes ``a-2``."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def unique(self, name: PurePosixPath) -> PurePosixPath:
        candidate, number = name, 1
        while str(candidate.with_suffix("")) in self.taken:
            number += 1
            candidate = name.with_name(f"{name.stem}-{number}{name.suffix}")
        self.taken.add(str(candidate.with_suffix("")))
        return candidate
