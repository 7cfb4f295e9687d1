"""Going on from a whole trained model: its network and conventions are taken over, its class layers where they fit."""

from __future__ import annotations

from pathlib import Path

from maskrcnn.checkpoints import load
from maskrcnn.checkpoints.foreign import SUFFIXES, import_checkpoint
from maskrcnn.checkpoints.native import load_weights
from maskrcnn.checkpoints.published import PUBLISHED
from maskrcnn.config import Config
from maskrcnn.data.augment import LARGEST_INPUT
from maskrcnn.inference.predictor import Predictor
from maskrcnn.model.mask_rcnn import MaskRCNN

CLASS_LAYERS = ("box_head.class_logits.", "box_head.box_deltas.", "mask_head.logits.")
"""The last layers, whose rows belong to classes."""


def open_initial(name: str) -> Predictor:
    """The model that ``init`` names, on the CPU. Raises `UserError`."""
    if name in PUBLISHED or Path(name).suffix in SUFFIXES:
        return import_checkpoint(name)
    return load(name, device="cpu")


def on_top_of(initial: Predictor, config: Config) -> Config:
    """`config` with the network of `initial`, except for model settings that were set on purpose.

    The least scale belongs to the input's size: who sets the one does not inherit the other.
    """
    own = config.model.model_dump(exclude_unset=True)
    inherited = initial.config.model.model_dump()
    if "image_size" in own:
        inherited["min_scale"] = 0.0
    return config.changed(model={**inherited, **own})


def take_over(model: MaskRCNN, initial: Predictor, class_names: list[str]) -> str:
    """Copy the weights of `initial` into `model`, which is on the CPU; returns what was done, for people.

    Class layers are kept where the classes are the same, in name and order, and else stay new. Raises `UserError` where
    the networks differ.
    """
    weights = dict(initial.model.state_dict())
    size, least = model.config.image_size, model.config.min_scale
    told = f"{initial.config.model.backbone}, conventions of {initial.model.conventions.name}, input up to {size} px"
    if least:
        told += f", and for large pictures {least:g} times their own size, up to {LARGEST_INPUT} px"
    if initial.class_names == class_names:
        told += "; its classes are those of the data and its class layers are kept"
    else:
        own = model.state_dict()
        weights |= {name: tensor for name, tensor in own.items() if name.startswith(CLASS_LAYERS)}
        told += (
            f"; its {len(initial.class_names)} classes give way to {len(class_names)}: {_few(class_names)}. The last "
            "layers of both heads are new"
        )
    load_weights(model, weights, "the model to go on from")
    return told


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
