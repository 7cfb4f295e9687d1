"""The plan: settings that the user left alone are chosen from the data, each with its reason.

The choices run in the order of `CHOICES`, and each sees the results of those before it. What a preset, a file, the user
or an initial model has set stays.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from maskrcnn.config import DEFAULT_LR, LEVELS, ModelConfig
from maskrcnn.data.batch import images_per_pass
from maskrcnn.data.table import Dataset
from maskrcnn.detection.anchors import DEFAULT_ANCHOR_SIZES
from maskrcnn.detection.conventions import NATIVE
from maskrcnn.detection.fit import LARGEST_INPUT, fitted_hw
from maskrcnn.detection.select import DEFAULT_DETECTIONS
from maskrcnn.errors import counted
from maskrcnn.settings import Origin, Settings

MIN_MEDIAN_SIDE = 32.0
"""Input pixels that the median instance should measure. Below eight strides of P2 its outline blurs."""
MAX_ENLARGEMENT = 3.0
"""Largest factor on the median image's own pixels; none above was tried (docs/experiments/how-nuclei-was-made.md)."""
SIZE_STEP = 128
SCALE_STEP = 0.25
DEFAULT_SIZE: int = ModelConfig.model_fields["image_size"].default

FINE_MASK_SIDE = 160.0
"""Median side in input pixels above which 28 x 28 mask cells, of more than 5 px each, are too coarse."""

MAX_EMPTY = 0.25
"""Share of shown images without instances: enough to learn what the background is."""

MIN_ASPECT = 1.25
"""Median height over width, or its inverse, at which instances of a class tell up from sideways."""
MIN_INSTANCES = 20
"""Instances that are needed to say something about a class, or about large pictures."""

PICTURES_SHOWN = 48_000
MIN_EPOCHS = 6
"""Without a budget, training shows about this many pictures of large data, in at least this many epochs."""

FINE_TUNING_LR = 0.6
"""Factor on the learning rate when training starts from a whole model. The shipped model was trained with it."""

DETECTIONS_HEADROOM = 1.25
ANCHOR_SIDE_BOUNDS = (8.0, 32.0)
"""Bounds of the anchor side at P2: below two strides neighbours blur, above eight the finest map would be idle."""

Choice = tuple[dict[str, dict[str, Any]], str]
"""Settings to change, by group, and a sentence for people."""


def fill_in(settings: Settings, data: Dataset) -> tuple[Settings, list[str]]:
    """Let `data` decide the open settings; returns a sentence for each choice."""
    reasons = []
    for choose in CHOICES:
        choice = choose(settings, data)
        if choice is not None:
            changes, reason = choice
            settings = settings.updated(changes, Origin.PLAN)
            reasons.append(reason)
    return settings, reasons


def _min_scale(settings: Settings, data: Dataset) -> Choice | None:
    """Enlarge large pictures of small objects as far as it helps and the largest input allows."""
    if not settings.is_open("model.image_size", "model.min_scale") or len(data.boxes) == 0:
        return None
    size, _ = _fitting_size(data)
    long_sides = data.sizes.max(1)
    is_large = long_sides > size
    in_large = is_large[data.image_index]
    if size >= LARGEST_INPUT or np.count_nonzero(in_large) < MIN_INSTANCES:
        return None
    median = float(np.median(_sides(ModelConfig(image_size=size), data)[in_large]))
    if median >= MIN_MEDIAN_SIDE:
        return None
    unscaled_median = float(np.median(_sides(ModelConfig(min_scale=1), data)[in_large]))
    fitting = min(MIN_MEDIAN_SIDE / unscaled_median, LARGEST_INPUT / float(np.median(long_sides[is_large])))
    scale = max(math.floor(fitting / SCALE_STEP) * SCALE_STEP, 1.0)
    return {"model": {"min_scale": scale}}, (
        f"min_scale {scale:g}: pictures are shown at {scale:g} times their size or more, up to {LARGEST_INPUT} px, "
        f"because half of the instances in pictures above {size} px would measure less than {median:.0f} px"
    )


def _working_scale(settings: Settings, data: Dataset) -> Choice | None:
    """Enlarge the input until small objects are visible; training then takes windows of the default size from it."""
    if not settings.is_open("model.image_size") or len(data.boxes) == 0:
        return None
    size, median = _fitting_size(data)
    if size <= DEFAULT_SIZE:
        return None
    changes: dict[str, dict[str, Any]] = {"model": {"image_size": size}}
    crop = settings.config.augment.crop
    if settings.is_open("augment.crop"):
        crop = DEFAULT_SIZE
        changes["augment"] = {"crop": crop}
    return changes, (
        f"image_size {size}, trained in windows of {crop or size}: half of the instances would measure less than "
        f"{median:.0f} px at {DEFAULT_SIZE}"
    )


def _fitting_size(data: Dataset) -> tuple[int, float]:
    """Input side at which the median instance is large enough, and that instance's side at the default input."""
    median = float(np.median(_sides(ModelConfig(), data)))
    largest = MAX_ENLARGEMENT * float(np.median(data.sizes.max(1)))
    steps = min(math.ceil(DEFAULT_SIZE * MIN_MEDIAN_SIDE / median / SIZE_STEP), math.floor(largest / SIZE_STEP))
    return max(min(steps * SIZE_STEP, LARGEST_INPUT), DEFAULT_SIZE), median


def _anchor_sizes(settings: Settings, data: Dataset) -> Choice | None:
    """Double the anchor side from P2 to P6, starting at the 10th percentile of the instances' sides, within bounds."""
    if settings.config.model.anchor_sizes is not None:
        return None
    if len(data.boxes) == 0:
        sizes, why = DEFAULT_ANCHOR_SIZES, "the data has no instance to measure"
    else:
        low, high = np.quantile(_sides(settings.config.model, data), [0.1, 0.9])
        first = float(np.clip(np.round(low), *ANCHOR_SIDE_BOUNDS))
        sizes = tuple(first * 2**level for level in range(LEVELS))
        why = f"in the network's input, instances measure {low:.0f} px (10th percentile) to {high:.0f} px (90th)"
    return {"model": {"anchor_sizes": sizes}}, f"anchor_sizes {sizes[0]:g} to {sizes[-1]:g}: {why}"


def _mask_size(settings: Settings, data: Dataset) -> Choice | None:
    if not settings.is_open("model.mask_size") or len(data.boxes) == 0:
        return None
    median = float(np.median(_sides(settings.config.model, data)))
    if median < FINE_MASK_SIDE:
        return None
    return {"model": {"mask_size": 56}}, f"mask_size 56: half of the instances measure more than {median:.0f} px"


def _detections(settings: Settings, data: Dataset) -> Choice | None:
    if settings.config.predict.detections is not None:
        return None
    fullest = int(data.counts.max(initial=0))
    detections = max(DEFAULT_DETECTIONS, math.ceil(fullest * DETECTIONS_HEADROOM / 50) * 50)
    reason = f"detections {detections}: the fullest image has {counted(fullest, 'instance')}"
    return {"predict": {"detections": detections}}, reason


def _box_voting(settings: Settings, data: Dataset) -> Choice | None:
    if not settings.is_open("predict.box_voting"):
        return None
    return {"predict": {"box_voting": True}}, "box_voting on: all candidates for an object vote on its box"


def _mask_scoring(settings: Settings, data: Dataset) -> Choice | None:
    if not settings.is_open("predict.mask_scoring"):
        return None
    return {"predict": {"mask_scoring": True}}, "mask_scoring on: scores include the certainty of the masks"


def _empty_images(settings: Settings, data: Dataset) -> Choice | None:
    """Show a part of the empty images in each pass if the data has many."""
    share = float(np.mean(data.counts == 0))
    if not settings.is_open("train.empty") or share <= MAX_EMPTY or share == 1:
        return None
    return {"train": {"empty": MAX_EMPTY}}, (
        f"empty {MAX_EMPTY:g}: {share:.0%} of the images have no instances; each pass shows some of them"
    )


def _turns(settings: Settings, data: Dataset) -> Choice | None:
    """Switch quarter turns off if most instances belong to classes that mostly stand, or mostly lie."""
    if not settings.is_open("augment.rotate") or not settings.config.augment.rotate:
        return None
    boxes = data.boxes
    log_aspect = np.log((boxes[:, 3] - boxes[:, 1]) / (boxes[:, 2] - boxes[:, 0]))
    oriented: dict[str, tuple[int, float]] = {}
    for label, name in enumerate(data.class_names, 1):
        of_class = log_aspect[data.labels == label]
        if len(of_class) >= MIN_INSTANCES and abs(median := float(np.median(of_class))) >= math.log(MIN_ASPECT):
            oriented[name] = len(of_class), median
    if 2 * sum(n for n, _ in oriented.values()) <= len(log_aspect):
        return None
    name, (_, median) = max(oriented.items(), key=lambda item: item[1][0])
    shape = "high as wide" if median > 0 else "wide as high"
    return {"augment": {"rotate": False}}, (
        f"rotate off, because up and down matter: {name} is {math.exp(abs(median)):.1f} times as {shape} (median)"
    )


def _epochs(settings: Settings, data: Dataset) -> Choice | None:
    """Without a budget, take fewer passes over large data."""
    train = settings.config.train
    if train.budget is not None or not settings.is_open("train.epochs"):
        return None
    images = images_per_pass(data, settings.config)
    epochs = max(min(train.epochs, round(PICTURES_SHOWN / images)), MIN_EPOCHS)
    pictures = epochs * max(images, train.epoch_images)
    return {"train": {"epochs": epochs}}, (
        f"epochs {epochs}: training shows {counted(pictures, 'picture')}; set --budget to train for a time instead"
    )


def _fine_tuning(settings: Settings, data: Dataset) -> Choice | None:
    """From a whole model: freeze its first stages, take smaller steps, and train windows of a large input."""
    config = settings.config
    if config.train.init is None:
        return None
    train = {"freeze": "3+", "lr": FINE_TUNING_LR * DEFAULT_LR[config.train.optimizer]}
    train = {name: value for name, value in train.items() if settings.is_open(f"train.{name}")}
    crops = settings.is_open("augment.crop") and config.model.image_size > DEFAULT_SIZE
    augment = {"crop": DEFAULT_SIZE} if crops else {}
    if not train and not augment:
        return None
    values = ", ".join(f"{name} {value}" for name, value in (train | augment).items())
    return {"train": train, "augment": augment}, f"{values}: small, cheap steps that adjust what the model knows"


def _batch_norm(settings: Settings, data: Dataset) -> Choice | None:
    config = settings.config
    pretrained = config.train.init is not None or config.model.weights != "none"
    if pretrained or not settings.is_open("train.freeze_norm"):
        return None
    return {"train": {"freeze_norm": False}}, "freeze_norm off: batch norm of a random backbone has nothing to keep"


def _schedule(settings: Settings, data: Dataset) -> Choice | None:
    """Explain the default learning rate. It is not written to the settings, because it follows the optimizer."""
    train = settings.config.train
    if train.lr is not None:
        return None
    fall = {
        "cosine": "falls to zero along a cosine once the number of steps is known",
        "step": "falls to a tenth after 2/3 and to a hundredth after 8/9 of the steps",
        "none": "stays, because decay is none",
    }[train.decay]
    return {}, f"lr {train.peak_lr}: the default of {train.optimizer}; after warm-up it {fall}"


def _sided_classes(settings: Settings, data: Dataset) -> Choice | None:
    """Let classes such as "left hand" and "right hand" trade places in mirrored images."""
    if not settings.is_open("augment.swap_on_flip"):
        return None
    pairs = [
        (name, other)
        for name in data.class_names
        if re.search("left", name, re.IGNORECASE)
        for other in data.class_names
        if other.lower() == re.sub("left", "right", name, flags=re.IGNORECASE).lower()
    ]
    if not pairs:
        return None
    names = ", ".join(f"{a} and {b}" for a, b in pairs)
    return {"augment": {"swap_on_flip": tuple(f"{a}={b}" for a, b in pairs)}}, (
        f"swap_on_flip: {names} trade places in mirrored images, by their names"
    )


CHOICES: tuple[Callable[[Settings, Dataset], Choice | None], ...] = (
    _min_scale,  # first, while an open image_size still means that nobody set it
    _working_scale,
    _anchor_sizes,
    _mask_size,
    _detections,
    _box_voting,
    _mask_scoring,
    _sided_classes,
    _turns,
    _empty_images,
    _epochs,
    _fine_tuning,
    _batch_norm,
    _schedule,
)


def _sides(model: ModelConfig, data: Dataset) -> np.ndarray:
    """Square root of the area of each box of the data, in pixels of the network's input."""
    boxes = data.boxes
    sizes, size_index = np.unique(data.sizes, axis=0, return_inverse=True)
    scale = np.array([max(fitted_hw(hw, NATIVE, model)) / max(hw) for hw in sizes.tolist()])
    return np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)) * scale[size_index.reshape(-1)[data.image_index]]
