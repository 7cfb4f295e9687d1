"""Datumaro's JSON: a file for each part in ``annotations``, pictures in ``images/PART``. CVAT and Geti export it too.

Masks and polygons are objects. Those of one group and label are parts of one object, which is Datumaro's meaning of a
group.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import msgspec

from maskrcnn import shapes
from maskrcnn.data.formats.annotations import AnnotatedImage, Annotations, Draw, Instance, draw_union
from maskrcnn.data.formats.attributes import join_attributes, split_attributes
from maskrcnn.data.formats.coco_masks import draw_runs
from maskrcnn.data.formats.source import Fields, Source, decoded, each, json_fields, read_bytes
from maskrcnn.data.formats.traits import COMMON, Trait
from maskrcnn.data.names import quoted, unquoted
from maskrcnn.data.parts import part_named
from maskrcnn.data.table import Dataset
from maskrcnn.files import atomic
from maskrcnn.rle import RLE, RLEError

encode = msgspec.json.encode

NAME = "Datumaro"
SUFFIXES = ()
HOLDS = COMMON - {Trait.CLASS_IDS}

UNDIVIDED = "default"
"""The subset of images that belong to no part."""

CROWD, SCORE = "is_crowd", "score"
"""Attributes that Datumaro has for crowd regions of COCO, and for predictions."""

MARKS = (b'"categories"', b'"items"')

WITHOUT_MASK = {
    "bbox": "boxes",
    "rotated_bbox": "rotated boxes",
    "label": "labels of pictures",
    "points": "points",
    "polyline": "lines",
    "caption": "captions",
    "cuboid_2d": "cuboids",
    "cuboid_3d": "cuboids",
    "skeleton": "skeletons",
}
"""Types of annotations that have no mask, and their plural."""


class Label(msgspec.Struct):
    """An entry of the categories' labels."""

    name: str


class Labels(msgspec.Struct):
    """The labels of the categories."""

    labels: list[Label] = []


class Categories(msgspec.Struct):
    """The categories of a file."""

    label: Labels = msgspec.field(default_factory=Labels)


class Media(msgspec.Struct):
    """The picture of an item: its path, and its (height, width)."""

    path: str | None = None
    size: list[float] | None = None


class Item(msgspec.Struct):
    """An entry of ``items``."""

    id: str
    annotations: msgspec.Raw = msgspec.Raw(b"[]")
    image: Media | None = None
    media: Media | None = None


class Annotation(msgspec.Struct):
    """An annotation of an item."""

    type: str
    label_id: int | None = None
    group: int = 0
    points: list[float] = []
    rle: dict[str, Any] | None = None
    attributes: dict[str, Any] = {}


def recognizes(source: Source) -> bool:
    """Whether the file, or a file of the folder or of its ``annotations``, has categories and items."""
    return bool(_files(source))


def _files(source: Source) -> dict[Path, Fields]:
    """Return Datumaro's files with their fields. A damaged file of another format is not looked into."""
    folders = (source.root, source.root / "annotations")
    found = [file for file in source.having_suffix(".json") if file.parent in folders]
    marked = [file for file in found if all(mark in read_bytes(file) for mark in MARKS)]
    return {file: fields for file in marked if {"categories", "items"} <= set(fields := json_fields(file))}


def read(source: Source) -> Annotations:
    """Read one file, or those of all parts. Raise `UserError`."""
    annotations = Annotations(source.path, NAME, [])
    names: list[str] = []
    subsets: list[str] = []
    for file, fields in _files(source).items():
        labels = [label.name for label in decoded(fields["categories"], Categories, file, "categories").label.labels]
        names += [name for name in labels if name not in names]
        row = 0
        for number, item in each(fields["items"], Item, file, "item", annotations.problems):
            media = item.image or item.media
            if media is None:
                annotations.left_out["items without a picture"] += 1
                continue
            image = AnnotatedImage(_name(item.id, media), hw=_size(media), source=file)
            image.part = "" if file.stem == UNDIVIDED else part_named(file.stem) or unquoted(file.stem)
            noun = f"item {number}, annotation"
            entries = list(each(item.annotations, Annotation, file, noun, annotations.problems))
            image.instances = _instances(annotations, entries, labels, row)
            row += len(entries)
            annotations.images.append(image)
            subsets.append(file.stem)
    annotations.class_names = dict(enumerate(names))
    _number_labels(annotations, names)
    known = [image.name for image in annotations.images]
    if len(set(known)) < len(known):
        for image, subset in zip(annotations.images, subsets, strict=True):
            image.name = f"{subset}/{image.name}"
    return annotations


def _name(item_id: str, media: Media) -> str:
    """Return the path of the picture, or the item's own name where the path leads elsewhere."""
    path = (media.path or "").replace("\\", "/")
    if path and not path.startswith("/") and ".." not in path.split("/") and ":" not in path.split("/")[0]:
        return path
    suffix = PurePath(path).suffix
    return item_id if item_id.endswith(suffix) else item_id + suffix


def _size(media: Media) -> tuple[int | None, int | None]:
    if media.size is None or len(media.size) != 2:
        return None, None
    return int(media.size[0]), int(media.size[1])


def _instances(
    annotations: Annotations, entries: list[tuple[int, Annotation]], labels: list[str], first_row: int
) -> list[Instance]:
    """Return the objects of an item, labelled by name. Count the annotations without a mask."""
    grouped: dict[tuple[Any, Any], list[tuple[int, Draw, dict[str, Any]]]] = {}
    for row, (_, entry) in enumerate(entries, first_row + 1):
        if entry.type not in DRAW:
            annotations.left_out[WITHOUT_MASK.get(entry.type, f"annotations of type {entry.type!r}")] += 1
            continue
        has_label = entry.label_id is not None and 0 <= entry.label_id < len(labels)
        label = labels[entry.label_id] if has_label and entry.label_id is not None else entry.label_id
        key = (label, entry.group if entry.group else f"annotation {row}")
        grouped.setdefault(key, []).append((row, partial(DRAW[entry.type], entry), entry.attributes))
    annotations.n_joined += sum(len(parts) for parts in grouped.values()) - len(grouped)
    instances = []
    for (label, _), parts in grouped.items():
        row, _, attributes = parts[0]
        score = attributes.get(SCORE)
        others = {name: _text(value) for name, value in attributes.items() if name not in (CROWD, SCORE)}
        instance = Instance(label, partial(draw_union, [draw for _, draw, _ in parts]), row, join_attributes(others))
        instance.is_crowd = bool(attributes.get(CROWD))
        instance.score = float(score) if isinstance(score, int | float) else None
        instances.append(instance)
    return instances


def _number_labels(annotations: Annotations, names: list[str]) -> None:
    """Replace names by their numbers over all files. What is no name stays, and is said to be no class."""
    numbers = {name: number for number, name in enumerate(names)}
    for image in annotations.images:
        for instance in image.instances:
            instance.label = numbers.get(instance.label, instance.label)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else encode(value).decode()


# ---- drawing ----------------------------------------------------------------------------------------------------


def _draw_polygon(entry: Annotation, hw: tuple[int, int]) -> RLE:
    return RLE.from_polygons([entry.points], hw)


def _draw_ellipse(entry: Annotation, hw: tuple[int, int]) -> RLE:
    """Draw the ellipse in the box ``x1 y1 x2 y2``."""
    if len(entry.points) != 4:
        raise RLEError(f"an ellipse has {len(entry.points)} numbers, not the 4 of its box")
    x1, y1, x2, y2 = entry.points
    return shapes.ellipse(((x1 + x2) / 2, (y1 + y2) / 2), (abs(x2 - x1) / 2, abs(y2 - y1) / 2), hw)


def _draw_mask(entry: Annotation, hw: tuple[int, int]) -> RLE:
    """Draw COCO's runs."""
    if entry.rle is None:
        raise RLEError("the mask has no rle")
    return draw_runs(entry.rle, hw)


DRAW = {"polygon": _draw_polygon, "ellipse": _draw_ellipse, "mask": _draw_mask}


# ---- writing ----------------------------------------------------------------------------------------------------


def picture_path(data: Dataset, i: int) -> PurePath:
    """Return the place of picture i in the folder that `write` makes."""
    return PurePath("images", _subset(data, i), data.places[i])


def _subset(data: Dataset, i: int) -> str:
    return quoted(data.parts[i]) if data.parts and data.parts[i] else UNDIVIDED


def write(data: Dataset, target: Path) -> None:
    """Write ``annotations/PART.json``, item by item, with masks as compressed runs."""
    images: dict[str, list[int]] = {}
    for i in range(len(data)):
        images.setdefault(_subset(data, i), []).append(i)
    labels = [{"name": name, "parent": "", "attributes": []} for name in data.class_names]
    head = {
        "dm_format_version": "1.0",
        "media_type": 2,
        "infos": {},
        "categories": {"label": {"labels": labels, "label_groups": [], "attributes": []}},
    }
    for subset, indices in images.items():
        path = target / "annotations" / f"{subset}.json"
        with atomic(path) as temporary, open(temporary, "wb") as file:
            file.write(encode(head)[:-1] + b',\n"items": [')
            for n, i in enumerate(indices):
                file.write((b",\n" if n else b"\n") + encode(_item(data, i)))
            file.write(b"]}\n")


def _item(data: Dataset, i: int) -> dict[str, Any]:
    media = {"path": data.places[i].as_posix(), "size": list(data.hw(i))}
    item_id = data.places[i].with_suffix("").as_posix()
    return {"id": item_id, "annotations": list(_annotations(data, i)), "attr": {}, "image": media, "media": media}


def _annotations(data: Dataset, i: int) -> Iterator[dict[str, Any]]:
    """Yield the annotation of each mask of image i."""
    for k, mask in enumerate(data.rles(i), data.instances(i).start):
        attributes: dict[str, Any] = {}
        if data.attributes is not None:
            attributes |= split_attributes(data.attributes[k])
        if data.crowd is not None and data.crowd[k]:
            attributes[CROWD] = True
        if data.scores is not None and not math.isnan(data.scores[k]):
            attributes[SCORE] = float(data.scores[k])
        yield {
            "id": k + 1,
            "type": "mask",
            "attributes": attributes,
            "group": 0,
            "label_id": int(data.labels[k]) - 1,
            "rle": mask.to_coco(),
            "z_order": 0,
        }
