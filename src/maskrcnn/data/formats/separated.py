"""Read a table of texts whatever character separates its columns: file -> first lines -> separator -> table."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Collection
from pathlib import Path

import polars as pl

from maskrcnn.data.formats.columns import is_known_header
from maskrcnn.errors import UserError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""What may separate columns, in order of preference, with its name for people."""

SAMPLE_BYTES, SAMPLE_LINES, MAX_HEADER = 1_000_000, 200, 100_000
"""What separators are sought in: bytes of the file, lines of these, and characters of the header."""

QUOTED = re.compile(r'"(?:[^"]|"")*"')


def read_table(source: Path, column_names: Collection[str]) -> tuple[pl.DataFrame, str]:
    """Return the rows of `source` as texts, and the separator of its columns. Raise `UserError`.

    `column_names` are columns that the user named.
    """
    separator = _find_separator(_text(source, SAMPLE_BYTES), column_names)
    try:
        table = pl.read_csv(source, infer_schema=False, separator=separator)
    except Exception as error:
        # Polars raises a different exception for each kind of malformed file.
        fault = _ragged_row(source, separator) or str(error).splitlines()[0]
        raise UserError(f"{source} cannot be read as a CSV file: {fault}") from None
    if table.height == 0:
        raise UserError(f"{source} has a header but no rows")
    return table, separator


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


def _text(source: Path, size: int = -1) -> str:
    """Return the first `size` bytes of a file, compressed or not, or all of it. Raise `UserError`."""
    try:
        with gzip.open(source) if source.suffix.lower() == ".gz" else open(source, "rb") as file:
            return file.read(size).decode("utf-8-sig", "replace")
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{source} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _ragged_row(source: Path, separator: str) -> str | None:
    """Describe the first row that has more columns than the header, or None."""
    columns = [line.count(separator) + 1 for line in QUOTED.sub("", _text(source)).splitlines()]
    row = next((row for row, n in enumerate(columns) if n > columns[0]), None)
    if row is None:
        return None
    return (
        f"row {row + 1} has {columns[row]} columns, the header {columns[0]}; a text that contains "
        f"{SEPARATORS[separator]} must stand in double quotes"
    )
