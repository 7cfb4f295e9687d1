"""LabelMe's JSON: a file for each picture with its shapes, beside the picture or with the picture in it.

Shapes of one label and one ``group_id`` are parts of one instance, as in LabelMe's exporters. Files of X-AnyLabeling
have the same form.
"""

from __future__ import annotations

import base64
import io
import math
import posixpath
from collections import Counter
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from maskrcnn import shapes
from maskrcnn.data.formats.annotations import AnnotatedImage, Annotations, Instance
from maskrcnn.data.formats.attributes import UNNAMED, join_attributes
from maskrcnn.data.formats.source import Fields, Source, decoded, each, json_fields, starts_with
from maskrcnn.data.formats.traits import COMMON, Trait
from maskrcnn.data.images import read_mask
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError
from maskrcnn.files import named
from maskrcnn.kernels.polygons import MAX_COORDINATE
from maskrcnn.rle import RLE, RLEError

NAME = "LabelMe"
SUFFIXES = ()
HOLDS = COMMON - {Trait.UNUSED_CLASSES, Trait.CLASS_IDS, Trait.CROWD, Trait.DIVISION}

VERSION = "5.5.0"
"""LabelMe's version whose form is written: the first ones with masks beside polygons read it."""

NO_CLASS = {"__ignore__", "_background_"}
"""Labels that LabelMe's exporters leave out."""

NO_MASK = {"line": "lines", "linestrip": "line strips", "point": "points", "points": "sets of points"}
"""Types of shapes without an area, and their plural."""

DESCRIPTION = "description"

NULL = msgspec.Raw(b"null")


class Shape(msgspec.Struct):
    """An entry of ``shapes``. Version 3 has no type in some files, and no group."""

    label: str | int | float
    points: list[tuple[float, float]]
    shape_type: str | None = None
    group_id: int | str | None = None
    flags: dict[str, Any] | None = None
    description: str | None = None
    mask: str | None = None
    score: float | None = None

    @property
    def kind(self) -> str:
        """Type of the shape."""
        return self.shape_type or "polygon"


def recognizes(source: Source) -> bool:
    """Whether the file, or some file of the folder, has LabelMe's fields."""
    if source.path.is_file():
        return bool(source.having_suffix(".json")) and _is_labelme(source.fields)
    return any(_is_labelme(_fields_or_none(file)) for file in source.having_suffix(".json"))


def _is_labelme(fields: Fields) -> bool:
    has_picture = "imagePath" in fields or "imageData" in fields
    return has_picture and "shapes" in fields and starts_with(fields["shapes"], b"[")


def _fields_or_none(file: Path) -> Fields:
    """Return the fields of a JSON file; none if it is malformed."""
    try:
        return json_fields(file)
    except UserError:
        return {}


def read(source: Source) -> Annotations:
    """Read one file, or all files of a folder and its subfolders. Raise `UserError`."""
    annotations = Annotations(source.path, NAME, [], row_noun="shape")
    decisions: Counter[tuple[str, str]] = Counter()
    n_others = 0
    for file in source.having_suffix(".json"):
        try:
            fields = json_fields(file)
            if _is_labelme(fields):
                annotations.images.append(_read_file(annotations, file, fields, decisions))
            else:
                n_others += 1
        except UserError as error:
            if source.path.is_file():
                raise
            annotations.problems.append(
                Problem(Kind.BAD_ROW, str(file), str(error).removeprefix(str(file)).lstrip(", "))
            )
    if n_others:
        annotations.notes.append(f"JSON files that are not LabelMe's ({n_others:,}) are left out")
    annotations.notes += [f"{subject} ({n:,}) {fate}" for (subject, fate), n in decisions.items()]
    return annotations


def _read_file(
    annotations: Annotations, file: Path, fields: Fields, decisions: Counter[tuple[str, str]]
) -> AnnotatedImage:
    """Return the image of one file. Malformed shapes become problems; `decisions` counts what people should know."""
    source, folder = annotations.source, ""
    if source.is_dir():
        folder = file.relative_to(source).parent.as_posix() + "/"
    path, height, width = (
        decoded(fields.get(key, NULL), type_, file, key)
        for key, type_ in (("imagePath", str | None), ("imageHeight", float | None), ("imageWidth", float | None))
    )
    picture = fields.get("imageData", NULL)
    is_embedded = starts_with(picture, b'"') and not starts_with(picture, b'""')
    beside = posixpath.normpath(folder + file.stem)
    name = _picture_name(folder, path) if path else beside
    if not path and is_embedded:
        name += ".png" if starts_with(picture, b'"iVBOR') else ".jpg"
    parts: dict[Any, list[tuple[int, Shape]]] = {}
    for number, shape in each(fields["shapes"], Shape, file, "shape", annotations.problems):
        if str(shape.label) in NO_CLASS:
            decisions[f"shapes with the label {shape.label}", "are left out"] += 1
        elif shape.kind not in DRAWINGS:
            annotations.left_out[NO_MASK.get(shape.kind, f"shapes of the unknown type {shape.kind!r}")] += 1
        else:
            if shape.kind == "rectangle":
                decisions["rectangles", "become masks of their whole area"] += 1
            group = number if shape.group_id in (None, "") else (str(shape.label), shape.group_id)
            parts.setdefault(group, []).append((number, shape))
    annotations.n_joined += sum(len(shapes_of_group) - 1 for shapes_of_group in parts.values())
    return AnnotatedImage(
        name,
        [_instance(shapes_of_group) for shapes_of_group in parts.values()],
        (int(height) if height else None, int(width) if width else None),
        source=file if source.is_dir() else None,
        other_names=(beside,),
        embedded=file if is_embedded else None,
    )


def _picture_name(folder: str, path: str) -> str:
    """Return ``imagePath``, which is relative to the folder of its file, relative to the source.

    Of an absolute path, which is one of another machine, the file name counts.
    """
    posix = path.replace("\\", "/")
    if posix.startswith("/") or PureWindowsPath(path).drive:
        posix = posix.rpartition("/")[2]
    parts = PurePosixPath(posixpath.normpath(folder + posix)).parts
    return "/".join(part for part in parts if part != "..")


def _instance(parts: list[tuple[int, Shape]]) -> Instance:
    """Return the instance of the shapes of a group, with their numbers."""
    number, first = parts[0]
    attributes: dict[str, str] = {}
    for _, shape in parts:
        attributes |= {flag: "true" for flag, is_set in (shape.flags or {}).items() if is_set is True}
        if shape.description:
            attributes[DESCRIPTION] = shape.description
    if list(attributes) == [DESCRIPTION]:
        attributes = {UNNAMED: attributes[DESCRIPTION]}
    scores = [shape.score for _, shape in parts if shape.score is not None]
    return Instance(
        str(first.label),
        partial(_draw, [shape for _, shape in parts]),
        number,
        join_attributes(attributes),
        score=max(scores) if scores else None,
    )


# ---- shapes -> masks ----------------------------------------------------------------------------------------------


def _draw(parts: list[Shape], hw: tuple[int, int]) -> RLE:
    """Return the union of the shapes."""
    return reduce(RLE.union, [DRAWINGS[shape.kind](shape, hw) for shape in parts])


def _polygon(shape: Shape, hw: tuple[int, int]) -> RLE:
    return RLE.from_polygons([np.array(shape.points, np.float64).reshape(-1, 2)], hw)


def _rectangle(shape: Shape, hw: tuple[int, int]) -> RLE:
    """Draw two opposite corners; X-AnyLabeling has all four."""
    if len(shape.points) == 4:
        return _polygon(shape, hw)
    _check_points(shape)
    return shapes.rectangle([*shape.points[0], *shape.points[1]], hw)


def _circle(shape: Shape, hw: tuple[int, int]) -> RLE:
    """Draw a disc from its centre and a point of its rim."""
    _check_points(shape)
    return shapes.circle(shape.points[0], math.dist(*shape.points), hw)


def _mask(shape: Shape, hw: tuple[int, int]) -> RLE:
    """Place the picture of a mask; its upper left pixel is the first point."""
    _check_points(shape)
    origin = np.min(shape.points, 0)
    if not (np.abs(origin) <= MAX_COORDINATE).all():
        raise RLEError(f"the points of a mask are its corners, not {shape.points}")
    try:
        pixels = read_mask(base64.b64decode(shape.mask or ""), "ignore", max_hw=hw)
    except ValueError as error:
        raise RLEError(f"the mask is not a PNG in base64 ({str(error).removeprefix('the image: ')})") from None
    x, y = np.rint(origin).astype(int).tolist()
    return RLE.from_mask(pixels).shift(x, y, hw)


def _check_points(shape: Shape) -> None:
    if len(shape.points) != 2:
        raise RLEError(f"a {shape.kind} has 2 points, not {len(shape.points)}")


DRAWINGS: dict[str, Callable[[Shape, tuple[int, int]], RLE]] = {
    "polygon": _polygon,
    "rectangle": _rectangle,
    "circle": _circle,
    "mask": _mask,
    "oriented_rectangle": _polygon,  # LabelMe 6
    "rotation": _polygon,  # X-AnyLabeling's turned rectangle
    "quadrilateral": _polygon,  # X-AnyLabeling
}
"""What draws the shapes of each type."""


# ---- data set -> files --------------------------------------------------------------------------------------------


def picture_path(data: Dataset, i: int) -> PurePosixPath:
    """Return where the picture of image i belongs: beside its annotations."""
    return data.places[i]


def write(data: Dataset, target: Path) -> None:
    """Write a JSON file for each image: polygons along the edges of pixels, and masks with holes as pictures."""
    for i in range(len(data)):
        place = data.places[i]
        file = target / place.with_suffix(".json")
        height, width = data.hw(i)
        content: dict[str, Any] = {
            "version": VERSION,
            "flags": {},
            "shapes": _shapes_of_image(data, i),
            "imagePath": place.name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        with named(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(msgspec.json.encode(content))


def _shapes_of_image(data: Dataset, i: int) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    n_groups = 0
    span = data.instances(i)
    for k in range(span.start, span.stop):
        mask = RLE(data.masks[k], data.hw(i))
        outlines = mask.to_polygons()
        if any(outline.holes for outline in outlines):
            forms = [_mask_entry(mask)]
        else:
            forms = [{"points": outline.outer.tolist(), "shape_type": "polygon", "mask": None} for outline in outlines]
        n_groups += len(forms) > 1
        entry: dict[str, Any] = {
            "label": data.class_names[data.labels[k] - 1],
            "group_id": n_groups if len(forms) > 1 else None,
            DESCRIPTION: data.attributes[k] if data.attributes is not None else "",
            "flags": {},
        }
        if data.scores is not None and not math.isnan(data.scores[k]):
            entry["score"] = float(data.scores[k])
        entries += [entry | form for form in forms]
    return entries


def _mask_entry(mask: RLE) -> dict[str, Any]:
    """Return a mask as a picture of its box, whose corners are its first and last pixels."""
    x1, y1, x2, y2 = mask.box
    file = io.BytesIO()
    Image.fromarray(mask.to_mask((x1, y1, x2, y2))).save(file, "PNG")
    content = base64.b64encode(file.getvalue()).decode("ascii")
    return {"points": [[x1, y1], [x2 - 1, y2 - 1]], "shape_type": "mask", "mask": content}
