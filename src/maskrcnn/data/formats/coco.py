"""COCO's JSON: images, annotations and categories; masks as polygons or runs.

Also as Roboflow and MMDetection lay it out: a folder with a file for each part, beside or above its pictures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from maskrcnn.data.formats.annotations import AnnotatedImage, Annotations, Instance
from maskrcnn.data.formats.parts import first_part
from maskrcnn.data.formats.source import Fields, Source, decoded, each, json_fields
from maskrcnn.data.formats.traits import Trait
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.files import atomic
from maskrcnn.rle import RLE, RLEError, shortened

encode = msgspec.json.encode

NAME = "COCO"
SUFFIXES = (".json",)
HOLDS = frozenset(Trait) - {Trait.DIVISION}

NO_MASK = msgspec.Raw(b"null")
NO_ENTRIES = msgspec.Raw(b"[]")
MAX_EMPTY = 100
"""Bytes within which an empty segmentation ends, however it is indented."""

NO_SEGMENTATION = (b"null", b"[]", b"[[]]", b'""', b"{}")


class Picture(msgspec.Struct):
    """An entry of ``images``."""

    id: int | str
    file_name: str | None = None
    height: float | None = None
    width: float | None = None
    coco_url: str | None = None


class Category(msgspec.Struct):
    """An entry of ``categories``."""

    id: int | str
    name: str | int


class Annotation(msgspec.Struct):
    """An entry of ``annotations``. The segmentation is decoded when it is drawn."""

    image_id: int | str
    category_id: int | str | None = None
    id: int | str | None = None
    segmentation: msgspec.Raw = NO_MASK
    bbox: list[float] | None = None
    iscrowd: bool | int | None = 0
    score: float | None = None
    attribute_ids: list[int] | None = None


def recognizes(source: Source) -> bool:
    """Whether the file, or some file of the folder, has COCO's fields."""
    return bool(_files(source))


def read(source: Source) -> Annotations:
    """Read one file, or all instance files of a folder. Raise `UserError`."""
    files = _files(source)
    annotations = Annotations(source.path, NAME, [], {})
    for file, fields in files.items():
        _read_file(annotations, file, fields, part=_part(file, source.root) if len(files) > 1 else "")
    return annotations


def _files(source: Source) -> dict[Path, Fields]:
    """Return the COCO files with their fields. In a folder, those without an instance yield to those with some."""
    if source.path.is_file():
        return {source.path: source.fields} if _is_coco(source.fields) else {}
    found = {file: fields for file in source.having_suffix(".json") if _is_coco(fields := json_fields(file))}
    instances = {file: fields for file, fields in found.items() if file.stem.startswith("instances")}
    return instances or found


def _is_coco(fields: Fields) -> bool:
    return "images" in fields and "annotations" in fields and bytes(fields["images"]).lstrip()[:1] == b"["


def _part(file: Path, root: Path) -> str:
    """Return the part that the folder or the name of the file names, or ""."""
    return first_part((*reversed(file.relative_to(root).parent.parts), *file.stem.replace("-", "_").split("_")))


def _read_file(annotations: Annotations, file: Path, fields: Fields, part: str) -> None:
    """Add what one file lists."""
    folder = f"{file.parent.relative_to(annotations.source).as_posix()}/" if annotations.source.is_dir() else ""
    images: dict[Any, AnnotatedImage] = {}
    for picture in decoded(fields["images"], list[Picture], file, "images"):
        name = picture.file_name or (picture.coco_url or "").rpartition("/")[2]
        height, width = (int(side) if side else None for side in (picture.height, picture.width))
        source = file if annotations.source.is_dir() else None
        images[picture.id] = AnnotatedImage(folder + name, [], (height, width), source=source, part=part)
    annotations.images += images.values()
    annotations.class_names = (annotations.class_names or {}) | {
        category.id: str(category.name)
        for category in decoded(fields.get("categories", NO_ENTRIES), list[Category], file, "categories")
    }
    ignored: Counter[str] = Counter()
    for number, entry in each(fields["annotations"], Annotation, file, "annotation", annotations.problems):
        row = entry.id if isinstance(entry.id, int) else number
        if entry.image_id not in images:
            message = f"image_id {entry.image_id!r} is not among the images"
            annotations.problems.append(Problem(Kind.BAD_ROW, f"{file}, annotation {row}", message))
            continue
        if b"".join(bytes(entry.segmentation)[:MAX_EMPTY].split()) in NO_SEGMENTATION:
            ignored["have a box and no mask" if entry.bbox else "have no mask"] += 1
            continue
        images[entry.image_id].instances.append(
            Instance(
                entry.category_id,
                partial(_draw, entry.segmentation),
                row,
                " ".join(map(str, entry.attribute_ids or ())),
                bool(entry.iscrowd),
                entry.score,
            )
        )
    annotations.notes += [f"{file}: {n:,} annotations {what} and are left out" for what, n in ignored.items()]


def _draw(raw: msgspec.Raw, hw: tuple[int, int]) -> RLE:
    """Draw a list of polygons, whose union is the mask, or an object of COCO's RLE."""
    segmentation = msgspec.json.decode(raw)
    if isinstance(segmentation, dict):
        mask = RLE.from_coco(segmentation)
        if mask.hw != hw:
            raise RLEError(f"the runs are of a picture of {mask.hw[0]} x {mask.hw[1]}, not {hw[0]} x {hw[1]} (h x w)")
        return mask
    if not isinstance(segmentation, list):
        raise RLEError(f"the segmentation {shortened(str(segmentation))} is neither polygons nor runs")
    return RLE.from_polygons(segmentation if isinstance(segmentation[0], list) else [segmentation], hw)


def write(data: Dataset, target: Path) -> None:
    """Write one JSON file, annotation by annotation, with masks as compressed runs."""
    categories = [{"id": i, "name": name} for i, name in zip(category_ids(data), data.class_names, strict=True)]
    images = (
        {"id": i + 1, "file_name": name, "height": data.hw(i)[0], "width": data.hw(i)[1]}
        for i, name in enumerate(data.names)
    )
    with atomic(target) as temporary, open(temporary, "wb") as file:
        file.write(b'{"categories": ' + encode(categories))
        for key, entries in (("images", images), ("annotations", _entries(data))):
            file.write(b',\n"%s": [' % key.encode())
            for n, entry in enumerate(entries):
                file.write((b",\n" if n else b"\n") + encode(entry))
            file.write(b"]")
        file.write(b"}\n")


def category_ids(data: Dataset) -> list[int]:
    """Return the class ids of `data` where all are integers, else 1, 2, ..."""
    ids = data.class_ids
    return ids if all(isinstance(i, int) for i in ids) else list(range(1, len(ids) + 1))


def _entries(data: Dataset) -> Iterator[dict[str, Any]]:
    ids, boxes, areas = category_ids(data), data.boxes.tolist(), data.masks.areas.tolist()
    for k, (i, label) in enumerate(zip(data.image_index.tolist(), data.labels.tolist(), strict=True)):
        x1, y1, x2, y2 = boxes[k]
        entry = {
            "id": k + 1,
            "image_id": i + 1,
            "category_id": ids[label - 1],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": areas[k],
            "iscrowd": int(data.crowd is not None and data.crowd[k]),
            "segmentation": RLE(data.masks[k], data.hw(i)).to_coco(),
        }
        if data.attributes is not None and data.attributes[k]:
            entry["attribute_ids"] = [int(a) if a.isdigit() else a for a in data.attributes[k].split()]
        if data.scores is not None and not math.isnan(data.scores[k]):
            entry["score"] = float(data.scores[k])
        yield entry
