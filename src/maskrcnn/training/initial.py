"""Training from a whole model: take over its network and conventions, and its class layers if the classes agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from maskrcnn.checkpoints.foreign import SUFFIXES
from maskrcnn.checkpoints.load import import_checkpoint, load, load_weights
from maskrcnn.checkpoints.published import PUBLISHED
from maskrcnn.detection.fit import LARGEST_INPUT
from maskrcnn.errors import counted
from maskrcnn.evaluation.classes import Classes, pair_classes
from maskrcnn.inference.predictor import Predictor
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.settings import Origin, Settings

CLASS_LAYERS = ("box_head.class_logits.", "box_head.box_deltas.", "mask_head.logits.")
"""The last layers, whose rows belong to classes."""


def open_initial(name: str) -> Predictor:
    """The model that ``init`` names, on the CPU. Raises `UserError`."""
    if name in PUBLISHED or Path(name).suffix in SUFFIXES:
        return import_checkpoint(name)
    return load(name, device="cpu")


def inherit_model(settings: Settings, initial: Predictor) -> Settings:
    """Take the open model settings from `initial`; ``min_scale`` is inherited only together with ``image_size``."""
    inherited = initial.config.model.model_dump()
    if not settings.is_open("model.image_size"):
        inherited["min_scale"] = 0.0
    return settings.filled_in({"model": inherited}, Origin.MODEL)


def take_over(model: MaskRCNN, initial: Predictor, data: Classes) -> str:
    """Copy the weights of `initial` into `model`, which is on the CPU, and return a sentence about it.

    Class layers are kept, in the order of the data's classes, if each class of either side has its counterpart
    (`pair_classes`). Raises `UserError` if the networks differ.
    """
    weights = dict(initial.model.state_dict())
    size, min_scale = model.config.image_size, model.config.min_scale
    report = f"{initial.config.model.backbone}, conventions of {initial.conventions.name}, input up to {size} px"
    if min_scale:
        report += f" (large pictures {min_scale:g} times their own size, up to {LARGEST_INPUT} px)"
    labels = pair_classes(initial, data)
    if labels.all() and len(labels) == len(data.class_ids):
        rows = np.argsort(labels)
        weights |= {name: _reordered(weights[name], rows) for name in weights if name.startswith(CLASS_LAYERS)}
        report += "; its classes are those of the data, so its class layers are kept"
    else:
        class_names = data.class_names
        names = ", ".join(class_names[:5]) + (", ..." if len(class_names) > 5 else "")
        state = model.state_dict()
        weights |= {name: tensor for name, tensor in state.items() if name.startswith(CLASS_LAYERS)}
        report += (
            f"; {names} ({counted(len(class_names), 'class', 'classes')}) in place of its {len(initial.class_names)}. "
            "The last layers of both heads are new"
        )
    load_weights(model, weights, "the initial model")
    return report


def _reordered(rows: Tensor, order: np.ndarray) -> Tensor:
    """Reorder the classes of a layer's `rows`, 1 or 4 a class, where the background comes first."""
    by_class = rows.reshape(len(order) + 1, -1, *rows.shape[1:])
    return by_class[[0, *(order + 1).tolist()]].reshape(rows.shape)
