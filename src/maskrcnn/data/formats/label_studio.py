"""Label Studio's JSON and JSON-MIN: tasks with the address of a picture and the results of annotators or of a model.

A result is an instance: a brush mask, a bitmask, a polygon or an ellipse. Coordinates are in percent of the picture.
"""

from __future__ import annotations

import base64
import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import msgspec
import numpy as np

from maskrcnn import shapes
from maskrcnn.data.formats.annotations import AnnotatedImage, Annotations, Instance
from maskrcnn.data.formats.brush import decode_brush, encode_brush
from maskrcnn.data.formats.label_studio_tasks import Chosen, Region, choose, merge_results, read_tasks, task_files
from maskrcnn.data.formats.source import Fields, Source
from maskrcnn.data.formats.traits import COMMON, Trait
from maskrcnn.data.images import picture_suffixes, read_opaque
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError
from maskrcnn.files import atomic
from maskrcnn.rle import RLE, RLEError
from maskrcnn.structures import UNNAMED_CLASS

NAME = "Label Studio"
SUFFIXES = (".json",)
ROLES = frozenset({"image"})
HOLDS = COMMON - {Trait.UNUSED_CLASSES, Trait.CLASS_IDS, Trait.CROWD, Trait.DIVISION}

UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of a file that was uploaded."""


def recognizes(source: Source) -> bool:
    """Whether the file, or some file of the folder, lists Label Studio's tasks."""
    return bool(task_files(source))


def read(source: Source) -> Annotations:
    """Read one file, or all files of a folder. Raise `UserError`."""
    annotations = Annotations(source.path, NAME, [], row_noun="result")
    decisions: Counter[tuple[str, str]] = Counter()
    chosen = [
        one
        for file in task_files(source)
        for task in read_tasks(file, annotations.problems)
        if (one := choose(task, decisions)) is not None
    ]
    if not chosen:
        reasons = [f"{subject} ({n:,}) {fate}" for (subject, fate), n in decisions.items()]
        reasons += [str(problem) for problem in annotations.problems[:3]]
        raise UserError(f"{source.path}: no task has masks to read: {'; '.join(reasons) or 'the file lists none'}")
    regions = [merge_results(one, annotations) for one in chosen]
    has_classes = any(region.labels for regions_of_image in regions for region in regions_of_image)
    key = source.columns.get("image") or _picture_key(source.path, chosen)
    annotations.notes.append(f"pictures from the key {key!r} of the tasks")
    for one, regions_of_image in zip(chosen, regions, strict=True):
        address = one.task.data.get(key)
        if not isinstance(address, str) or not address or address.startswith("data:"):
            fault = f"{key!r} is not the address of one picture"
            annotations.problems.append(Problem(Kind.BAD_ROW, one.place, fault))
            continue
        name, *other_names = picture_names(address)
        image = AnnotatedImage(
            name,
            hw=next((region.hw for region in regions_of_image if region.hw[0]), (None, None)),
            source=one.task.file if source.path.is_dir() else None,
            other_names=tuple(other_names),
        )
        annotations.images.append(image)
        for region in regions_of_image:
            if has_classes and not region.labels:
                place = f"{one.place}, result {region.number}"
                annotations.problems.append(Problem(Kind.BAD_ROW, place, f"image {name}: the region has no label"))
                continue
            image.instances += _instances(region, annotations, decisions)
    annotations.notes += [f"{subject} ({n:,}) {fate}" for (subject, fate), n in decisions.items()]
    return annotations


def _picture_key(source: Path, chosen: list[Chosen]) -> str:
    """Return the key whose values are names of pictures most often. Raise `UserError` if there is none."""
    values = [(key, value) for one in chosen for key, value in one.task.data.items() if isinstance(value, str)]
    counts = Counter(key for key, value in values if Path(picture_names(value)[0]).suffix.lower() in picture_suffixes())
    if not counts:
        keys = ", ".join(dict.fromkeys(key for key, _ in values)) or "none"
        raise UserError(
            f"{source}: no key of the tasks holds names of pictures; the keys with texts are {keys}. "
            "Name the one with the addresses of the pictures with --column image=KEY"
        )
    return max(counts, key=lambda key: (counts[key], key == "image"))


def picture_names(address: str) -> tuple[str, ...]:
    """Return the names by which the picture of an address may be found: its path, and the file name before an upload.

    An address is a path, a URL, one in a store such as ``s3://bucket/a.png``, or ``/data/local-files/?d=a.png``.
    """
    path = address
    try:
        if "local-files" in address:
            path = parse_qs(urlsplit(address).query).get("d", [address])[0]
        elif address.lower().startswith(("http://", "https://", "/data/")):
            path = unquote(urlsplit(address).path)
        elif "://" in address:
            path = address.partition("://")[2].partition("/")[2]
    except ValueError:  # not a URL after all
        pass
    path = path.replace("\\", "/").lstrip("/")
    name = path.rpartition("/")[2]
    without_prefix = UPLOAD_PREFIX.sub("", name)
    return (path,) if without_prefix in (name, "") else (path, without_prefix)


# ---- results -> masks ---------------------------------------------------------------------------------------------


def _instances(region: Region, annotations: Annotations, decisions: Counter[tuple[str, str]]) -> Iterator[Instance]:
    """Yield the instance of a region, if it has a mask. `decisions` counts what people should know."""
    form = region.form
    if "rle" in form:
        draw = partial(_draw_brush, form["rle"])
    elif "points" in form:
        draw = partial(_draw_polygon, form["points"])
    elif "radiusX" in form:
        draw = partial(_draw_ellipse, form)
    elif "imageDataURL" in form:
        draw = partial(_draw_bitmask, form["imageDataURL"])
    else:
        is_box = "width" in form and "height" in form
        annotations.left_out["rectangles" if is_box else f"results of the type {region.type or 'unknown'}"] += 1
        return
    if len(region.labels) > 1:
        decisions["results with several labels", "have the first as their class and the others as attributes"] += 1
    label, *others = region.labels or [UNNAMED_CLASS]
    yield Instance(label, draw, region.number, " ".join([*others, *region.texts]), score=region.score)


def _draw_brush(raw: msgspec.Raw, hw: tuple[int, int]) -> RLE:
    return decode_brush(_decoded(raw, list[int], "rle"), hw)


def _draw_polygon(raw: msgspec.Raw, hw: tuple[int, int]) -> RLE:
    points = np.array(_decoded(raw, list[tuple[float, float]], "points"), np.float64).reshape(-1, 2)
    return RLE.from_polygons([points * (hw[1] / 100, hw[0] / 100)], hw)


def _draw_ellipse(form: Fields, hw: tuple[int, int]) -> RLE:
    missing = [key for key in ("x", "y", "radiusX", "radiusY") if key not in form]
    if missing:
        raise RLEError(f"an ellipse needs x, y, radiusX, radiusY; {missing[0]} is missing")
    x, y, rx, ry = (_decoded(form[key], float, key) for key in ("x", "y", "radiusX", "radiusY"))
    degrees = _decoded(form.get("rotation", msgspec.Raw(b"0")), float, "rotation")
    h, w = hw
    return shapes.ellipse([x * w / 100, y * h / 100], [rx * w / 100, ry * h / 100], hw, degrees=degrees)


def _draw_bitmask(raw: msgspec.Raw, hw: tuple[int, int]) -> RLE:
    """Read a picture in base64 whose pixels outside the mask are transparent."""
    try:
        pixels = read_opaque(base64.b64decode(_decoded(raw, str, "imageDataURL").partition(",")[2]), hw)
    except ValueError as error:
        raise RLEError(f"imageDataURL is not a picture in base64 ({str(error).removeprefix('the image: ')})") from None
    if pixels.shape != hw:
        raise RLEError(f"imageDataURL is {pixels.shape[0]} x {pixels.shape[1]} (h x w), the picture {hw[0]} x {hw[1]}")
    return RLE.from_mask(pixels)


def _decoded(raw: msgspec.Raw, type_: Any, key: str) -> Any:
    try:
        return msgspec.json.decode(raw, type=type_)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RLEError(f"{key} cannot be read: {error}") from None


# ---- data set -> tasks --------------------------------------------------------------------------------------------

FROM_NAME, TO_NAME = "label", "image"
"""Names of the tags of the labelling interface to which the results belong."""


def write(data: Dataset, target: Path) -> None:
    """Write a task for each image, with brush masks as an annotation, or as a prediction where masks have scores."""
    with atomic(target) as temporary, open(temporary, "wb") as file:
        for i, place in enumerate(data.places):
            content: dict[str, Any] = {"result": _results_of_image(data, i)}
            if data.scores is None:
                key, content = "annotations", content | {"was_cancelled": False, "ground_truth": False}
            else:
                key, content = "predictions", content | {"model_version": "maskrcnn"}
            address = f"/data/local-files/?d={quote(str(place))}"
            task = {"id": i + 1, "data": {TO_NAME: address}, key: [content]}
            file.write((b",\n" if i else b"[\n") + msgspec.json.encode(task))
        file.write(b"\n]\n")


def _results_of_image(data: Dataset, i: int) -> list[dict[str, Any]]:
    results = []
    height, width = data.hw(i)
    span = data.instances(i)
    for k in range(span.start, span.stop):
        label = data.class_names[data.labels[k] - 1]
        rle = encode_brush(RLE(data.masks[k], (height, width)))
        result: dict[str, Any] = {
            "id": f"mask-{k + 1}",
            "type": "brushlabels",
            "from_name": FROM_NAME,
            "to_name": TO_NAME,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": rle, "brushlabels": [label]},
        }
        if data.attributes is not None and data.attributes[k]:
            result["meta"] = {"text": [data.attributes[k]]}
        if data.scores is not None and not math.isnan(data.scores[k]):
            result["score"] = float(data.scores[k])
        results.append(result)
    return results
