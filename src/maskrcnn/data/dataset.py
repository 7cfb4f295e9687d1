"""Samples: image i of the data, as a pass of training shows it -> (pixels, `Targets`)."""

from __future__ import annotations

import numpy as np

from maskrcnn.config import AugmentConfig, Config
from maskrcnn.data.augment import draw_placement, vary_colors
from maskrcnn.data.images import read_image
from maskrcnn.data.table import Dataset
from maskrcnn.detection.boxes import sides
from maskrcnn.detection.conventions import NATIVE, Conventions
from maskrcnn.detection.fit import place
from maskrcnn.errors import ImageError, UserError
from maskrcnn.kernels.runs import window_runs
from maskrcnn.rle import RunTable
from maskrcnn.structures import Placement, Targets

MIN_VISIBLE_LENGTH = 2
"""Minimum length of what a crop leaves of an instance in the direction of the cut, in source and in input pixels."""


def generator(seed: int, *counters: int) -> np.random.Generator:
    """Make a generator that depends on `seed` and `counters` alone."""
    return np.random.default_rng(np.random.SeedSequence([seed, *counters]))


def read_pixels(data: Dataset, i: int) -> np.ndarray:
    """Read image i, (H, W, 3) uint8. Raise `ImageError`, also if its size has changed since the data was opened."""
    image = read_image(data.files[i], data.reading)
    if image.shape[:2] != data.hw(i):
        raise ImageError(f"{data.files[i]}: is now {image.shape[:2]} (height, width); it was {data.hw(i)}")
    return image


def targets_of(data: Dataset, i: int, placement: Placement, labels: np.ndarray | None = None) -> Targets:
    """Return the instances of image i that `placement` shows, with the boxes of their visible parts, and the crowds'.

    Slivers of instances that the crop cuts are left out (`MIN_VISIBLE_LENGTH`). Whole instances are kept at any size.
    """
    hw, runs = data.hw(i), data.runs(i)
    labels = data.labels[data.instances(i)] if labels is None else labels
    x1, y1, x2, y2 = placement.window
    visible = RunTable.of(window_runs(runs[k], hw[0], x1, y1, x2, y2) for k in range(len(runs)))
    visible_boxes = visible.boxes(y2 - y1)
    lengths = sides(visible_boxes)  # (N, 2), in source pixels
    is_short = (lengths * np.minimum(placement.scale_wh, 1) < MIN_VISIBLE_LENGTH) & (lengths < sides(runs.boxes(hw[0])))
    is_kept = (visible.areas > 0) & ~is_short.any(1)
    boxes = placement.boxes_to_input(visible_boxes + np.array([x1, y1, x1, y1])).astype(np.float32)
    crowd = np.zeros(len(runs), bool) if data.crowd is None else data.crowd[data.instances(i)]
    kept = np.flatnonzero(is_kept & ~crowd)
    return Targets(boxes[kept], labels[kept], runs.take(kept), hw, placement, boxes[is_kept & crowd])


def training_placement(
    data: Dataset, i: int, pass_number: int, config: Config, conventions: Conventions = NATIVE
) -> tuple[Placement, np.random.Generator]:
    """Draw the placement of image i in pass `pass_number`. Also return the generator, for the colours."""
    rng = generator(config.train.seed, 1, pass_number, i)
    return draw_placement(data.hw(i), config.model, config.augment, rng, conventions), rng


def training_sample(
    data: Dataset, i: int, pass_number: int, config: Config, conventions: Conventions = NATIVE
) -> tuple[np.ndarray, Targets]:
    """Return image i as pass `pass_number` shows it, (h, w, 3) uint8, and its targets. Raise `ImageError`."""
    placement, rng = training_placement(data, i, pass_number, config, conventions)
    pixels = vary_colors(place(read_pixels(data, i), placement), config.augment.color, rng)
    labels = data.labels[data.instances(i)]
    if placement.mirrored:
        labels = swapped_labels(data.class_names, config.augment)[labels]
    return pixels, targets_of(data, i, placement, labels)


def swapped_labels(class_names: list[str], config: AugmentConfig) -> np.ndarray:
    """Return what each label becomes in a mirrored image, (K + 1,). Raise `UserError` for an unknown class name."""
    labels = np.arange(len(class_names) + 1)
    for pair in config.swap_on_flip:
        names = pair.split("=")
        for name in names:
            if name not in class_names:
                classes = ", ".join(class_names)
                raise UserError(f"swap_on_flip names {name!r}, which is no class; the classes are {classes}")
        a, b = (class_names.index(name) + 1 for name in names)
        labels[[a, b]] = b, a
    return labels
