"""Draw the masks of annotations on their pictures: functions and polygons -> runs, many polygons at a time."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from maskrcnn.data.formats.annotations import AnnotatedImage, Annotations, DrawPolygons, Instance
from maskrcnn.data.formats.assemble import Instances, Pictures
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.polygons import rasterize_polygons
from maskrcnn.rle import RLEError
from maskrcnn.runs import BadRuns, RunTable

BATCH = 20_000
"""Masks that are drawn at a time."""

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
    while batch := list(islice(tasks, BATCH)):
        masks, faults = _draw(batch, pictures.sizes)
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
    alone, together, polygons = [], [], []
    for k, (_, _, instance) in enumerate(batch):
        of_mask = instance.draw.polygons() if isinstance(instance.draw, DrawPolygons) else None
        if of_mask is None:
            alone.append(k)
        else:
            together.append(k)
            polygons.append(of_mask)
    masks, bad = _rasterize(polygons, hw[together])
    faults = {together[item.index]: item.message for item in bad}
    runs = []
    for k in alone:
        try:
            runs.append(batch[k][2].draw((int(hw[k, 0]), int(hw[k, 1]))).runs)
        except RLEError as error:
            faults[k] = str(error)
            runs.append(np.empty((0, 2), np.int64))
    if not alone:
        return masks, faults
    in_order = np.argsort(together + alone)
    return RunTable.concatenate([masks, RunTable.of(runs)]).take(in_order), faults


def _rasterize(masks: Sequence[list[list[float]]], hw: np.ndarray) -> tuple[RunTable, list[BadRuns]]:
    """Draw masks of polygons on pictures of the sizes `hw` (n, 2)."""
    numbers = array("d")
    ends, counts = [0], [0]
    for polygons in masks:
        for polygon in polygons:
            numbers.extend(polygon)
            ends.append(len(numbers) // 2)
        counts.append(len(ends) - 1)
    points = np.frombuffer(numbers, np.float64).reshape(-1, 2) if numbers else np.empty((0, 2))
    return rasterize_polygons(points, np.array(ends, np.int64), np.array(counts, np.int64), hw)


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
