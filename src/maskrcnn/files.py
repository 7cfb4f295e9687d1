"""Files: atomic writes, by a temporary file next to the target that is then renamed, and reading JSON."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from maskrcnn.errors import UserError


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield the path of an empty temporary file next to `path`. Rename it to `path` on success, else remove it.

    The file gets the permissions of the file that it replaces, or those of a new file.
    """
    path = Path(path)
    part_file = unfinished(path)
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
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


@contextmanager
def temporary_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new folder next to `path`, from which files can be renamed there. Remove what is left of it."""
    folder = unfinished(Path(path))
    with named(Path(path)):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def unfinished(path: Path) -> Path:
    """Return a hidden name next to `path` that no other thread, process or host writes to. It keeps the suffix."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part{path.suffix}")


def remove_unfinished(*folders: Path) -> None:
    """Delete the temporary files and folders that killed processes left in `folders`, where no process may write."""
    for folder in folders:
        for part in folder.glob(".*.part*"):
            if part.is_dir() and not part.is_symlink():
                shutil.rmtree(part)
            else:
                part.unlink()


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


def cache_folder() -> Path:
    """Return ``$MASKRCNN_CACHE`` if set, otherwise ``maskrcnn`` in the user's cache folder."""
    folder = os.environ.get("MASKRCNN_CACHE")
    return Path(folder) if folder else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maskrcnn"


def read_json(path: Path) -> Any:
    """Read a JSON file. Raise `UserError` if it is missing or is no JSON."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None
    return parse_json(text, str(path))


def parse_json(text: str, source: str) -> Any:
    """Parse JSON. Raise `UserError` that names `source` if `text` is none."""
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError(f"{source} is not usable JSON: it is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{source} is not valid JSON: {error}") from None
