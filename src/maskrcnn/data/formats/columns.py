"""Recognise columns by their headers, which differ between competitions. Of several mask columns, one holds runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from maskrcnn.errors import UserError

HEADERS = {
    "image": "imageid image imagename filename imagefile file fileid img imgid name path id",
    "rle": "encodedpixels rle rlemask maskrle mask segmentation annotation pixels encoding runs maskfile maskpath "
    "maskfilename maskname predicted prediction label labels",
    "class": "classid categoryid class category classname categoryname labelid labelname celltype label",
    "class_name": "classname categoryname labelname",
    "attributes": "attributesids attributeids attributes",
    "height": "height imageheight imgheight h",
    "width": "width imagewidth imgwidth w",
}
"""Headers by role, lower-case and without separators, in order of preference."""

COMBINED_HEADERS = ("imageidclassid", "imageclassid", "imageidcategoryid", "imagelabel", "imageidlabel", "imageclass")
KNOWN_HEADERS = frozenset(COMBINED_HEADERS).union(*(headers.split() for headers in HEADERS.values()))
NO_OBJECT = ("", "[]", "-1", "nan", "null", "none", "na", "n/a")
RUNS_PATTERN = re.compile(r"^\s*-?\d+(\s+-?\d+)+\s*$|^\s*-1?\s*$")


@dataclass
class Columns:
    """Column name of each role. With `combined`, cells of the image column end in ``_<class>``."""

    image: str
    rle: str
    class_: str | None
    class_name: str | None
    attributes: str | None
    height: str | None
    width: str | None
    combined: bool

    def __str__(self) -> str:
        ending = " (ending in _class)" if self.combined else ""
        parts = [f"images from {self.image!r}{ending}", f"masks from {self.rle!r}"]
        if self.class_:
            parts.append(f"classes from {self.class_!r}")
        if self.class_name:
            parts.append(f"their names from {self.class_name!r}")
        if self.attributes:
            parts.append(f"attributes from {self.attributes!r}")
        has_sizes = self.height and self.width
        parts.append(f"sizes from {self.height!r}, {self.width!r}" if has_sizes else "sizes from the images")
        return ", ".join(parts)


def find_columns(table: pl.DataFrame, source: Path, column_of_role: dict[str, str]) -> Columns:
    """Recognise columns by header, after those in `column_of_role`. Raise `UserError` for missing ones."""
    for name in column_of_role.values():
        if name not in table.columns:
            raise UserError(f"{source} has no column {name!r}; its columns are {', '.join(table.columns)}")
    used = set(column_of_role.values())
    by_header = {_normalized(h): h for h in reversed(table.columns) if h not in used}

    def find(role: str, accepts: Callable[[str], bool] | None = None) -> str | None:
        if role in column_of_role:
            return column_of_role[role]
        for header in HEADERS[role].split():
            name = by_header.get(header)
            if name is not None and name not in used and (accepts is None or accepts(name)):
                used.add(name)
                return name
        return None

    has_image = "image" in column_of_role or any(h in by_header for h in HEADERS["image"].split())
    combined = None if has_image else next((by_header[h] for h in COMBINED_HEADERS if h in by_header), None)
    used |= {combined} if combined else set()
    image = combined or find("image")
    # Without a column of runs, a mask header decides, and the rows say what is wrong. A class header does not.
    rle = find("rle", lambda name: _looks_like_runs(table[name])) or find(
        "rle", lambda name: _normalized(name) not in HEADERS["class"].split()
    )
    if image is None or rle is None:
        missing = "image name (such as ImageId)" if image is None else "run-length mask (such as EncodedPixels)"
        raise UserError(
            f"{source}: no column with the {missing} was recognised among {', '.join(table.columns)}. "
            f"Name it with --column {'image' if image is None else 'rle'}=NAME"
        )
    class_ = find("class")
    class_name = find("class_name") if class_ or combined else None
    is_combined = combined is not None
    return Columns(image, rle, class_, class_name, find("attributes"), find("height"), find("width"), is_combined)


def _looks_like_runs(column: pl.Series) -> bool:
    """Return whether at least half of the first 200 non-empty cells are sequences of integers."""
    texts = [t.strip() for t in column.drop_nulls().head(2000).to_list() if t.strip().lower() not in NO_OBJECT][:200]
    return sum(bool(RUNS_PATTERN.match(t)) for t in texts) * 2 >= len(texts)


def is_known_header(header: str) -> bool:
    """Return whether some layout has a column of this header."""
    return _normalized(header) in KNOWN_HEADERS


def _normalized(header: str) -> str:
    return re.sub(r"[^a-z0-9]", "", header.lower())
