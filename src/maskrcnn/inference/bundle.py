"""Bundles: folders that predict without torch. Writing and reading are both here.

model.json   format, runtime, precision, configuration, conventions, pixel mean, classes, reading, provenance, scores
trunk.*, box_head.*, mask_head.*   graphs in the format of the runtime
convolutions.safetensors   if model.json says "winograd": convolutions that the graphs leave out (`maskrcnn.winograd`)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel
from safetensors.numpy import save_file

from maskrcnn.config import validated
from maskrcnn.errors import UserError
from maskrcnn.files import read_json, write_text
from maskrcnn.inference.description import Description
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes import ExportedRuntime
from maskrcnn.winograd import inference as winograd

FORMAT = "maskrcnn-bundle-3"
READABLE = ("maskrcnn-bundle-2", FORMAT)
"""Format 2 has no "winograd"."""

DESCRIPTION = "model.json"
CONVOLUTIONS = "convolutions.safetensors"


def is_bundle(path: Path) -> bool:
    """Whether `path` is a folder with a bundle's description."""
    return (path / DESCRIPTION).is_file()


class _Bundle(BaseModel):
    """The entries of ``model.json`` that a `Description` lacks."""

    runtime: str
    precision: str
    pixel_mean: tuple[float, float, float]
    winograd: bool = False
    scores: dict[str, Any] = {}


def describe(model: Predictor, pixel_mean: tuple[float, ...], **values: Any) -> dict[str, Any]:
    """The content of ``model.json``, with `values` added."""
    return {"format": FORMAT, **values, "pixel_mean": list(pixel_mean), **model.description.to_dict()}


def write_bundle(
    folder: Path, description: dict[str, Any], graphs: dict[str, Any], convolutions: dict[str, np.ndarray] | None
) -> None:
    """Write a bundle into an empty folder: `graphs` by name, in the format of ``description["runtime"]``."""
    if description["runtime"] == "openvino":
        from maskrcnn.inference.runtimes.openvino import write_graphs
    else:
        from maskrcnn.inference.runtimes.onnx import write_graphs
    write_graphs(graphs, folder)
    if convolutions is not None:
        save_file(convolutions, folder / CONVOLUTIONS)
    write_text(json.dumps(description, indent=1), folder / DESCRIPTION)


def read_bundle(path: Path) -> Predictor:
    """The model of a bundle. Raises `UserError`."""
    file = path / DESCRIPTION
    values = read_json(file)
    if not isinstance(values, dict) or values.get("format") not in READABLE:
        raise UserError(f"{file} is not the description of a bundle of this package")
    bundle, model = validated(_Bundle, values, str(file)), Description.parse(values, str(file))
    name, config, conventions = bundle.runtime, model.config, model.conventions
    adapter = winograd.read(path / CONVOLUTIONS, config.model.channels) if bundle.winograd else None
    try:
        runtime = ExportedRuntime(name, path, config.model, conventions, bundle.pixel_mean, adapter)
    except ModuleNotFoundError as error:
        raise UserError(f"{path} runs on {name}, which is not installed: pip install 'maskrcnn[{name}]'") from error
    except RuntimeError as error:
        raise UserError(f"{path} cannot be opened: {str(error).strip().splitlines()[-1]}") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}; this version opens openvino and onnx") from None
    provenance = model.provenance | bundle.model_dump(include={"precision", "scores"})
    classes = model.class_ids, model.class_names
    return Predictor(runtime, config, *classes, provenance=provenance, reading=model.reading)
