"""What a user gave as data: a file or a folder, opened once for all formats that look at it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from maskrcnn.data.formats.packed import PACKED_SUFFIXES, read_content
from maskrcnn.data.pictures import files_below
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.errors import UserError

Entry = TypeVar("Entry")

OBJECT = re.compile(rb"\s*\{")
"""How a JSON object begins. A match copies nothing of a file that may hold a whole data set."""

Fields = dict[str, msgspec.Raw]
"""A JSON object whose values are not decoded yet."""


class Source:
    """A file or a folder. Raise `UserError` if there is none.

    `columns` are those that the user named by their roles, and `part` is the one part that is read, all if empty.
    """

    def __init__(self, path: Path, columns: Mapping[str, str] | None = None, part: str = "") -> None:
        self.path, self.part = path, part
        self.columns = dict(columns or {})
        if not path.exists():
            raise UserError(f"{path}: there is no such file or folder")

    @property
    def root(self) -> Path:
        """The folder itself, or the one of the file."""
        return self.path if self.path.is_dir() else self.path.parent

    @cached_property
    def files(self) -> list[Path]:
        """All files of the folder and its subfolders that are not hidden, sorted; of a file, itself alone."""
        return files_below(self.path) if self.path.is_dir() else [self.path]

    def having_suffix(self, *suffixes: str) -> list[Path]:
        """Return those of `files` with one of `suffixes`, in lower case and with a dot."""
        return [file for file in self.files if file.suffix.lower() in suffixes]

    @cached_property
    def fields(self) -> Fields:
        """The fields of a JSON file that holds an object, packed or not, else none."""
        return json_fields(self.path) if self.path.is_file() and is_json(self.path) else {}


def is_json(path: Path) -> bool:
    """Whether the name is that of a JSON file, packed or not ("train.json.gz")."""
    return (Path(path.stem) if path.suffix.lower() in PACKED_SUFFIXES else path).suffix.lower() == ".json"


def json_fields(path: Path) -> Fields:
    """Return the fields of a JSON object, not decoded; none if it holds something else. Raise `UserError`."""
    content = read_bytes(path)
    if not OBJECT.match(content):
        return {}
    return decoded(content, Fields, path)


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file, unpacked by its suffix, without a byte order mark. Raise `UserError`."""
    try:
        content = read_content(path) if path.suffix.lower() in PACKED_SUFFIXES else path.read_bytes()
        return content.removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def decoded(content: bytes | msgspec.Raw, type_: Any, path: Path, where: str = "") -> Any:
    """Decode JSON into `type_`, which msgspec checks. Raise `UserError` that names the file, the entry and the fault.

    Some programs write NaN, which JSON does not have; it becomes null.
    """
    try:
        return msgspec.json.decode(content, type=type_)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        fault = error
    try:
        without_nan = json.loads(bytes(content), parse_constant=lambda name: None)
        return msgspec.json.decode(msgspec.json.encode(without_nan), type=type_)
    except msgspec.ValidationError as error:
        fault = error
    except (ValueError, RecursionError, TypeError, OverflowError):
        pass
    raise UserError(f"{path}{where and ', '}{where} cannot be read: {fault or 'nested too deeply'}")


def starts_with(raw: msgspec.Raw, start: bytes) -> bool:
    """Whether JSON that is not decoded yet has this start. It is not copied: it may hold a whole data set."""
    return bytes(memoryview(raw)[: len(start)]) == start


def each(
    array: msgspec.Raw | list[msgspec.Raw], type_: type[Entry], path: Path, noun: str, problems: list[Problem]
) -> Iterator[tuple[int, Entry]]:
    """Yield the entries of a JSON array with their number, from 1. A malformed entry becomes a problem."""
    entries = array if isinstance(array, list) else decoded(array, list[msgspec.Raw], path, f"{noun}s")
    decode = msgspec.json.Decoder(type_).decode
    for number, raw in enumerate(entries, 1):
        try:
            entry = decode(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            try:
                entry = decoded(raw, type_, path, f"{noun} {number}")
            except UserError as error:
                fault = str(error).partition("read: ")[2]
                problems.append(Problem(Kind.BAD_ROW, f"{path}, {noun} {number}", fault))
                continue
        yield number, entry
