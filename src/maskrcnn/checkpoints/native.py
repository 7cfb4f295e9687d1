"""Our model file: one safetensors file; its header has configuration, conventions, classes, reading and provenance."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from maskrcnn.config import Config
from maskrcnn.data.reading import BY_ITSELF, Reading
from maskrcnn.detection.conventions import Conventions
from maskrcnn.errors import UserError
from maskrcnn.files import atomic

FORMAT = "maskrcnn-1"


@dataclass(frozen=True)
class Checkpoint:
    """Weights by our names, and what is needed to build their network, to name its classes and to read its pictures."""

    weights: dict[str, Tensor]
    config: Config
    conventions: Conventions
    class_ids: list[Any]
    class_names: list[str]
    provenance: dict[str, Any]
    reading: Reading = BY_ITSELF


def write_model(path: Path, checkpoint: Checkpoint) -> None:
    """Write a model file atomically. Raises `ValueError` for weights that are not finite."""
    for name, tensor in checkpoint.weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds NaN or infinity; {path} was not written")
    header = {
        "format": FORMAT,
        "config": checkpoint.config.model_dump_json(),
        "conventions": json.dumps(checkpoint.conventions.to_dict()),
        "class_ids": json.dumps(checkpoint.class_ids),
        "class_names": json.dumps(checkpoint.class_names),
        "provenance": json.dumps(checkpoint.provenance),
        "reading": json.dumps(checkpoint.reading.to_dict()),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.weights.items()}
    write_tensors(tensors, path, header)


def write_tensors(tensors: dict[str, Tensor], path: Path, header: dict[str, str]) -> None:
    """Write a safetensors file atomically. Raises `UserError` if the disk refuses it."""
    try:
        with atomic(path) as part_file:
            save_file(tensors, part_file, header)
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot write {path}: {error}") from error


def read_model(path: Path) -> Checkpoint:
    """Read a file of `write_model`. Raises `UserError` for anything else."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable model file: {error}") from None
    if header.get("format") != FORMAT:
        raise UserError(f"{path} is a safetensors file, but not a model of this package")
    return Checkpoint(
        weights=weights,
        config=Config.parse(json.loads(header["config"]), f"{path}, header"),
        conventions=Conventions.from_dict(json.loads(header["conventions"])),
        class_ids=json.loads(header["class_ids"]),
        class_names=json.loads(header["class_names"]),
        provenance=json.loads(header["provenance"]),
        reading=Reading(**json.loads(header.get("reading", "{}"))),  # earlier files have none
    )
