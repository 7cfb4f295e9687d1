"""Samples: image i of the data, as training sees it in a given pass -> (pixels, `Targets`)."""

from __future__ import annotations

import numpy as np

from maskrcnn.config import AugmentConfig, Config
from maskrcnn.data.augment import draw_placement, fit, vary_colors
from maskrcnn.data.images import ImageError, read_image, resize
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError
from maskrcnn.kernels.runs import window_runs
from maskrcnn.rle import RunTable
from maskrcnn.structures import Placement, Targets

SMALLEST_SIDE = 2.0
"""An instance of which a crop leaves less than this, in input pixels on either side, is no target."""


def generator(seed: int, *counters: int) -> np.random.Generator:
    """A counter-based generator: its numbers depend on `seed` and `counters` alone."""
    return np.random.default_rng(np.random.SeedSequence([seed, *counters]))


def read_pixels(data: Dataset, i: int) -> np.ndarray:
    """Image i, (H, W, 3) uint8. Raises `ImageError`, also where its size is not what it was at opening."""
    image = read_image(data.files[i])
    if image.shape[:2] != data.hw(i):
        raise ImageError(f"{data.files[i]}: is now {image.shape[:2]} (height, width); it was {data.hw(i)}")
    return image


def targets_of(data: Dataset, i: int, placement: Placement, labels: np.ndarray | None = None) -> Targets:
    """The instances of image i that are seen through `placement`; boxes are those of the visible parts."""
    hw, runs = data.hw(i), data.runs(i)
    labels = data.labels[data.instances(i)] if labels is None else labels
    x1, y1, x2, y2 = placement.window
    visible = RunTable.of(window_runs(runs[k], hw[0], x1, y1, x2, y2) for k in range(len(runs)))
    boxes = placement.boxes_to_input(visible.boxes(y2 - y1) + np.array([x1, y1, x1, y1]))
    sides = (boxes[:, 2:] - boxes[:, :2]).min(1, initial=np.inf)
    smallest = min(SMALLEST_SIDE, float(placement.scale_wh.min()))
    kept = np.flatnonzero((visible.areas > 0) & (sides >= smallest - 1e-6))
    return Targets(boxes[kept].astype(np.float32), labels[kept], runs.take(kept), hw, placement)


def training_placement(
    data: Dataset, i: int, pass_number: int, config: Config
) -> tuple[Placement, np.random.Generator]:
    """How pass `pass_number` shows image i, found without a look at its pixels, and the generator for the rest."""
    rng = generator(config.train.seed, 1, pass_number, i)
    return draw_placement(data.hw(i), config.model, config.augment, rng), rng


def training_sample(data: Dataset, i: int, pass_number: int, config: Config) -> tuple[np.ndarray, Targets]:
    """Image i as pass `pass_number` shows it: (h, w, 3) uint8, at most the input's size, and its targets."""
    placement, rng = training_placement(data, i, pass_number, config)
    pixels = place(read_pixels(data, i), placement)
    pixels = vary_colors(pixels, config.augment.color, rng)
    labels = data.labels[data.instances(i)]
    if placement.mirrored:
        labels = swapped_labels(data.class_names, config.augment)[labels]
    return pixels, targets_of(data, i, placement, labels)


def plain_sample(data: Dataset, i: int, config: Config) -> tuple[np.ndarray, Targets]:
    """Image i as prediction sees it."""
    placement = fit(data.hw(i), config.model)
    return place(read_pixels(data, i), placement), targets_of(data, i, placement)


def place(image: np.ndarray, placement: Placement) -> np.ndarray:
    """The pixels that `placement` makes of an image (H, W, 3)."""
    pixels = resize(image, placement.hw, placement.window)
    if placement.mirrored:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(np.rot90(pixels, placement.turns))


def swapped_labels(class_names: list[str], config: AugmentConfig) -> np.ndarray:
    """(K + 1,) the label that each label becomes in a mirrored image."""
    labels = np.arange(len(class_names) + 1)
    for pair in config.swap_on_flip:
        names = pair.split("=")
        for name in names:
            if name not in class_names:
                raise UserError(f"swap_on_flip names {name!r}; the classes are {', '.join(class_names)}")
        a, b = (class_names.index(name) + 1 for name in names)
        labels[[a, b]] = b, a
    return labels
