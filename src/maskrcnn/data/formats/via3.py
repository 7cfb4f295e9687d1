"""Projects of version 3 of the VGG Image Annotator: views of files, and regions of views as lists of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from maskrcnn.data.formats.source import Fields, decoded
from maskrcnn.data.formats.via_regions import Listing, Region, ShapeAttributes
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.errors import UserError

SHAPES: dict[int, tuple[str, tuple[str, ...]]] = {
    1: ("point", ("cx", "cy")),
    2: ("rect", ("x", "y", "width", "height")),
    3: ("circle", ("cx", "cy", "r")),
    4: ("ellipse", ("cx", "cy", "rx", "ry")),
    5: ("line", ()),
    6: ("polyline", ()),
    7: ("polygon", ()),
}
"""Name of each shape by its number, which comes first in a region, and the names of the numbers behind it."""

CHECKBOX = 2
"""Type of an attribute whose value lists several options, separated by commas."""

PICTURE = 2
"""Type of a file that is a picture."""


class File(msgspec.Struct):
    """An entry of ``file``; `src` is the address of one that is not in the folder."""

    fname: str
    type: int = PICTURE
    src: str = ""


class View(msgspec.Struct):
    """An entry of ``view``: the files that are annotated together, which is one for pictures."""

    fid_list: list[int | str]


class Attribute(msgspec.Struct):
    """An entry of ``attribute``."""

    aname: str
    type: int = 1
    options: dict[str, str] = {}


class Metadata(msgspec.Struct):
    """An entry of ``metadata``: the view, times of a video, shape and numbers of a region, and attributes."""

    vid: str | int
    z: list[float] = []
    xy: list[float] = []
    av: dict[str, Any] = {}


def read(file: Path, fields: Fields) -> Listing:
    """Return what the project lists. Raise `UserError`."""
    entries = {
        key: decoded(fields.get(key, msgspec.Raw(b"{}")), Fields, file, key)
        for key in ("file", "view", "attribute", "metadata")
    }
    files = {key: decoded(raw, File, file, f"file {key}") for key, raw in entries["file"].items()}
    attributes = {key: decoded(raw, Attribute, file, f"attribute {key}") for key, raw in entries["attribute"].items()}
    listing = Listing(options={attribute.aname: attribute.options for attribute in attributes.values()})
    regions_of_view: dict[str, list[tuple[int, Region]]] = {}
    for key, raw in entries["view"].items():
        view = decoded(raw, View, file, f"view {key}")
        shown = [files[str(fid)] for fid in view.fid_list if str(fid) in files]
        if len(shown) != 1 or shown[0].type != PICTURE:
            fault = "only views of one picture are read, not of videos, of sound or of several files"
            listing.problems.append(Problem(Kind.BAD_ROW, f"{file}, view {key}", fault))
            continue
        regions_of_view[key] = []
        listing.images.append((shown[0].fname or shown[0].src, regions_of_view[key]))
    for key, raw in entries["metadata"].items():
        try:
            metadata = decoded(raw, Metadata, file, f"metadata {key}")
            regions = regions_of_view.get(str(metadata.vid))
            if regions is not None and metadata.xy:
                regions.append((len(regions) + 1, _region(metadata, attributes)))
        except UserError as error:
            fault = str(error).partition(" cannot be read: ")[2] or str(error)
            listing.problems.append(Problem(Kind.BAD_ROW, f"{file}, metadata {key}", fault))
    return listing


def _region(metadata: Metadata, attributes: dict[str, Attribute]) -> Region:
    number, *numbers = metadata.xy
    if number not in SHAPES:
        raise UserError(f"the shape {number:g} is unknown; the known ones are {', '.join(map(str, SHAPES))}")
    name, keys = SHAPES[int(number)]
    shape = ShapeAttributes(name)
    for side, value in zip(keys, numbers, strict=False):
        setattr(shape, side, value)
    if not keys:
        shape.all_points_x, shape.all_points_y = numbers[::2], numbers[1::2]
    values: dict[str, Any] = {}
    for key, text in metadata.av.items():
        attribute = attributes.get(key, Attribute(key))
        chosen = str(text).split(",") if text else []
        values[attribute.aname] = dict.fromkeys(chosen, True) if attribute.type == CHECKBOX else text
    return Region(shape, values)
