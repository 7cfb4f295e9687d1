"""What the data decides: settings that the user left alone are chosen from it, each with its reason.

Choices are made in the order of `CHOICES`; each sees those before it. What was set on purpose, in a file or as an
option, stays.

G instances of the whole data set
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from maskrcnn.config import LEVELS, Config, ModelConfig
from maskrcnn.data.augment import LARGEST_INPUT, input_side
from maskrcnn.data.batch import images_per_pass
from maskrcnn.data.table import Dataset
from maskrcnn.model.anchors import DEFAULT_ANCHOR_SIZES
from maskrcnn.training.schedule import DEFAULT_LR

LEAST_SIDE = 32.0
"""The median instance should measure so many input pixels: below eight strides of P2 its outline blurs."""
LARGEST_SCALE = 3.0
"""Of the median image's own pixels; more than that was never tried (docs/benchmarks.md)."""
SIZE_STEP = 128
SCALE_STEP = 0.25
USUAL_SIZE: int = ModelConfig.model_fields["image_size"].default

FINE_MASK_SIDE = 160.0
"""Median side, in input pixels, from which on a mask of 28 x 28 cells is too coarse: its cells exceed 5 px."""

MOST_EMPTY = 0.25
"""Part of the images shown that may be without instances: enough to learn what is none."""

LEAST_ASPECT = 1.25
"""Median height over width, or the inverse, from which on instances of a class tell up from sideways."""
FEWEST_INSTANCES = 20
"""Instances that are enough to say something of a class, or of large pictures."""

PICTURES_SHOWN = 48_000
FEWEST_EPOCHS = 6
"""Without a budget: large data sets are gone through until so many pictures have been shown, at least so many times."""

GOING_ON_LR = 0.6
"""Of the usual learning rate, where a whole model is gone on from: what the shipped one was trained on with."""

DETECTIONS_HEADROOM = 1.25
SMALLEST_ANCHOR = (8.0, 32.0)
"""Bounds of the side at P2: below two strides neighbours blur, above eight the finest map would idle."""

Choice = tuple[dict[str, dict[str, Any]], str]
"""Changed settings by group, and a sentence for people."""


def fill_in(config: Config, data: Dataset) -> tuple[Config, list[str]]:
    """`config` with what `data` decides, and a sentence for each choice."""
    reasons = []
    for choose in CHOICES:
        choice = choose(config, data)
        if choice is not None:
            changes, reason = choice
            config = config.changed(**changes)
            reasons.append(reason)
    return config, reasons


def _least_scale(config: Config, data: Dataset) -> Choice | None:
    """Large pictures of small objects are not shrunk to the working scale of the others, but enlarged as far as helps
    and the largest input allows.
    """
    if {"image_size", "min_scale"} & config.model.model_fields_set or len(data.boxes) == 0:
        return None
    size, _ = _fitting_size(data)
    long_sides = data.sizes.max(1)
    large = long_sides > size
    within = large[data.image_index]
    if size >= LARGEST_INPUT or np.count_nonzero(within) < FEWEST_INSTANCES:
        return None
    median = float(np.median(_sides(ModelConfig(image_size=size), data)[within]))
    if median >= LEAST_SIDE:
        return None
    own = float(np.median(_sides(ModelConfig(min_scale=1), data)[within]))
    fitting = min(LEAST_SIDE / own, LARGEST_INPUT / float(np.median(long_sides[large])))
    scale = max(math.floor(fitting / SCALE_STEP) * SCALE_STEP, 1.0)
    return {"model": {"min_scale": scale}}, (
        f"min scale {scale:g}: pictures are shown at {scale:g} times their own size or more, up to {LARGEST_INPUT} px, "
        f"as half of the instances in those of more than {size} px would measure less than {median:.0f} px"
    )


def _working_scale(config: Config, data: Dataset) -> Choice | None:
    """Small objects: the input grows until they are seen, and training takes windows of the usual size out of it."""
    if "image_size" in config.model.model_fields_set or len(data.boxes) == 0:
        return None
    size, median = _fitting_size(data)
    if size <= USUAL_SIZE:
        return None
    changes: dict[str, dict[str, Any]] = {"model": {"image_size": size}}
    crop = config.augment.crop
    if "crop" not in config.augment.model_fields_set:
        crop = USUAL_SIZE
        changes["augment"] = {"crop": crop}
    return changes, (
        f"image size {size}, trained in windows of {crop or size}: half of the instances would measure less than "
        f"{median:.0f} px at {USUAL_SIZE}"
    )


def _fitting_size(data: Dataset) -> tuple[int, float]:
    """The input's side at which the median instance is large enough, and that instance's side at the usual one."""
    median = float(np.median(_sides(ModelConfig(), data)))
    own = LARGEST_SCALE * float(np.median(data.sizes.max(1)))
    wanted = min(math.ceil(USUAL_SIZE * LEAST_SIDE / median / SIZE_STEP), math.floor(own / SIZE_STEP)) * SIZE_STEP
    return max(min(wanted, LARGEST_INPUT), USUAL_SIZE), median


def _anchor_sizes(config: Config, data: Dataset) -> Choice | None:
    """Sides at P2 to P6, in input pixels: doubling from the 10th percentile of the instances' sides, within bounds."""
    if config.model.anchor_sizes is not None:
        return None
    if len(data.boxes) == 0:
        chosen = {"model": {"anchor_sizes": DEFAULT_ANCHOR_SIZES}}
        return chosen, "anchor sizes 16 to 256: the data has no instance to measure"
    low, high = np.quantile(_sides(config.model, data), [0.1, 0.9])
    first = float(np.clip(np.round(low), *SMALLEST_ANCHOR))
    sizes = tuple(first * 2**level for level in range(LEVELS))
    return {"model": {"anchor_sizes": sizes}}, (
        f"anchor sizes {sizes[0]:g} to {sizes[-1]:g}: in the network's input, instances measure {low:.0f} px "
        f"(10th percentile) to {high:.0f} px (90th)"
    )


def _mask_size(config: Config, data: Dataset) -> Choice | None:
    if "mask_size" in config.model.model_fields_set or len(data.boxes) == 0:
        return None
    median = float(np.median(_sides(config.model, data)))
    if median < FINE_MASK_SIDE:
        return None
    return {"model": {"mask_size": 56}}, f"masks of 56 x 56: half of the instances measure more than {median:.0f} px"


def _detections(config: Config, data: Dataset) -> Choice | None:
    if config.predict.detections is not None:
        return None
    most = int(data.counts.max(initial=0))
    detections = max(100, math.ceil(most * DETECTIONS_HEADROOM / 50) * 50)
    return {"predict": {"detections": detections}}, f"detections {detections}: the fullest image has {most} instances"


def _box_voting(config: Config, data: Dataset) -> Choice | None:
    if "box_voting" in config.predict.model_fields_set:
        return None
    return {"predict": {"box_voting": True}}, "boxes are voted on by all candidates for an object"


def _mask_scoring(config: Config, data: Dataset) -> Choice | None:
    if "mask_scoring" in config.predict.model_fields_set:
        return None
    return {"predict": {"mask_scoring": True}}, "scores take in how sure masks are"


def _empty_images(config: Config, data: Dataset) -> Choice | None:
    """Data of which most shows nothing: each pass takes a part of that."""
    part = float(np.mean(data.counts == 0))
    if "empty" in config.train.model_fields_set or part <= MOST_EMPTY or part == 1:
        return None
    return {"train": {"empty": MOST_EMPTY}}, (
        f"empty {MOST_EMPTY:g}: {part:.0%} of the images are without instances; each pass shows some of them"
    )


def _turns(config: Config, data: Dataset) -> Choice | None:
    """No quarter turns where most instances are of classes that are mostly upright, or mostly lying."""
    if "rotate" in config.augment.model_fields_set or not config.augment.rotate:
        return None
    boxes = data.boxes
    lean = np.log((boxes[:, 3] - boxes[:, 1]) / (boxes[:, 2] - boxes[:, 0]))
    leaning: dict[str, tuple[int, float]] = {}
    for label, name in enumerate(data.class_names, 1):
        own = lean[data.labels == label]
        if len(own) >= FEWEST_INSTANCES and abs(median := float(np.median(own))) >= math.log(LEAST_ASPECT):
            leaning[name] = len(own), median
    if 2 * sum(n for n, _ in leaning.values()) <= len(lean):
        return None
    name, (_, median) = max(leaning.items(), key=lambda item: item[1][0])
    shape = "high as wide" if median > 0 else "wide as high"
    return {"augment": {"rotate": False}}, (
        f"no quarter turns, as up and down matter: {name} is {math.exp(abs(median)):.1f} times as {shape} (median)"
    )


def _epochs(config: Config, data: Dataset) -> Choice | None:
    """Without a budget, large data sets are gone through fewer times."""
    if config.train.budget is not None or "epochs" in config.train.model_fields_set:
        return None
    images = images_per_pass(data, config)
    epochs = max(min(config.train.epochs, round(PICTURES_SHOWN / images)), FEWEST_EPOCHS)
    shown = epochs * max(images, config.train.epoch_images)
    return {"train": {"epochs": epochs}}, (
        f"epochs {epochs}: {shown:,} pictures are shown in all; --budget trains for a time instead"
    )


def _going_on(config: Config, data: Dataset) -> Choice | None:
    """From a whole model: its first stages stay, steps are smaller, and a large input is trained in windows."""
    if config.train.init is None:
        return None
    train = {"freeze": "3+", "lr": GOING_ON_LR * DEFAULT_LR[config.train.optimizer]}
    train = {name: value for name, value in train.items() if name not in config.train.model_fields_set}
    augment = {"crop": USUAL_SIZE}
    if "crop" in config.augment.model_fields_set or config.model.image_size <= USUAL_SIZE:
        augment = {}
    if not train and not augment:
        return None
    told = ", ".join(f"{name} {value}" for name, value in (train | augment).items())
    return {"train": train, "augment": augment}, f"{told}: small, cheap steps, which bend what the model knows"


def _batch_norm(config: Config, data: Dataset) -> Choice | None:
    pretrained = config.train.init is not None or config.model.weights != "none"
    if pretrained or "freeze_norm" in config.train.model_fields_set:
        return None
    return {"train": {"freeze_norm": False}}, "batch norm, where the backbone has any, learns: there is nothing to keep"


def _schedule(config: Config, data: Dataset) -> Choice | None:
    """The rate's peak and how it falls are told and not written down: `lr` goes with `optimizer`."""
    if config.train.lr is not None:
        return None
    way = {
        "cosine": "falls to zero along a cosine, as the number of steps is known when it begins to fall",
        "step": "falls to a tenth and a hundredth after 2/3 and 8/9 of the steps",
        "none": "stays, as decay is none",
    }[config.train.decay]
    lr = DEFAULT_LR[config.train.optimizer]
    return {}, f"learning rate {lr}: usual for {config.train.optimizer}; after a rise it {way}"


def _sided_classes(config: Config, data: Dataset) -> Choice | None:
    """Classes such as "left hand" and "right hand" trade places in a mirrored image."""
    if "swap_on_flip" in config.augment.model_fields_set:
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
    told = ", ".join(f"{a} and {b}" for a, b in pairs)
    return {"augment": {"swap_on_flip": tuple(f"{a}={b}" for a, b in pairs)}}, (
        f"{told} trade places in mirrored images, by their names"
    )


CHOICES: tuple[Callable[[Config, Dataset], Choice | None], ...] = (
    _least_scale,  # first, as it must see whether the input's size was set on purpose
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
    _going_on,
    _batch_norm,
    _schedule,
)


def _sides(model: ModelConfig, data: Dataset) -> np.ndarray:
    """(G,) square roots of the boxes' areas, in pixels of the network's input."""
    boxes = data.boxes
    sizes, which = np.unique(data.sizes, axis=0, return_inverse=True)
    scale = np.array([input_side(hw, model) / max(hw) for hw in sizes.tolist()])
    return np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)) * scale[which.reshape(-1)[data.image_index]]
