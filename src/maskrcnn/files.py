"""Writing files whole or not at all: beside their place first, then renamed into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from maskrcnn.errors import UserError

UMASK = os.umask(0o077)
os.umask(UMASK)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes that name when the block ends well, else it is removed."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part{path.suffix}")
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield beside
        with named(path):
            with open(beside, "rb+") as written:
                os.fsync(written.fileno())
            beside.chmod(_permissions(path))
            os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def remove_unfinished(*folders: Path) -> None:
    """Delete what processes that were killed had begun to write in `folders`, where nobody is writing now."""
    for folder in folders:
        for beside in folder.glob(".*.part*"):
            beside.unlink()


@contextmanager
def named(path: Path) -> Iterator[None]:
    """An `OSError` in this context becomes a `UserError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _permissions(path: Path) -> int:
    """Those of the file that is replaced, else what an ordinary new file gets."""
    return path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~UMASK


def write_text(text: str, path: str | Path) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as beside, named(Path(path)):
        beside.write_text(text, "utf-8")


def write_image(image: Image.Image, path: str | Path) -> None:
    """Write a picture atomically, in the format that the suffix names."""
    with atomic(path) as beside, named(Path(path)):
        image.save(beside)
