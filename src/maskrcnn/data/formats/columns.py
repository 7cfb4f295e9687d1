"""Which column of a table holds what: image, run-length mask, class, attributes, height and width, by their headers.

Competitions named them in many ways; a column of masks is also known by its cells.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from maskrcnn.errors import UserError

# Headers, lower-case and without separators, in order of preference.
HEADERS: dict[str, tuple[str, ...]] = {
    "image": (
        "imageid",
        "image",
        "imagename",
        "filename",
        "imagefile",
        "file",
        "fileid",
        "img",
        "imgid",
        "name",
        "path",
        "id",
    ),
    "rle": (
        "encodedpixels",
        "rle",
        "rlemask",
        "maskrle",
        "mask",
        "segmentation",
        "annotation",
        "pixels",
        "encoding",
        "runs",
        "label",
        "labels",
    ),
    "class": (
        "classid",
        "categoryid",
        "class",
        "category",
        "classname",
        "categoryname",
        "labelid",
        "labelname",
        "celltype",
        "label",
    ),
    "attributes": ("attributesids", "attributeids", "attributes"),
    "height": ("height", "imageheight", "imgheight", "h"),
    "width": ("width", "imagewidth", "imgwidth", "w"),
}
COMBINED = ("imageidclassid", "imageclassid", "imageidcategoryid", "imagelabel", "imageidlabel", "imageclass")
NO_OBJECT = ("", "-1", "nan", "null", "none", "na", "n/a")
RUNS = re.compile(r"^\s*-?\d+(\s+-?\d+)+\s*$|^\s*-1?\s*$")


@dataclass
class Columns:
    """Which column holds what; `combined` says that the image column ends in ``_<class>``."""

    image: str
    rle: str
    class_: str | None
    attributes: str | None
    height: str | None
    width: str | None
    combined: bool

    def __str__(self) -> str:
        parts = [f"images from {self.image!r}" + (" (ending in _class)" if self.combined else "")]
        parts.append(f"masks from {self.rle!r}")
        if self.class_:
            parts.append(f"classes from {self.class_!r}")
        if self.attributes:
            parts.append(f"attributes from {self.attributes!r}")
        sized = self.height and self.width
        parts.append(f"sizes from {self.height!r}, {self.width!r}" if sized else "sizes from the images")
        return ", ".join(parts)


def find_columns(table: pl.DataFrame, source: Path, given: dict[str, str]) -> Columns:
    """The columns of `table` by their headers, those `given` by role first. Raises `UserError`."""
    for role, name in given.items():
        if role not in HEADERS:
            raise UserError(f"columns: there is no role {role!r}; there are {', '.join(HEADERS)}")
        if name not in table.columns:
            raise UserError(f"{source} has no column {name!r}; it has {', '.join(table.columns)}")
    taken = set(given.values())
    plain = {_plain(h): h for h in reversed(table.columns) if h not in taken}

    def find(role: str, fits: Callable[[str], bool] | None = None) -> str | None:
        if role in given:
            return given[role]
        for header in HEADERS[role]:
            name = plain.get(header)
            if name is not None and name not in taken and (fits is None or fits(name)):
                taken.add(name)
                return name
        return None

    has_image = "image" in given or any(h in plain for h in HEADERS["image"])
    combined = None if has_image else next((plain[h] for h in COMBINED if h in plain), None)
    taken |= {combined} if combined else set()
    image = combined or find("image")
    rle = find("rle", lambda name: _looks_like_runs(table[name]))
    if image is None or rle is None:
        missing = "image name (such as ImageId)" if image is None else "run-length mask (such as EncodedPixels)"
        raise UserError(
            f"{source}: no column with the {missing} was recognised among {', '.join(table.columns)}. "
            f"Name it: --column {'image' if image is None else 'rle'}=NAME"
        )
    return Columns(image, rle, find("class"), find("attributes"), find("height"), find("width"), combined is not None)


def _looks_like_runs(column: pl.Series) -> bool:
    """Most of the first texts that say anything are numbers in a row."""
    texts = [t.strip() for t in column.drop_nulls().head(2000).to_list() if t.strip().lower() not in NO_OBJECT][:200]
    return sum(bool(RUNS.match(t)) for t in texts) * 2 >= len(texts)


def _plain(header: str) -> str:
    return re.sub(r"[^a-z0-9]", "", header.lower())
