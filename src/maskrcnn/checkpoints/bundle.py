"""A bundle: a folder that predicts with no torch installed. Graphs of a runtime, and one JSON with all the rest.

model.json   format, runtime, precision, configuration, conventions, pixel mean, classes, provenance, scores
trunk.*, box_head.*, mask_head.*
convolutions.safetensors   where model.json says "winograd": what the graphs leave out, for `inference.convolutions`
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.numpy import load_file

from maskrcnn.config import Config
from maskrcnn.errors import UserError
from maskrcnn.inference.convolutions import Convolutions
from maskrcnn.inference.predictor import Predictor
from maskrcnn.model.conventions import Conventions

if TYPE_CHECKING:
    from maskrcnn.inference.runtimes import Runtime

FORMAT = "maskrcnn-bundle-3"
READABLE = ("maskrcnn-bundle-2", FORMAT)
"""What 2 lacks is "winograd"."""

DESCRIPTION = "model.json"
CONVOLUTIONS = "convolutions.safetensors"


def is_bundle(path: Path) -> bool:
    """Whether `path` is a folder with a bundle's description."""
    return (path / DESCRIPTION).is_file()


def describe(predictor: Predictor, pixel_mean: tuple[float, ...], **values: Any) -> dict[str, Any]:
    """What `model.json` says of a model; `values` are added."""
    return {
        "format": FORMAT,
        **values,
        "config": predictor.config.model_dump(mode="json"),
        "conventions": predictor.conventions.to_dict(),
        "pixel_mean": list(pixel_mean),
        "class_ids": predictor.class_ids,
        "class_names": predictor.class_names,
        "provenance": predictor.provenance,
    }


def read_bundle(path: Path) -> Predictor:
    """The model of a bundle. Raises `UserError`."""
    try:
        text = json.loads((path / DESCRIPTION).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path / DESCRIPTION} cannot be read: {error}") from None
    if not isinstance(text, dict) or text.get("format") not in READABLE:
        raise UserError(f"{path / DESCRIPTION} is not the description of a bundle of this package")
    config = Config.parse(text["config"], str(path / DESCRIPTION))
    conventions, mean = Conventions.from_dict(text["conventions"]), tuple(text["pixel_mean"])
    convolutions = _read_convolutions(path / CONVOLUTIONS, config.model.channels) if text.get("winograd") else None
    runtime = _open(text["runtime"], path, config, conventions, mean, convolutions)
    provenance = {**text["provenance"], **{k: text[k] for k in ("precision", "scores") if k in text}}
    return Predictor(runtime, config, text["class_ids"], text["class_names"], provenance=provenance)


def _read_convolutions(path: Path, channels: int) -> Convolutions:
    try:
        return Convolutions(load_file(path), channels)
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path} cannot be used: {error}") from None


def _open(
    name: str,
    path: Path,
    config: Config,
    conventions: Conventions,
    mean: tuple[float, ...],
    convolutions: Convolutions | None,
) -> Runtime:
    try:
        if name == "openvino":
            from maskrcnn.inference.runtimes.openvino import OpenVinoRuntime

            graphs = OpenVinoRuntime.read(path)
            return OpenVinoRuntime(graphs, config.model, conventions, mean, convolutions)
        if name == "onnx":
            from maskrcnn.inference.runtimes.onnx import OnnxRuntime

            return OnnxRuntime(OnnxRuntime.read(path), config.model, conventions, mean, convolutions)
    except ModuleNotFoundError as error:
        raise UserError(f"{path} runs on {name}, which is not installed: pip install 'maskrcnn[{name}]'") from error
    except RuntimeError as error:
        raise UserError(f"{path} cannot be opened: {str(error).strip().splitlines()[-1]}") from None
    raise UserError(f"{path} is for the runtime {name!r}, which is not known here")
