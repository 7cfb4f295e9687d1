"""Supervisely's projects: ``meta.json``, and a folder for each data set with pictures and a JSON file for each of them.

Polygons with holes and bitmaps are objects. Data sets that are named train, val or test are parts.
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Iterator
from functools import partial
from glob import escape
from pathlib import Path, PurePath
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from maskrcnn.data.formats.annotations import AnnotatedImage, Annotations, Instance
from maskrcnn.data.formats.attributes import join_attributes, split_attributes
from maskrcnn.data.formats.source import Source, decoded, each, json_fields, read_bytes
from maskrcnn.data.formats.traits import COMMON, Trait
from maskrcnn.data.images import read_mask
from maskrcnn.data.names import quoted, unquoted
from maskrcnn.data.parts import part_named
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.errors import ImageError, UserError
from maskrcnn.files import write_text
from maskrcnn.rle import RLE, RLEError, shortened

NAME = "Supervisely"
SUFFIXES = ()
HOLDS = COMMON - {Trait.CLASS_IDS, Trait.SCORES, Trait.CROWD}

META, PICTURES, ANNOTATIONS = "meta.json", "img", "ann"

WITHOUT_MASK = {
    "rectangle": "boxes",
    "line": "lines",
    "polyline": "lines",
    "point": "points",
    "graph": "key points",
    "cuboid": "cuboids",
    "alpha_mask": "alpha masks",
}
"""Geometries that have no mask, and their plural."""

UNDIVIDED = "ds0"
"""Folder for images that belong to no part."""

BYTES_A_PIXEL, OVERHEAD = 5, 4096
"""Bounds of an unpacked PNG file: four channels and what rows and blocks add, and its head."""


class ObjectClass(msgspec.Struct):
    """An entry of ``classes`` of meta.json."""

    title: str
    shape: str = ""


class Meta(msgspec.Struct):
    """What meta.json says about the project."""

    classes: list[ObjectClass]


class Points(msgspec.Struct):
    """Rings of a polygon."""

    exterior: list[list[float]] = []
    interior: list[list[list[float]]] = []


class Bitmap(msgspec.Struct):
    """A PNG file, compressed by zlib and written in base64, and the pixel (x, y) of its corner."""

    data: str
    origin: list[float]


class Tag(msgspec.Struct):
    """A tag with or without a value."""

    name: str = ""
    value: Any = None


class Object(msgspec.Struct, rename="camel"):
    """An entry of ``objects``. Old projects have no geometryType; then a bitmap or the class says the shape."""

    class_title: str
    geometry_type: str = ""
    points: Points | None = None
    bitmap: Bitmap | None = None
    tags: list[Tag | str] = []


class Size(msgspec.Struct):
    """The size of a picture."""

    height: float | None = None
    width: float | None = None


class Picture(msgspec.Struct):
    """The file of one picture."""

    objects: msgspec.Raw
    size: Size | None = None


def recognizes(source: Source) -> bool:
    """Whether a folder has meta.json with classes, and annotations in folders ``ann``; or is one such data set."""
    return source.path.is_dir() and (_meta_file(source) is not None or _is_dataset(source))


def _is_dataset(source: Source) -> bool:
    return (source.path / ANNOTATIONS).is_dir() and (source.path / PICTURES).is_dir() and bool(_files(source))


def _meta_file(source: Source) -> Path | None:
    """Return meta.json at the top of the project, or above one of its data sets."""
    for file in (source.path / META, source.path.parent / META):
        if file.is_file() and "classes" in json_fields(file) and _files(source):
            return file
    return None


def _files(source: Source) -> list[Path]:
    return [file for file in source.having_suffix(".json") if file.parent.name == ANNOTATIONS]


def read(source: Source) -> Annotations:
    """Read a project, or one of its data sets. Raise `UserError`."""
    if not recognizes(source):
        raise UserError(
            f"{source.path} is no project of {NAME}: give the folder with {META}, or the one with {PICTURES} and "
            f"{ANNOTATIONS}"
        )
    annotations = Annotations(source.path, NAME, [], row_noun="object")
    shapes: dict[str, str] = {}
    if meta := _meta_file(source):
        classes = decoded(read_bytes(meta), Meta, meta).classes
        shapes = {entry.title: entry.shape for entry in classes}
    for file in _files(source):
        annotations.images.append(_read_file(annotations, file, shapes))
    short = [image.name.rpartition("/")[2] for image in annotations.images]
    if len(set(short)) == len(short):
        for image, name in zip(annotations.images, short, strict=True):
            image.name = name
    used = {instance.label for image in annotations.images for instance in image.instances}
    names = [name for name, shape in shapes.items() if name in used or shape not in WITHOUT_MASK]
    annotations.class_names = {name: name for name in names} if shapes else None
    return annotations


def _read_file(annotations: Annotations, file: Path, shapes: dict[str, str]) -> AnnotatedImage:
    """Read the file of one picture, ``ann/a.png.json`` for ``img/a.png``."""
    dataset = file.parent.parent
    picture = dataset / PICTURES / file.name[: -len(".json")]
    if not picture.is_file():
        picture = min(picture.parent.glob(f"{escape(picture.name)}.*"), default=picture)
    words = dataset.relative_to(annotations.source).parts
    image = AnnotatedImage("/".join((*words, picture.name)), source=file)
    image.file = picture if picture.is_file() else None
    image.part = "" if words in ((), (UNDIVIDED,)) else part_named(words[-1]) or unquoted("/".join(words))
    try:
        content = decoded(read_bytes(file), Picture, file)
        size = content.size or Size()
        height, width = (int(side) if side else None for side in (size.height, size.width))
        image.hw = height, width
        objects = list(each(content.objects, Object, file, "object", annotations.problems))
    except UserError as error:
        annotations.problems.append(Problem(Kind.BAD_ROW, str(file), str(error).removeprefix(str(file)).lstrip(", ")))
        return image
    for number, entry in objects:
        shape = entry.geometry_type or ("bitmap" if entry.bitmap else shapes.get(entry.class_title, "polygon"))
        if shape in WITHOUT_MASK or shape not in DRAW:
            annotations.left_out[WITHOUT_MASK.get(shape, f"shapes {shortened(shape)!r}")] += 1
            continue
        tags = [Tag(tag) if isinstance(tag, str) else tag for tag in entry.tags]
        attributes = join_attributes({tag.name: "" if tag.value is None else tag.value for tag in tags if tag.name})
        image.instances.append(Instance(entry.class_title, partial(DRAW[shape], entry), number, attributes))
    return image


# ---- drawing ----------------------------------------------------------------------------------------------------


def _draw_polygon(entry: Object, hw: tuple[int, int]) -> RLE:
    """Draw the outer ring without its holes."""
    if entry.points is None:
        raise RLEError("the polygon has no points")
    rings = [_flat(ring) for ring in (entry.points.exterior, *entry.points.interior)]
    return RLE.from_polygons(rings[:1], hw, holes=rings[1:])


def _flat(ring: list[list[float]]) -> list[float]:
    if not all(len(point) == 2 for point in ring):
        raise RLEError("a point of the polygon is not x and y")
    return [v for point in ring for v in point]


def _draw_bitmap(entry: Object, hw: tuple[int, int]) -> RLE:
    """Draw the opaque pixels of the bitmap, or those that are not 0 if it has no alpha."""
    if entry.bitmap is None:
        raise RLEError("the object has no bitmap")
    origin = entry.bitmap.origin
    if len(origin) != 2 or not all(float(v).is_integer() and abs(v) < 1e9 for v in origin):
        raise RLEError(f"the origin of the bitmap {shortened(str(origin))} is not x and y in whole pixels")
    limit = BYTES_A_PIXEL * hw[0] * hw[1] + OVERHEAD
    try:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(base64.b64decode(entry.bitmap.data, validate=True), limit)
    except (ValueError, zlib.error) as error:
        raise RLEError(f"the data of the bitmap are not base64 of zlib: {error}") from None
    if unpacker.unconsumed_tail:
        raise RLEError(f"the bitmap unpacks to more than {limit:,} bytes, which no mask of its picture needs")
    x, y = (int(v) for v in origin)
    try:
        pixels = read_bitmap(content, hw)
    except ImageError as error:
        raise RLEError(f"the bitmap is no PNG file: {error}") from None
    return RLE.from_mask(pixels).shift(x, y, hw)


def read_bitmap(content: bytes, hw: tuple[int, int]) -> np.ndarray:
    """Return the opaque or nonzero pixels of a PNG file, (h, w) bool. Raise `ImageError`."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            width, height = picture.size
            if height > hw[0] or width > hw[1]:
                raise ImageError(f"it is {height} x {width}, larger than the picture of {hw[0]} x {hw[1]} (h x w)")
            if "A" in picture.getbands() or "transparency" in picture.info:
                return np.asarray(picture.convert("RGBA"))[:, :, 3] > 0
    except ImageError:
        raise
    except Exception as error:  # a damaged file raises anything
        raise ImageError(str(error)[:120] or type(error).__name__) from None
    return read_mask(content, "ignore")


DRAW = {"polygon": _draw_polygon, "bitmap": _draw_bitmap}


# ---- writing ----------------------------------------------------------------------------------------------------


def picture_path(data: Dataset, i: int) -> PurePath:
    """Return the place of picture i in the folder that `write` makes."""
    return PurePath(_folder(data, i), PICTURES, _name(data, i))


def _folder(data: Dataset, i: int) -> str:
    return quoted(data.parts[i]) if data.parts and data.parts[i] else UNDIVIDED


def _name(data: Dataset, i: int) -> str:
    """Return the name of picture i: a data set has no subfolders."""
    return quoted(data.places[i].as_posix())


def write(data: Dataset, target: Path) -> None:
    """Write meta.json and a file for each picture, with every mask as a bitmap."""
    colors = [f"#{(k * 2654435761) % 0xFFFFFF:06X}" for k in range(1, len(data.class_names) + 1)]
    classes = [
        {"title": name, "shape": "bitmap", "color": color, "geometry_config": {}}
        for name, color in zip(data.class_names, colors, strict=True)
    ]
    tags = {name for text in ([] if data.attributes is None else data.attributes) for name in split_attributes(text)}
    metas = [{"name": name, "value_type": "any_string", "color": "#808080"} for name in sorted(tags)]
    write_text(_json({"classes": classes, "tags": metas, "projectType": "images"}), target / META)
    for i in range(len(data)):
        h, w = data.hw(i)
        document = {
            "description": "",
            "tags": [],
            "size": {"height": h, "width": w},
            "objects": list(_objects(data, i)),
        }
        write_text(_json(document), target / _folder(data, i) / ANNOTATIONS / f"{_name(data, i)}.json")


def _json(document: Any) -> str:
    return msgspec.json.encode(document).decode()


def _objects(data: Dataset, i: int) -> Iterator[dict[str, Any]]:
    """Yield the object of each mask of image i."""
    for k, mask in enumerate(data.rles(i), data.instances(i).start):
        attributes = split_attributes(data.attributes[k]) if data.attributes is not None else {}
        yield {
            "classTitle": data.class_names[data.labels[k] - 1],
            "geometryType": "bitmap",
            "description": "",
            "tags": [{"name": name, "value": value} for name, value in attributes.items()],
            "bitmap": _bitmap(mask),
        }


def _bitmap(mask: RLE) -> dict[str, Any]:
    """Return the mask in its box as a palette picture whose background is transparent, which Supervisely expects."""
    x1, y1, x2, y2 = mask.box
    picture = Image.fromarray(mask.to_mask((x1, y1, x2, y2)).astype(np.uint8))
    picture.putpalette([0, 0, 0, 255, 255, 255])
    content = io.BytesIO()
    picture.save(content, format="PNG", transparency=0)
    return {"data": base64.b64encode(zlib.compress(content.getvalue())).decode(), "origin": [x1, y1]}
