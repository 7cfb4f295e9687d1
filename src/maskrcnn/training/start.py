"""The start of a run: its settings, filled in, and a network with its first weights."""

from __future__ import annotations

from collections.abc import Callable

import torch

from maskrcnn.config import Config
from maskrcnn.data.split import absent_classes, untrained_classes
from maskrcnn.data.table import Dataset
from maskrcnn.detection.conventions import NATIVE, Conventions
from maskrcnn.errors import UserError
from maskrcnn.evaluation import differing_range
from maskrcnn.evaluation.classes import match_classes
from maskrcnn.model.layers import norms
from maskrcnn.model.mask_rcnn import MaskRCNN, build_model
from maskrcnn.settings import Settings
from maskrcnn.training.initial import inherit_model, open_initial, take_over
from maskrcnn.training.machine import Machine, fit_to_machine
from maskrcnn.training.plan import fill_in
from maskrcnn.training.run_folder import RunFolder, read_conventions

FIRST_TRAINED_STAGE = {"all": 1, "3+": 3, "4+": 4, "5+": 5, "heads": 6}
"""First backbone stage that trains, for each value of ``freeze``. Stage 6 is behind the backbone."""


def start(data: Dataset, settings: Settings, machine: Machine, say: Callable[[str], None]) -> tuple[Settings, MaskRCNN]:
    """Settings and network of a new run, on the CPU. Weights come from ``init`` or the backbone. Raises `UserError`."""
    if len(data) == 0:
        raise UserError("there are no images to train on")
    for note in settings.notes:
        say(note)
    init = settings.config.train.init
    initial = open_initial(init) if init else None
    conventions = initial.conventions if initial is not None else NATIVE
    if initial is not None:
        if not settings.is_open("model.weights"):
            say(f"weights {settings.config.model.weights}: ignored, because all weights come from {init}")
        settings = inherit_model(settings, initial)
        if settings.config.model.min_scale and conventions.resize != "longer":
            raise UserError(f"min_scale has no meaning in the conventions of {conventions.name}. Leave --min-scale out")
    settings, reasons = fit_to_machine(settings, machine)
    settings, more_reasons = fill_in(settings, data.without_crowd)
    for reason in reasons + more_reasons:
        say(reason)
    config = settings.config
    torch.manual_seed(config.train.seed)
    model = build(config, data, conventions)
    if initial is not None:
        say(f"starts from {init}: {take_over(model, initial, data)}")
    else:
        model.backbone.require_any_size()
        say(f"backbone {config.model.backbone}: {model.backbone.load_weights(config.model.weights)}")
    return settings, model


def restart(data: Dataset, folder: RunFolder) -> tuple[Settings, MaskRCNN]:
    """Settings and network of the run in `folder`, before its weights are restored. Raises `UserError`."""
    config = Config.load(folder.config)
    return Settings.of(config), build(config, data, read_conventions(folder))


def build(config: Config, data: Dataset, conventions: Conventions) -> MaskRCNN:
    """Build the network for the classes of `data`; ``freeze`` says which stages train."""
    model = build_model(config.model, len(data.class_ids), conventions, freeze_norm=config.train.freeze_norm)
    if config.train.init is None:  # batch norm outside the backbone is new, not pretrained: train it
        for part in (model.pyramid, model.box_head, model.mask_head):
            for layer in norms(part):
                layer.requires_grad_()
    model.backbone.freeze_below(FIRST_TRAINED_STAGE[config.train.freeze])
    return model


def data_notes(data: Dataset, val_data: Dataset | None, patience: int, last_name: str) -> list[str]:
    """Sentences about the data of a run: missing classes, differences, and which model the run ends with."""
    notes = [untrained_classes(data)]
    if val_data is None:
        notes.append(f"no validation images: nothing is scored, and the model is {last_name}")
    else:
        differences = differing_range(data.reading, val_data), absent_classes(val_data)
        notes += [match_classes(data, val_data).note, *differences]
        if not val_data.without_crowd.n_instances:
            notes.append(f"no validation is better than another: the model is {last_name}")
    if patience and (val_data is None or not val_data.without_crowd.n_instances):
        notes.append(f"patience {patience} is not used: it counts validations with a score")
    return [note for note in notes if note]
