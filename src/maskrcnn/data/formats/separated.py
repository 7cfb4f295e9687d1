"""Read a table of texts, whatever packs it, encodes it and separates its columns: file -> bytes -> UTF-8 -> table.

Parquet is one more container: its columns become texts.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import polars as pl

from maskrcnn.data.formats.columns import is_known_header
from maskrcnn.data.formats.packed import PACKED_SUFFIXES, read_content
from maskrcnn.errors import UserError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""What may separate columns, in order of preference, with its name for people."""

MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before that of UTF-16, with which it begins
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    codecs.BOM_UTF8: "UTF-8-SIG",
}
"""Encoding of a text by its first bytes."""

UTF_8 = ("UTF-8", "UTF-8-SIG")
NOT_A_TABLE = re.compile(rb"(?:\xef\xbb\xbf)?\s*[\[{<]")
"""How JSON and XML begin."""

PARQUET_MARK = b"PAR1"
PARQUET_SUFFIXES = (".parquet",)

PARQUET_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""What polars raises for a damaged file."""

SAMPLE_BYTES, SAMPLE_LINES, MAX_HEADER = 1_000_000, 200, 100_000
"""What separators are sought in: bytes of the file, lines of these, and characters of the header."""

QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True)
class Separated:
    """A table of texts, and what its file was like: the separator of its columns and its encoding.

    People count its rows from `first_row`: 2 below a header.
    """

    table: pl.DataFrame
    separator: str = ","
    encoding: str = "UTF-8"
    first_row: int = 2

    def __str__(self) -> str:
        """Describe what is unusual, as the end of a sentence."""
        separator = f", columns separated by {SEPARATORS[self.separator]}" if self.separator != "," else ""
        encoding = f", read as {self.encoding} because it is not UTF-8" if self.encoding not in UTF_8 else ""
        return separator + encoding


def read_table(source: Path, column_names: Collection[str]) -> Separated:
    """Return the rows of `source`, which may be compressed, as texts. Raise `UserError`.

    `column_names` are columns that the user named.
    """
    content = read_content(source)
    if content.startswith(PARQUET_MARK) or source.suffix.lower() in PARQUET_SUFFIXES:
        texts = map(_as_texts, read_parquet(io.BytesIO(content), source))
        return Separated(pl.DataFrame([text for text in texts if text is not None]), first_row=1)
    if NOT_A_TABLE.match(content):
        packed = source.suffix.lower() in PACKED_SUFFIXES
        remedy = "unpack it and give the file in it" if packed else "give the file a name that ends in .json or .xml"
        raise UserError(f"{source} holds JSON or XML, not a table; {remedy}")
    content, encoding = _decoded(content)
    sample = content[:SAMPLE_BYTES].decode(errors="replace")
    separator = _find_separator(sample, column_names)
    try:
        table = pl.read_csv(content, infer_schema=False, separator=separator)
    except Exception as error:
        # Polars raises a different exception for each kind of malformed file.
        fault = _ragged_row(content.decode(), separator) or str(error).splitlines()[0]
        raise UserError(f"{source} cannot be read as a CSV file: {fault}") from None
    if table.height == 0:
        raise UserError(f"{source} has a header but no rows")
    return Separated(table, separator, encoding)


def read_parquet(file: Path | IO[bytes], source: Path) -> pl.DataFrame:
    """Return the table in `file`, which people know as `source`. Raise `UserError`."""
    try:
        table = pl.read_parquet(file)
    except PARQUET_ERRORS as error:
        raise UserError(f"{source} cannot be read as a Parquet file: {str(error).splitlines()[0]}") from None
    if table.height == 0:
        raise UserError(f"{source} has no rows")
    return table


def _as_texts(column: pl.Series) -> pl.Series | None:
    """Return numbers as digits, lists with blanks between their items, and structures as JSON; None for other types."""
    try:
        if isinstance(column.dtype, pl.List | pl.Array):
            return column.cast(pl.List(pl.String)).list.join(" ")
        return column.struct.json_encode() if isinstance(column.dtype, pl.Struct) else column.cast(pl.String)
    except pl.exceptions.PolarsError:
        return None


def _decoded(content: bytes) -> tuple[bytes, str]:
    """Return the content as UTF-8 without a mark, and its encoding.

    The mark at the start decides; without one, NUL bytes indicate UTF-16. Other bytes are decoded as Windows-1252, or
    as Latin-1 if they include some that Windows-1252 leaves out. A file that was cut may end in a part of a letter.
    """
    encoding = next((encoding for mark, encoding in MARKS.items() if content.startswith(mark)), "UTF-8")
    if encoding == "UTF-8" and b"\0" in content[:4]:
        encoding = "UTF-16-BE" if content.startswith(b"\0") else "UTF-16-LE"
    if encoding not in UTF_8:
        return content.decode(encoding, "replace").encode(), encoding
    try:
        text = content.decode(encoding)
        return (content if encoding == "UTF-8" else text.encode()), encoding
    except UnicodeDecodeError as error:
        is_certain = encoding == "UTF-8-SIG" or not content[: error.start].isascii()
        if error.reason == "unexpected end of data" and is_certain:  # only the last letter is at fault
            return content.decode(encoding, "replace").encode(), encoding
    try:
        return content.decode("Windows-1252").encode(), "Windows-1252"
    except UnicodeDecodeError:
        return content.decode("Latin-1").encode(), "Latin-1"


def _find_separator(sample: str, column_names: Collection[str]) -> str:
    """Prefer the separator that gives the header the most known names, then the one that most rows agree about."""
    lines = QUOTED.sub("", sample).splitlines()[:SAMPLE_LINES]
    header_line = next(iter(sample.splitlines()), "")[:MAX_HEADER]

    def evidence(separator: str) -> tuple[int, float, int]:
        header = next(csv.reader([header_line], delimiter=separator), [])
        known = sum(name in column_names or is_known_header(name) for name in header)
        agreeing = sum(line.count(separator) == len(header) - 1 for line in lines[1:]) / max(len(lines) - 1, 1)
        return known, agreeing if len(header) > 1 else 0.0, len(header)

    return max(SEPARATORS, key=evidence)


def _ragged_row(text: str, separator: str) -> str | None:
    """Describe the first row that has more columns than the header, or None."""
    columns = [line.count(separator) + 1 for line in QUOTED.sub("", text).splitlines()]
    row = next((row for row, n in enumerate(columns) if n > columns[0]), None)
    if row is None:
        return None
    return (
        f"row {row + 1} has {columns[row]} columns, the header {columns[0]}; a text that contains "
        f"{SEPARATORS[separator]} must stand in double quotes"
    )
