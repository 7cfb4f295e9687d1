"""Atomic writes: write a temporary file next to the target, then rename it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from maskrcnn.errors import UserError


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield the path of an empty temporary file next to `path`. Rename it to `path` on success, else remove it.

    The file gets the permissions of the file that it replaces, or those of a new file.
    """
    path = Path(path)
    part_file = path.with_name(f".{path.name}.{os.getpid()}.part{path.suffix}")
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part_file.unlink(missing_ok=True)  # left by a killed process of the same id
        with open(part_file, "xb") as new_file:
            mode = os.fstat(new_file.fileno()).st_mode & 0o777
    try:
        yield part_file
        with named(path):
            with open(part_file, "rb+") as written:
                os.fsync(written.fileno())
            # Libraries such as safetensors may have created the file anew.
            part_file.chmod(path.stat().st_mode & 0o777 if path.exists() else mode)
            os.replace(part_file, path)
    finally:
        part_file.unlink(missing_ok=True)


def remove_unfinished(*folders: Path) -> None:
    """Delete the temporary files that killed processes left in `folders`. No process may be writing there."""
    for folder in folders:
        for part_file in folder.glob(".*.part*"):
            part_file.unlink()


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Convert an `OSError` in this context to a `UserError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def write_text(text: str, path: str | Path) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as part_file, named(Path(path)):
        part_file.write_text(text, "utf-8")


def write_image(image: Image.Image, path: str | Path) -> None:
    """Write an image atomically in the format of its suffix."""
    with atomic(path) as part_file, named(Path(path)):
        image.save(part_file)
