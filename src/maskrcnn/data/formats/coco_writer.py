"""A data set as COCO's JSON, annotation by annotation, with masks as compressed runs or as polygons. Both are exact."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from maskrcnn.data.table import Dataset
from maskrcnn.files import atomic
from maskrcnn.rle import RLE

encode = msgspec.json.encode


def write(data: Dataset, target: Path, *, polygons: bool = False) -> int:
    """Write one JSON file, with LVIS's and Fashionpedia's additions if the data has them.

    With `polygons`, masks are outlines along the edges of pixels, which COCO's tools fill to the same masks. Those with
    holes, which COCO's polygons cannot have, and crowd regions stay runs. Return how many masks are runs.
    """
    annotations = _annotations(data, polygons)
    arrays = [("categories", _categories(data)), ("images", _images(data)), ("annotations", annotations)]
    if data.attribute_names:
        arrays.insert(1, ("attributes", ({"id": _id(i), "name": name} for i, name in data.attribute_names.items())))
    n_runs = 0
    with atomic(target) as temporary, open(temporary, "wb") as file:
        for k, (key, entries) in enumerate(arrays):
            file.write(b'%s"%s": [' % (b",\n" if k else b"{", key.encode()))
            for n, entry in enumerate(entries):
                file.write((b",\n" if n else b"\n") + encode(entry))
                n_runs += isinstance(entry.get("segmentation"), dict)
            file.write(b"]")
        file.write(b"}\n")
    return n_runs


def category_ids(data: Dataset) -> list[int]:
    """Return the class ids of `data` where all are integers, else 1, 2, ..."""
    ids = data.class_ids
    return ids if all(isinstance(i, int) for i in ids) else list(range(1, len(ids) + 1))


def _categories(data: Dataset) -> Iterator[dict[str, Any]]:
    frequencies = data.federated.frequencies if data.federated is not None else [""] * len(data.class_ids)
    for i, name, frequency in zip(category_ids(data), data.class_names, frequencies, strict=True):
        yield {"id": i, "name": name} | ({"frequency": frequency} if frequency else {})


def _images(data: Dataset) -> Iterator[dict[str, Any]]:
    ids = category_ids(data)
    for i, name in enumerate(data.names):
        entry: dict[str, Any] = {"id": i + 1, "file_name": name, "height": data.hw(i)[0], "width": data.hw(i)[1]}
        if data.federated is not None:
            entry["neg_category_ids"] = [ids[label - 1] for label in sorted(data.federated.absent[i])]
            entry["not_exhaustive_category_ids"] = [ids[label - 1] for label in sorted(data.federated.incomplete[i])]
        yield entry


def _annotations(data: Dataset, polygons: bool) -> Iterator[dict[str, Any]]:
    ids, boxes, areas = category_ids(data), data.boxes.tolist(), data.masks.areas.tolist()
    for k, (i, label) in enumerate(zip(data.image_index.tolist(), data.labels.tolist(), strict=True)):
        x1, y1, x2, y2 = boxes[k]
        mask, is_crowd = RLE(data.masks[k], data.hw(i)), data.crowd is not None and bool(data.crowd[k])
        outlines = _outlines(mask) if polygons and not is_crowd else None
        entry = {
            "id": k + 1,
            "image_id": i + 1,
            "category_id": ids[label - 1],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": areas[k],
            "iscrowd": int(is_crowd),
            "segmentation": mask.to_coco() if outlines is None else outlines,
        }
        if data.attributes is not None and data.attributes[k]:
            entry["attribute_ids"] = [_id(text) for text in data.attributes[k].split()]
        if data.scores is not None and not math.isnan(data.scores[k]):
            entry["score"] = float(data.scores[k])
        yield entry


def _outlines(mask: RLE) -> list[list[int]] | None:
    """Return a mask as polygons ``[x1, y1, x2, y2, ...]``, None if it has holes."""
    parts = mask.to_polygons()
    return None if any(part.holes for part in parts) else [part.outer.ravel().tolist() for part in parts]


def _id(text: str) -> int | str:
    return int(text) if text.isdecimal() and len(text) < 19 else text
