"""Draw the masks of annotations on their pictures: functions and polygons -> runs, many polygons at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from maskrcnn.data.formats.annotations import AnnotatedImage, Annotations, Instance, PolygonText
from maskrcnn.data.formats.assemble import Instances, Pictures
from maskrcnn.data.formats.polygon_texts import parse_polygons
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.polygons import rasterize_polygons
from maskrcnn.rle import RLEError
from maskrcnn.runs import RunTable

BATCH = 20_000
"""Masks that are drawn at a time."""

N_THREADS = 2
"""Threads that draw. Half of their work is outside Python's lock."""

NO_BOX = (np.nan,) * 4

Task = tuple[int, AnnotatedImage, Instance]
"""An instance to draw, with its image and the image's index."""


def draw_instances(
    annotations: Annotations, pictures: Pictures, class_ids: list[Any]
) -> tuple[Instances, list[Problem]]:
    """Draw all masks on usable pictures. Malformed ones become problems; warn of those without a pixel."""
    label_of = {class_id: label for label, class_id in enumerate(class_ids, 1)}
    drawn: list[Task] = []
    tables: list[RunTable] = []
    warnings: list[Problem] = []
    tasks = _tasks(annotations, pictures, label_of)
    batches = list(iter(lambda: list(islice(tasks, BATCH)), []))
    with ThreadPoolExecutor(N_THREADS, thread_name_prefix="maskrcnn-draw") as pool:
        results = list(pool.map(partial(_draw, sizes=pictures.sizes), batches))
    for batch, (masks, faults) in zip(batches, results, strict=True):
        areas = masks.areas
        for k in np.flatnonzero(areas == 0).tolist():
            _, image, instance = batch[k]
            kind, message = Kind.EMPTY, "the mask covers no pixel of its picture"
            if k in faults:
                kind, message = Kind.BAD_ROW, faults[k]
            findings = pictures.problems if k in faults else warnings
            findings.append(Problem(kind, annotations.place(image, instance), f"image {image.name}: {message}"))
        kept = np.flatnonzero(areas)
        tables.append(masks if len(kept) == len(masks) else masks.take(kept))
        drawn += [batch[k] for k in kept.tolist()]
    return _columns(drawn, RunTable.concatenate(tables), label_of), warnings


def _tasks(annotations: Annotations, pictures: Pictures, label_of: dict[Any, int]) -> Iterator[Task]:
    """Yield the instances on usable pictures. One of an unknown class becomes a problem."""
    usable = pictures.usable
    for i, image in enumerate(annotations.images):
        if not usable[i]:
            continue
        for instance in image.instances:
            if instance.label in label_of:
                yield i, image, instance
            else:
                message = f"the class {instance.label!r} is not among those that the file lists"
                place = annotations.place(image, instance)
                pictures.problems.append(Problem(Kind.BAD_ROW, place, f"image {image.name}: {message}"))


def _draw(batch: Sequence[Task], sizes: np.ndarray) -> tuple[RunTable, dict[int, str]]:
    """Return the masks of a batch, and what is wrong with each malformed one, whose mask is empty, by its index."""
    hw = sizes[[i for i, _, _ in batch]]
    draws = [instance.draw for _, _, instance in batch]
    texts = {k: text for k, draw in enumerate(draws) if isinstance(draw, PolygonText) and (text := draw.text)}
    polygons = parse_polygons(list(texts.values()))
    together = np.array(list(texts), np.int64)[polygons.valid]
    masks, bad = rasterize_polygons(polygons.points, polygons.polygon_offsets, polygons.mask_offsets, hw[together])
    faults = {int(together[item.index]): item.message for item in bad}
    alone = np.setdiff1d(np.arange(len(batch)), together)
    if not len(alone):
        return masks, faults
    runs = []
    for k in alone.tolist():
        try:
            runs.append(draws[k]((int(hw[k, 0]), int(hw[k, 1]))).runs)
        except RLEError as error:
            faults[k] = str(error)
            runs.append(np.empty((0, 2), np.int64))
    in_order = np.argsort(np.concatenate([together, alone]))
    return RunTable.concatenate([masks, RunTable.of(runs)]).take(in_order), faults


def _columns(drawn: Sequence[Task], masks: RunTable, label_of: dict[Any, int]) -> Instances:
    """Return the columns of the drawn instances. One that nothing has a value for is None."""
    instances = [instance for _, _, instance in drawn]
    boxes = np.array([instance.box or NO_BOX for instance in instances], np.float64).reshape(-1, 4)
    crowd = np.array([instance.is_crowd for instance in instances], bool)
    scores = np.array([instance.score for instance in instances], np.float64)  # None becomes NaN
    has_attributes = any(instance.attributes for instance in instances)
    return Instances(
        np.array([i for i, _, _ in drawn], np.int64),
        np.array([label_of[instance.label] for instance in instances], np.int64),
        masks,
        np.array([instance.row for instance in instances], np.int64),
        np.ones(len(drawn), bool),
        np.array([instance.attributes for instance in instances], object) if has_attributes else None,
        crowd if crowd.any() else None,
        None if np.isnan(scores).all() else scores,
        None if np.isnan(boxes).all() else boxes,
    )
