"""VGG Image Annotator (VIA): projects and annotations in JSON, of versions 1 to 3, and annotations in CSV.

One file lists the regions of all images. In a folder, as of Matterport's balloons, each part has such a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from maskrcnn.data.formats import via3
from maskrcnn.data.formats.annotations import AnnotatedImage, Annotations, Instance
from maskrcnn.data.formats.attributes import split_attributes
from maskrcnn.data.formats.separated import read_table
from maskrcnn.data.formats.source import Fields, Source, decoded, each, json_fields, starts_with
from maskrcnn.data.formats.traits import Trait
from maskrcnn.data.formats.via_regions import NO_MASK, Listing, Region, choose_attribute, draw
from maskrcnn.data.parts import first_part
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError
from maskrcnn.files import atomic
from maskrcnn.polygons import join_rings
from maskrcnn.rle import RLE
from maskrcnn.structures import UNNAMED_CLASS

NAME = "VGG Image Annotator"
SUFFIXES = (".json",)
ROLES = frozenset({"class"})
HOLDS = frozenset(
    {Trait.HOLES, Trait.SEVERAL_PARTS, Trait.OVERLAPS, Trait.CLASSES, Trait.ATTRIBUTES, Trait.EMPTY_IMAGES}
)

CSV_MARK = b"region_shape_attributes"
"""A column that only VIA's tables have."""

NOTHING = msgspec.Raw(b"{}")
encode = msgspec.json.encode


class Attribute(msgspec.Struct):
    """An entry of a project's attributes of regions. Options map what is stored to what people see."""

    options: dict[str, str] = {}


def recognizes(source: Source) -> bool:
    """Whether the file, or some file of the folder, is VIA's."""
    return next(_files(source), None) is not None


def read(source: Source) -> Annotations:
    """Read one file, or all files of a folder. Raise `UserError`."""
    files = list(_files(source))
    documents = [file for file in files if file.suffix.lower() == ".json"]
    files = documents or files  # tables beside documents repeat them
    listings = {file: _read_json(file) if documents else _read_table(file) for file in files}
    all_regions = [region for listing in listings.values() for _, regions in listing.images for _, region in regions]
    classifier = choose_attribute(
        [region.region_attributes for region in all_regions],
        {name: options for listing in listings.values() for name, options in listing.options.items()},
        source.columns.get("class"),
        str(source.path),
    )
    row_noun = "region" if documents else "row"
    annotations = Annotations(source.path, NAME, [], row_noun=row_noun, notes=[str(classifier)])
    for file, listing in listings.items():
        annotations.problems += listing.problems
        folder = file.relative_to(source.root).parent
        part = first_part(reversed(folder.parts)) if len(files) > 1 else ""
        for name, regions in listing.images:
            image = AnnotatedImage(_relative(folder, name), source=file if source.path.is_dir() else None, part=part)
            annotations.images.append(image)
            for number, region in regions:
                shape = region.shape_attributes
                if shape.name in NO_MASK:
                    annotations.left_out[NO_MASK[shape.name]] += 1
                    continue
                try:
                    label = classifier.class_of(region.region_attributes) or UNNAMED_CLASS
                    others = classifier.others(region.region_attributes)
                    image.instances.append(Instance(label, partial(draw, shape), number, others))
                except UserError as error:
                    place = f"{file}, {row_noun} {number}"
                    annotations.problems.append(Problem(Kind.BAD_ROW, place, f"image {name}: {error}"))
    if n_rectangles := sum(region.shape_attributes.name == "rect" for region in all_regions):
        annotations.notes.append(f"rectangles ({n_rectangles:,}) become masks of their whole area")
    return annotations


def _relative(folder: Path, name: str) -> str:
    """Return the name of a picture relative to the source. Of a web address, the path counts."""
    address = re.match(r"[a-z]+://[^/]*/([^?#]*)", name, re.IGNORECASE)
    return (folder / (address[1] if address else name.replace("\\", "/").lstrip("/"))).as_posix()


# ---- files --------------------------------------------------------------------------------------------------------


def _files(source: Source) -> Iterator[Path]:
    """Yield the file, or those of the folder, that are VIA's."""
    for file in source.having_suffix(".json", ".csv"):
        try:
            if file.suffix.lower() == ".csv":
                with open(file, "rb") as table:
                    is_via = CSV_MARK in table.read(1000).replace(b"\0", b"")
            else:
                is_via = _is_via(source.fields if source.path.is_file() else json_fields(file), file)
        except (UserError, OSError):
            if source.path.is_file():
                raise
            continue
        if is_via:
            yield file


def _is_via(fields: Fields, file: Path) -> bool:
    if "_via_img_metadata" in fields or {"project", "file", "view", "metadata"} <= set(fields):
        return True
    first = next(iter(fields.values()), NOTHING)
    return starts_with(first, b"{") and {"filename", "regions"} <= set(decoded(first, Fields, file, "the first image"))


def _read_json(file: Path) -> Listing:
    fields = json_fields(file)
    if "_via_img_metadata" not in fields and "metadata" in fields:
        return via3.read(file, fields)
    listing = Listing()
    if "_via_attributes" in fields:
        attributes = decoded(fields["_via_attributes"], Fields, file, "_via_attributes")
        of_regions = decoded(attributes.get("region", NOTHING), dict[str, Attribute], file, "_via_attributes")
        listing.options = {name: attribute.options for name, attribute in of_regions.items()}
        fields = decoded(fields.get("_via_img_metadata", NOTHING), Fields, file, "_via_img_metadata")
    for key, raw in fields.items():
        try:
            image = decoded(raw, _Image, file, f"image {key}")
            regions = image.regions
            if starts_with(regions, b"{"):  # version 1 numbers them from "0"
                regions = msgspec.Raw(encode(list(decoded(regions, Fields, file, f"image {key}").values())))
            noun = f"image {image.filename}, region"
            listing.images.append((image.filename, list(each(regions, Region, file, noun, listing.problems))))
        except UserError as error:
            place, _, fault = str(error).partition(" cannot be read: ")
            listing.problems.append(Problem(Kind.BAD_ROW, place, fault))
    return listing


class _Image(msgspec.Struct):
    """An image of a JSON file: its name, and its regions as a list, or as an object with numbers for keys."""

    filename: str
    regions: msgspec.Raw = msgspec.Raw(b"[]")


def _read_table(file: Path) -> Listing:
    """Read VIA's CSV: a row for each region, with objects in JSON as cells, or one for an image without regions."""
    table = read_table(file, ()).table
    table = table.rename({name: name.strip().lstrip("#") for name in table.columns})
    needed = ("filename", "region_shape_attributes", "region_attributes")
    if missing := [name for name in needed if name not in table.columns]:
        raise UserError(f"{file} has no column {missing[0]!r}, which VIA's tables have")
    listing = Listing()
    regions_of_image: dict[str, list[tuple[int, Region]]] = {}
    rows = zip(*(table[name].fill_null("").to_list() for name in needed), strict=True)
    for row, (name, shape, attributes) in enumerate(rows, 2):
        regions = regions_of_image.setdefault(name.strip(), [])
        if shape.strip() in ("", "{}"):
            continue
        entry = b'{"shape_attributes":%s,"region_attributes":%s}' % (shape.encode(), (attributes or "{}").encode())
        try:
            regions.append((row, decoded(entry, Region, file, f"row {row}")))
        except UserError as error:
            fault = str(error).partition(" cannot be read: ")[2]
            listing.problems.append(Problem(Kind.BAD_ROW, f"{file}, row {row}", fault))
    listing.images = list(regions_of_image.items())
    return listing


# ---- data set -> project of version 2 -----------------------------------------------------------------------------

CLASS = "class"
"""Name of the attribute of regions that says their class, as it is written."""

SETTINGS = {
    "ui": {
        "annotation_editor_height": 25,
        "annotation_editor_fontsize": 0.8,
        "leftsidebar_width": 18,
        "image_grid": {
            "img_height": 80,
            "rshape_fill": "none",
            "rshape_fill_opacity": 0.3,
            "rshape_stroke": "yellow",
            "rshape_stroke_width": 2,
            "show_region_shape": True,
            "show_image_policy": "all",
        },
        "image": {
            "region_label": CLASS,
            "region_color": CLASS,
            "region_label_font": "10px Sans",
            "on_image_annotation_editor_placement": "NEAR_REGION",
        },
    },
    "core": {"buffer_size": 18, "filepath": {}, "default_filepath": ""},
    "project": {"name": "maskrcnn"},
}
"""VIA's own settings, which a project has to have."""


def write(data: Dataset, target: Path) -> None:
    """Write a project that VIA 2 opens. A mask becomes one polygon along the edges of its pixels.

    Bridges of no width join the rings of holes and of several parts. Raise `UserError`.
    """
    text = {"type": "text", "description": "", "default_value": ""}
    options = dict(zip(data.class_names, data.class_names, strict=True))
    classes = {"type": "dropdown", "description": "", "options": options, "default_options": {}}
    others = {name for one in set([] if data.attributes is None else data.attributes) for name in split_attributes(one)}
    attributes = dict.fromkeys(sorted(others), text) | {CLASS: classes}
    head = {"_via_settings": SETTINGS, "_via_attributes": {"region": attributes, "file": {}}}
    keys = []
    with atomic(target) as temporary, open(temporary, "wb") as file:
        file.write(encode(head)[:-1] + b',\n"_via_data_format_version":"2.0.10",\n"_via_img_metadata":{')
        for i, place in enumerate(data.places):
            n_bytes = -1 if data.files[i].suffix.lower() == ".json" else data.files[i].stat().st_size
            keys.append(f"{place}{n_bytes}")
            image = {
                "filename": str(place),
                "size": n_bytes,
                "regions": _regions_of_image(data, i),
                "file_attributes": {},
            }
            file.write((b",\n" if i else b"\n") + encode(keys[-1]) + b":" + encode(image))
        file.write(b'},\n"_via_image_id_list":' + encode(keys) + b"}\n")


def _regions_of_image(data: Dataset, i: int) -> list[dict[str, Any]]:
    regions = []
    span = data.instances(i)
    for k in range(span.start, span.stop):
        parts = RLE(data.masks[k], data.hw(i)).to_polygons()
        outline = join_rings([ring for part in parts for ring in (part.outer, *part.holes)])
        others = split_attributes(data.attributes[k]) if data.attributes is not None and data.attributes[k] else {}
        attributes = others | {CLASS: data.class_names[data.labels[k] - 1]}
        shape = {"name": "polygon", "all_points_x": outline[:, 0].tolist(), "all_points_y": outline[:, 1].tolist()}
        regions.append({"shape_attributes": shape, "region_attributes": attributes})
    return regions
