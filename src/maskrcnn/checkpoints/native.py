"""Our model file: one safetensors file; its header has configuration, conventions, classes, reading and provenance."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from maskrcnn.errors import UserError
from maskrcnn.files import atomic, parse_json
from maskrcnn.inference.description import Description

FORMAT = "maskrcnn-1"


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Description):
    """A model: its description and its weights by our names."""

    weights: dict[str, Tensor]


def write_model(path: Path, checkpoint: Checkpoint) -> None:
    """Write a model file atomically. Raises `ValueError` for weights that are not finite."""
    for name, tensor in checkpoint.weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds NaN or infinity; {path} was not written")
    header = {"format": FORMAT, **{key: json.dumps(value) for key, value in checkpoint.to_dict().items()}}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.weights.items()}
    write_tensors(tensors, path, header)


def write_tensors(tensors: dict[str, Tensor], path: Path, header: dict[str, str]) -> None:
    """Write a safetensors file atomically; equal content gives equal bytes. Raises `UserError` if the disk refuses."""
    try:
        with atomic(path) as part_file:
            save_file(tensors, part_file, header)
            sort_header(part_file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot write {path}: {error}") from error


def sort_header(path: Path) -> None:
    """Sort the keys of a safetensors header in place: the library writes those of the metadata in random order.

    The file begins with the length of the header, 8 bytes, and the header, JSON padded with spaces
    (https://github.com/huggingface/safetensors#format).
    """
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) > length:
            raise RuntimeError(f"{path}: the sorted header has {len(text)} bytes, more than the {length} of the file")
        file.seek(8)
        file.write(text.ljust(length))


def read_model(path: Path) -> Checkpoint:
    """Read a file of `write_model`. Raises `UserError` for anything else."""
    header, weights = read_tensors(path)
    if header.get("format") != FORMAT:
        raise UserError(f"{path} is a safetensors file, but not a model of this package")
    values = {key: parse_json(text, f"{path}, {key}") for key, text in header.items() if key != "format"}
    return Checkpoint(weights=weights, **vars(Description.parse(values, str(path))))


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the header and the tensors of a safetensors file. Raises `UserError` if it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file: {error}") from None
