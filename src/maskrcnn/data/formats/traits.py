"""What a data set has that not every format can hold. A writer says what its format holds; the rest is counted."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from maskrcnn.data.table import Dataset
from maskrcnn.kernels.runs import count_pieces_and_holes
from maskrcnn.rle import RunTable


class Trait(StrEnum):
    """Something that masks or images of a data set have, as people read it."""

    HOLES = "holes in masks"
    SEVERAL_PARTS = "masks of several parts"
    OVERLAPS = "overlapping masks"
    CLASSES = "several classes"
    UNUSED_CLASSES = "classes without objects"
    CLASS_IDS = "class ids that are not 1, 2, 3 and so on"
    ATTRIBUTES = "attributes"
    ATTRIBUTE_NAMES = "names of attributes"
    SCORES = "scores"
    CROWD = "crowd regions"
    DIVISION = "a division into parts such as train and val"
    EMPTY_IMAGES = "images without objects"
    FEDERATED = "lists of classes that annotators looked for"


OF_IMAGES = frozenset({Trait.DIVISION, Trait.EMPTY_IMAGES, Trait.FEDERATED})
"""Traits of images. `UNUSED_CLASSES` is one of classes; the others are of instances."""

COMMON = frozenset(Trait) - {Trait.ATTRIBUTE_NAMES, Trait.FEDERATED}
"""Traits that several formats hold. The others are Fashionpedia's and LVIS's additions to COCO."""


def count_traits(data: Dataset) -> dict[Trait, int]:
    """Return how many instances of `data` have each trait, or how many images or classes."""
    masks = data.masks
    pieces, holes = count_pieces_and_holes(masks.runs, masks.offsets, data.sizes[data.image_index, 0].copy())
    attributes, scores, crowd, parts = data.attributes, data.scores, data.crowd, data.parts
    return {
        Trait.HOLES: int((holes > 0).sum()),
        Trait.SEVERAL_PARTS: int((pieces > 1).sum()),
        Trait.OVERLAPS: sum(_count_overlapping(data.runs(i)) for i in range(len(data))),
        Trait.CLASSES: data.n_instances if len(data.class_ids) > 1 else 0,
        Trait.UNUSED_CLASSES: len(data.class_ids) - len(np.unique(data.labels)),
        Trait.CLASS_IDS: 0 if _follow_names(data) else data.n_instances,
        Trait.ATTRIBUTES: 0 if attributes is None else sum(map(bool, attributes)),
        Trait.ATTRIBUTE_NAMES: _count_named(attributes, data.attribute_names),
        Trait.SCORES: 0 if scores is None else int((~np.isnan(scores)).sum()),
        Trait.CROWD: 0 if crowd is None else int(crowd.sum()),
        Trait.DIVISION: 0 if parts is None else sum(map(bool, parts)),
        Trait.EMPTY_IMAGES: int((data.counts == 0).sum()),
        Trait.FEDERATED: 0 if data.federated is None else len(data),
    }


def _follow_names(data: Dataset) -> bool:
    """Whether class ids count the names, from 0 or 1, or are the names."""
    n = len(data.class_ids)
    return data.class_ids in (list(range(n)), list(range(1, n + 1)), data.class_names)


def _count_named(attributes: np.ndarray | None, names: dict[str, str] | None) -> int:
    """Count the instances with an attribute that has a name."""
    if attributes is None or not names:
        return 0
    return sum(not names.keys().isdisjoint(text.split()) for text in attributes)


def _count_overlapping(masks: RunTable) -> int:
    """Count the masks of an image that share a pixel with another.

    Runs in the order of their starts: one that starts before the furthest end of those before it overlaps with that
    run. Every run that overlaps with another is one of such a pair.
    """
    if len(masks) < 2:
        return 0
    order = np.argsort(masks.runs[:, 0], kind="stable")
    starts, ends = masks.runs[order, 0], masks.runs[order].sum(1)
    mask_of_run = np.repeat(np.arange(len(masks)), np.diff(masks.offsets))[order]
    furthest = np.maximum.accumulate(ends)
    is_furthest = np.concatenate([[True], ends[1:] > furthest[:-1]])
    furthest_run = np.maximum.accumulate(np.where(is_furthest, np.arange(len(ends)), 0))
    later = np.flatnonzero(starts[1:] < furthest[:-1]) + 1
    return len(np.unique([mask_of_run[later], mask_of_run[furthest_run[later - 1]]]))
