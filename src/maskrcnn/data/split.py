"""Which images validate: a stratified choice, then swaps that give every class, if they can, a place on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from maskrcnn.errors import UserError, counted

if TYPE_CHECKING:
    from maskrcnn.data.table import Dataset


def choose_validation(data: Dataset, share: float, seed: int) -> np.ndarray:
    """Return which images of `data` validate, (n_images,) bool; at least one does, and at least one does not.

    Images are sorted by stratum, in random order within one, and every ``1 / share``-th is chosen. Then images change
    places, where a swap takes no other class away: every class keeps an image for training, and a class on two images
    or more gets one for validation.
    """
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(data)), _strata(data)))
    n_val = min(max(round(share * len(data)), 1), len(data) - 1)
    positions = np.floor((np.arange(n_val) + rng.random()) * len(data) / n_val).astype(np.int64)
    in_val = np.zeros(len(data), bool)
    in_val[order[positions]] = True
    return _spread_classes(in_val, np.argsort(order), *_images_of_labels(data))


def absent_classes(val: Dataset) -> str | None:
    """Say which classes have no object among the images that validate, or None. Their scores are undefined."""
    absent = _absent(val)
    if len(absent) == len(val.class_names):
        return "the validation images hold no objects, so their scores are undefined"
    return _describe_absent(absent, val, "validation") if absent else None


def untrained_classes(train: Dataset) -> str | None:
    """Say which classes have no object among the images that train, or None. A model cannot learn them."""
    absent = _absent(train)
    return _describe_absent(absent, train, "training") if absent else None


def describe_default_split(data: Dataset) -> list[str]:
    """Say what `train` would say of its split of `data`: what a side lacks, or why there is none."""
    try:
        train, val = data.split()
    except UserError as error:
        return [str(error)]
    notes = filter(None, (untrained_classes(train), absent_classes(val)))
    return [f"in the split that train makes by default, {note}" for note in notes]


def _absent(part: Dataset) -> list[str]:
    """Return the names of the classes without an object."""
    frequency = np.bincount(part.without_crowd.labels, minlength=len(part.class_ids) + 1)[1:]
    return [name for name, n in zip(part.class_names, frequency, strict=True) if n == 0]


def _describe_absent(absent: list[str], part: Dataset, use: str) -> str:
    names = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
    classes = counted(len(part.class_names), "class", "classes")
    return f"the {use} images hold no object of {len(absent)} of {classes}: {names}"


def _strata(data: Dataset) -> np.ndarray:
    """Return a stratum per image, (n_images,) int64: rarest class, log2 of the count, log2 of the size."""
    frequency = np.bincount(data.labels, minlength=len(data.class_ids) + 1)
    rank = np.zeros(len(frequency), np.int64)
    rank[np.argsort(-frequency[1:], kind="stable") + 1] = np.arange(len(frequency) - 1)
    rarest = np.full(len(data), -1, np.int64)
    np.maximum.at(rarest, data.image_index, rank[data.labels])
    count_bin = np.ceil(np.log2(data.counts + 1)).astype(np.int64)
    size_bin = np.round(np.log2(data.sizes.prod(1))).astype(np.int64)
    return (rarest * 100 + count_bin) * 100 + size_bin


def _images_of_labels(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct pairs of an image and a label on it, as two columns (P,)."""
    pairs = np.unique(np.stack([data.image_index, data.labels], 1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _spread_classes(in_val: np.ndarray, place: np.ndarray, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Swap images between training and validation for the classes that lack one; training comes first.

    ``labels[p]`` is a label on image ``images[p]``; `place` (n_images,) is each image's place in the order of strata.
    An image changes places with the nearest one whose classes stay where they are.
    """
    in_val = in_val.copy()
    n_images = np.bincount(labels)  # by label
    for to_val in (False, True):
        min_images = 2 if to_val else 1
        for label in np.argsort(n_images, kind="stable").tolist():
            holders = images[labels == label]
            if len(holders) < min_images or (in_val[holders] == to_val).any():
                continue
            stays_whole = _keeps_classes(in_val, images, labels, n_images)
            # A class that does not train is worse than one that does not validate.
            movable = holders[stays_whole[holders]] if to_val else holders
            partners = np.flatnonzero((in_val == to_val) & stays_whole)
            if len(movable) and len(partners):
                distance = np.abs(place[movable][:, None] - place[partners])
                a, b = np.unravel_index(distance.argmin(), distance.shape)
                in_val[movable[a]], in_val[partners[b]] = to_val, not to_val
    return in_val


def _keeps_classes(in_val: np.ndarray, images: np.ndarray, labels: np.ndarray, n_images: np.ndarray) -> np.ndarray:
    """Return which images can leave their side without taking away its last image of a class, (n_images,) bool."""
    n_val = np.bincount(labels[in_val[images]], minlength=len(n_images))
    n_here = np.where(in_val[images], n_val[labels], (n_images - n_val)[labels])
    is_last = (n_here == 1) & ~(in_val[images] & (n_images[labels] == 1))
    keeps = np.ones(len(in_val), bool)
    keeps[images[is_last]] = False
    return keeps
