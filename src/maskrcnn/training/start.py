"""What a run starts from: its settings, filled in, and a network with its first weights."""

from __future__ import annotations

from collections.abc import Callable

import torch

from maskrcnn.config import Config
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError
from maskrcnn.model.conventions import NATIVE, Conventions
from maskrcnn.model.layers import norms
from maskrcnn.model.mask_rcnn import MaskRCNN, build_model
from maskrcnn.training.checkpoint import RunFolder, read_conventions
from maskrcnn.training.initial import on_top_of, open_initial, take_over
from maskrcnn.training.plan import fill_in

FIRST_TRAINED_STAGE = {"all": 1, "3+": 3, "4+": 4, "5+": 5, "heads": 6}
"""Of the backbone, for each value of ``freeze``; stage 6 is behind it."""


def start(data: Dataset, config: Config, say: Callable[[str], None]) -> tuple[Config, MaskRCNN]:
    """A new run's settings and network, on the CPU: from a whole model where ``init`` names one, else its backbone."""
    if len(data) == 0:
        raise UserError("there are no images to train on")
    initial = open_initial(config.train.init) if config.train.init else None
    if initial is not None:
        if "weights" in config.model.model_fields_set:
            say(f"weights {config.model.weights}: not looked at, as all weights come from {config.train.init}")
        config = on_top_of(initial, config)
        theirs = initial.model.conventions
        if config.model.min_scale and theirs.resize != "longer":
            raise UserError(f"min_scale has no meaning in the conventions of {theirs.name}. Leave --min-scale out")
    config, reasons = fill_in(config, data)
    for reason in reasons:
        say(reason)
    torch.manual_seed(config.train.seed)
    model = build(config, data, initial.model.conventions if initial is not None else NATIVE)
    if initial is not None:
        say(f"starts from {config.train.init}: {take_over(model, initial, data.class_names)}")
    else:
        model.backbone.require_any_size()
        say(f"backbone {config.model.backbone}: {model.backbone.load_weights(config.model.weights)}")
    return config, model


def start_again(data: Dataset, folder: RunFolder) -> tuple[Config, MaskRCNN]:
    """The settings of the run in `folder` and its network, whose weights are still to come from its state."""
    config = Config.load(folder.config)
    return config, build(config, data, read_conventions(folder))


def build(config: Config, data: Dataset, conventions: Conventions) -> MaskRCNN:
    """A network for the classes of `data`, of which trains what ``freeze`` leaves free. Norms behind the backbone keep
    what a whole model gave them; new ones have nothing to keep, and learn.
    """
    model = build_model(config.model, len(data.class_ids), conventions, freeze_norm=config.train.freeze_norm)
    if config.train.init is None:
        for part in (model.pyramid, model.box_head, model.mask_head):
            for layer in norms(part):
                layer.requires_grad_()
    model.backbone.freeze_below(FIRST_TRAINED_STAGE[config.train.freeze])
    return model
