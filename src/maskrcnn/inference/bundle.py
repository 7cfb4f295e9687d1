"""Bundles: folders that predict without torch. Writing and reading are both here.

model.json   format, runtime, precisions, configuration, conventions, pixel mean, classes, reading, provenance, scores
trunk.*, box_head.*, mask_head.*   graphs with weights in the first precision, in the format of the runtime
int8/                              the same graphs in int8, beside fp32
convolutions.safetensors   if model.json says "winograd": convolutions that the fp32 graphs leave out
                           (`maskrcnn.winograd`)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field
from safetensors.numpy import save_file

from maskrcnn.config import HALVES, Precision, PrecisionChoice, validated
from maskrcnn.errors import UserError, say
from maskrcnn.files import read_json, write_text
from maskrcnn.inference.description import Description
from maskrcnn.inference.precision import MAX_LOSS, choose
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes import ExportedRuntime, engine_module
from maskrcnn.inference.timings import timings_file
from maskrcnn.winograd import inference as winograd

FORMAT = "maskrcnn-bundle-4"
READABLE = ("maskrcnn-bundle-2", "maskrcnn-bundle-3", FORMAT)
"""Formats 2 and 3 have "precision", the only one, in place of "precisions", and format 2 has no "winograd"."""

DESCRIPTION = "model.json"
CONVOLUTIONS = "convolutions.safetensors"

Graphs = dict[str, Any]
"""The three graphs by name, as objects of a runtime."""


def is_bundle(path: Path) -> bool:
    """Whether `path` is a folder with a bundle's description."""
    return (path / DESCRIPTION).is_file()


class _Bundle(BaseModel):
    """The entries of ``model.json`` that a `Description` lacks. `precisions` are those of the stored weights."""

    runtime: str
    precisions: Annotated[list[Literal["fp32", "int8"]], Field(min_length=1)]
    pixel_mean: tuple[float, float, float]
    winograd: bool = False
    scores: dict[str, int | dict[str, float | None]] = {}
    max_loss: float = MAX_LOSS


def describe(model: Predictor, pixel_mean: tuple[float, ...], **values: Any) -> dict[str, Any]:
    """The content of ``model.json``, with `values` added."""
    return {"format": FORMAT, **values, "pixel_mean": list(pixel_mean), **model.description.to_dict()}


def write_bundle(
    folder: Path,
    description: dict[str, Any],
    graphs: dict[Precision, Graphs],
    convolutions: dict[str, np.ndarray] | None,
) -> None:
    """Write a bundle into an empty folder: `graphs` of ``description["precisions"]``."""
    for name, place in _places(folder, description["precisions"]).items():
        place.mkdir(exist_ok=True)
        engine_module(description["runtime"]).write_graphs(graphs[name], place)
    if convolutions is not None:
        save_file(convolutions, folder / CONVOLUTIONS)
    write_text(json.dumps(description, indent=1), folder / DESCRIPTION)


def read_bundle(path: Path, precision: PrecisionChoice = "auto", say: Callable[[str], None] = say) -> Predictor:
    """The model of a bundle, in a precision or in the one that `choose` chooses. Raises `UserError`."""
    file = path / DESCRIPTION
    values = read_json(file)
    stored = values.get("format") if isinstance(values, dict) else None
    if str(stored).startswith("maskrcnn-bundle-") and stored not in READABLE:
        raise UserError(
            f"{file} has the format {stored}; this version reads {', '.join(READABLE)}. Export the model again, or "
            "install the version that wrote it"
        )
    if not isinstance(values, dict) or stored not in READABLE:
        raise UserError(f"{file} is not the description of a bundle of this package")
    if values["format"] != FORMAT:
        values = values | {"precisions": [values.get("precision")]}
    bundle, model = validated(_Bundle, values, str(file)), Description.parse(values, str(file))
    try:
        runtime = _open(path, bundle, model, precision, say)
    except ModuleNotFoundError as error:
        name = bundle.runtime
        raise UserError(f"{path} runs on {name}, which is not installed: pip install 'maskrcnn[{name}]'") from error
    except RuntimeError as error:
        raise UserError(f"{path} cannot be opened: {str(error).strip().splitlines()[-1]}") from None
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: {error}; this version opens openvino and onnx") from None
    provenance = model.provenance | {"precision": runtime.precision, "scores": bundle.scores}
    classes = model.class_ids, model.class_names
    return Predictor(runtime, model.config, *classes, provenance=provenance, reading=model.reading)


def _open(
    path: Path, bundle: _Bundle, model: Description, precision: PrecisionChoice, say: Callable[[str], None]
) -> ExportedRuntime:
    library, places = engine_module(bundle.runtime), _places(path, bundle.precisions)
    offered: list[Precision] = [*places, *(library.half_precisions() if "fp32" in places else [])]

    def open_in(name: Precision) -> ExportedRuntime:
        config, channels = model.config.model, model.config.model.channels
        graphs: Graphs | Path = places["fp32" if name in HALVES else name]
        adapter = None
        if bundle.winograd and name == "fp32":
            adapter = winograd.read(path / CONVOLUTIONS, channels)
        elif bundle.winograd and name in HALVES:
            from maskrcnn.winograd.completed import completed

            graphs = completed(library.read_graphs(places["fp32"]), path / CONVOLUTIONS, channels)
        conventions, mean = model.conventions, bundle.pixel_mean
        return ExportedRuntime(bundle.runtime, graphs, config, conventions, mean, adapter, name)

    if precision == "auto":
        timings = timings_file(library.VERSION, *contents(path))
        return choose(offered, bundle.scores, bundle.max_loss, open_in, timings, say)
    if precision not in offered:
        raise UserError(
            f"{path} cannot predict in {precision} here: {bundle.runtime} runs it in {' or '.join(offered)}"
        )
    return open_in(precision)


def _places(folder: Path, precisions: Sequence[Precision]) -> dict[Precision, Path]:
    """The folder of the graphs of each precision: the bundle for the first, one of its name within for any other."""
    return {name: folder / name if k else folder for k, name in enumerate(precisions)}


def contents(folder: Path) -> list[str]:
    """The description of a bundle, and the names and sizes of its files."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [*(f"{file.name} {file.stat().st_size}" for file in files), (folder / DESCRIPTION).read_text("utf-8")]
