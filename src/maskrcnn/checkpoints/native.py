"""Our own model file: safetensors, with configuration, conventions, classes and provenance in its header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from maskrcnn.config import Config
from maskrcnn.errors import UserError
from maskrcnn.files import atomic
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes.torch import TorchRuntime
from maskrcnn.model.conventions import Conventions
from maskrcnn.model.mask_rcnn import MaskRCNN, build_model

FORMAT = "maskrcnn-1"


def pick_device(name: str) -> torch.device:
    """The device that "auto" or a torch name stands for."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"the device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device


def write_model(
    path: Path,
    weights: dict[str, Tensor],
    *,
    config: Config,
    conventions: Conventions,
    class_ids: list[Any],
    class_names: list[str],
    provenance: dict[str, Any],
) -> None:
    """Write one model file, atomically. Refuses weights that are not finite."""
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds NaN or infinity; {path} was not written")
    header = {
        "format": FORMAT,
        "config": config.model_dump_json(),
        "conventions": json.dumps(conventions.to_dict()),
        "class_ids": json.dumps(class_ids),
        "class_names": json.dumps(class_names),
        "provenance": json.dumps(provenance),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_tensors(tensors, path, header)


def write_tensors(tensors: dict[str, Tensor], path: Path, header: dict[str, str]) -> None:
    """Write a safetensors file atomically. Raises `UserError` where the disk does not take it."""
    try:
        with atomic(path) as beside:
            save_file(tensors, beside, header)
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot write {path}: {error}") from error


def save(predictor: Predictor, path: Path) -> None:
    """Write the model that `predictor` predicts with."""
    write_model(
        path,
        predictor.model.state_dict(),
        config=predictor.config,
        conventions=predictor.model.conventions,
        class_ids=predictor.class_ids,
        class_names=predictor.class_names,
        provenance=predictor.provenance,
    )


def read_model(path: Path, device: str = "auto") -> Predictor:
    """Read a file of `write_model`. Raises `UserError` for anything else."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable model file: {error}") from None
    if header.get("format") != FORMAT:
        raise UserError(f"{path} is a safetensors file, but not a model of this package")
    config = Config.parse(json.loads(header["config"]), f"{path}, header")
    class_ids, class_names = json.loads(header["class_ids"]), json.loads(header["class_names"])
    conventions = Conventions.from_dict(json.loads(header["conventions"]))
    model = build_model(config.model, len(class_ids), conventions, freeze_norm=config.train.freeze_norm)
    load_weights(model, weights, str(path))
    return Predictor(
        TorchRuntime(model, pick_device(device)),
        config,
        class_ids,
        class_names,
        provenance=json.loads(header["provenance"]),
    )


def load_weights(model: MaskRCNN, weights: dict[str, Tensor], source: str) -> None:
    """Copy weights in; a missing, unknown or misshapen tensor is an error that names it."""
    own = model.state_dict()
    missing, unknown = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    if missing or unknown:
        raise UserError(
            f"{source} does not fit the network: {len(missing)} tensors missing {missing[:2]}, "
            f"{len(unknown)} unknown {unknown[:2]}"
        )
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            raise UserError(f"{source}: {name} is {tuple(tensor.shape)}, the network's is {tuple(own[name].shape)}")
    model.load_state_dict(weights)
