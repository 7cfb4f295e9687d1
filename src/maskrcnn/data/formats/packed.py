"""Unpack a table or JSON file: file -> bytes, in steps and up to a limit, as a few kilobytes can claim terabytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any

from maskrcnn.data.pictures import is_hidden
from maskrcnn.errors import UserError, counted

PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", *PACKED_SUFFIXES)
"""Suffixes of tables, packed or not."""

UNPACKED_BYTES, MAX_RATIO, MAX_BYTES = 2**28, 100, 2**32
"""Any file may unpack to the first number of bytes, a larger one to `MAX_RATIO` times its size, and none to more than
the last. Runs shrink to a half of their size or a third. A list of numbered images without masks may shrink to less
than a 100th, but is small.
"""

STEP_BYTES = 2**12
"""Bytes that are unpacked at a time. zipfile unpacks as many packed bytes as it is asked for, to whatever size."""

MARK_OF_ARCHIVE = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "bzip2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
    "Zstandard": re.compile(rb"\x28\xb5\x2f\xfd"),
    "zip": re.compile(rb"PK\x03\x04|PK\x05\x06"),
    "tar": re.compile(rb"(?s:.{257})ustar"),
}
"""First bytes of archives. The first four hold one file each."""

MARK_BYTES = 512
"""Length of the part of a file in which these stand."""

ENCRYPTED = 1
"""Bit of a zip member's flags."""


def read_content(source: Path) -> bytes:
    """Return the bytes of a file, or of the one file in it if it is packed.

    Raise `UserError` if it cannot be read, holds several files or another archive, or is larger than it may be.
    """
    try:
        with open(source, "rb") as file:
            kind = _archive(file.read(MARK_BYTES))
        if kind is None:
            return source.read_bytes()
        if kind == "zip":
            with zipfile.ZipFile(source) as archive, archive.open(_only_member(archive, source)) as packed:
                content = _unpacked(packed, source)
        elif kind in OPENERS:
            with OPENERS[kind](source) as packed:
                content = _unpacked(packed, source)
        else:
            raise UserError(f"{source} is a {kind} archive; unpack it and give its folder, or its table")
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{source} cannot be read: unpacking it takes more memory than there is") from None
    except Exception as error:
        # Each library raises its exceptions for a damaged archive.
        raise UserError(f"{source} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if inner := _archive(content):
        raise UserError(f"{source} holds a {inner} archive, not a table or JSON; unpack it and give the file in it")
    return content


def _archive(start: bytes) -> str | None:
    return next((kind for kind, mark in MARK_OF_ARCHIVE.items() if mark.match(start)), None)


def _open_zstandard(source: Path) -> Any:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ModuleNotFoundError:
        raise UserError(f"{source} needs backports.zstd: pip install 'maskrcnn[data]', or unpack it") from None
    return zstd.open(source)


OPENERS: dict[str, Callable[[Path], Any]] = {
    "gzip": gzip.open,
    "bzip2": bz2.open,
    "xz": lzma.open,
    "Zstandard": _open_zstandard,
}


def _unpacked(packed: IO[bytes], source: Path) -> bytes:
    """Read `packed` to its end. Raise `UserError` as soon as it is larger than it may be."""
    size = source.stat().st_size
    max_bytes = min(max(UNPACKED_BYTES, MAX_RATIO * size), MAX_BYTES)
    content = io.BytesIO()
    while step := packed.read(STEP_BYTES):
        if content.tell() + len(step) > max_bytes:
            raise UserError(
                f"{source} has {size:,} bytes and unpacks to more than {max_bytes:,}: it is damaged, or made to fill "
                "the memory. If you trust it, unpack it and give the file in it"
            )
        content.write(step)
    return content.getvalue()


def _only_member(archive: zipfile.ZipFile, source: Path) -> zipfile.ZipInfo:
    """Return the one file in `archive`, beside what systems add."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"{source} holds {member.filename!r}, a place outside of the archive: do not trust it")
    members = [member for member in members if not is_hidden(PurePosixPath(member.filename))]
    if len(members) != 1:
        held = ", ".join(member.filename for member in members[:3]) + (" ..." if len(members) > 3 else "")
        raise UserError(
            f"{source} holds {counted(len(members), 'file')} ({held}), not one table; unpack it and give the folder"
        )
    if members[0].flag_bits & ENCRYPTED:
        raise UserError(f"{source} is encrypted; unpack it with its password and give the file in it")
    return members[0]
