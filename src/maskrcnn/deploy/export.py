"""`export`: write a model for another runtime. What other precisions cost is measured before anything is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from maskrcnn.checkpoints.torchvision import to_torchvision
from maskrcnn.config import Precision
from maskrcnn.data.table import Dataset
from maskrcnn.deploy import winograd
from maskrcnn.deploy.convert import to_onnx, to_openvino
from maskrcnn.deploy.graphs import graphs_of
from maskrcnn.deploy.quantize import quantized, record
from maskrcnn.deploy.whole import check_expressible, whole_graph
from maskrcnn.detection.fit import stack
from maskrcnn.errors import ImageError, UserError, counted
from maskrcnn.evaluation import evaluate
from maskrcnn.evaluation.classes import match_classes
from maskrcnn.files import atomic, unfinished
from maskrcnn.inference.bundle import Graphs, describe, write_bundle
from maskrcnn.inference.precision import MAX_LOSS, change_of_ap, is_allowed
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes import ExportedRuntime, engine_module

CALIBRATION_IMAGES = 48
MEASURED_IMAGES = 100


def export(
    model: Predictor,
    out: str | Path,
    *,
    runtime: Literal["openvino", "onnx", "torchvision"] = "openvino",
    precision: Literal["auto", "fp32", "int8"] = "auto",
    calibrate: Dataset | None = None,
    max_loss: float = MAX_LOSS,
    whole: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write `model` to `out`, which must not exist, and return the measured scores, if any.

    "openvino" and "onnx" make a bundle: a folder that `maskrcnn.load` opens without torch. With `calibrate` it holds
    int8 beside fp32: some of the images set the ranges, others measure box and mask AP of every precision that this
    machine runs. `precision` stores one alone; int8 needs `calibrate`. `whole` adds one graph from pictures to
    detections to a bundle for "onnx" (`whole_graph`). "torchvision" makes a ``.pth`` that torchvision's own model
    loads. Raises `UserError`, also if int8 costs more than `max_loss` points.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"{out} exists; choose another name")
    if whole:
        if runtime != "onnx":
            raise UserError("--whole makes an ONNX graph; it needs --runtime onnx")
        check_expressible(model.conventions)
    if runtime == "torchvision":
        if precision == "int8":
            raise UserError("torchvision's layout is fp32; leave out --precision")
        if calibrate is not None:
            raise UserError("torchvision's layout is fp32, so nothing is calibrated; leave out --calibrate")
        state = to_torchvision(model)
        with atomic(out) as part_file:
            torch.save(state, part_file)
        return {}
    if precision == "int8" and calibrate is None:
        raise UserError("int8 needs images with masks to calibrate on: --calibrate DATA")
    graphs: dict[Precision, Graphs] = {}
    convolutions: dict[str, np.ndarray] | None = None
    scores: dict[str, Any] = {}
    if calibrate is not None:
        for_ranges, for_scores = _divided(model, calibrate)
        plain = _converter(runtime)(graphs_of(model.model))
        measured: dict[Precision, Graphs] = {"fp32": plain}
        if precision != "int8":
            measured |= dict.fromkeys(engine_module(runtime).half_precisions(), plain)
        if precision != "fp32":
            say(f"calibrating on {counted(len(for_ranges), 'image')}")
            measured["int8"] = graphs["int8"] = _quantized(model, plain, runtime, for_ranges)
        scores = _scores(model, measured, runtime, for_scores, say)
        if "int8" in graphs:
            _check_cost(scores, "int8", max_loss)
    if precision != "int8":
        network, convolutions = winograd.split(model.model)
        graphs = {"fp32": _converter(runtime)(network), **graphs}
    part_folder = unfinished(out)
    try:
        part_folder.mkdir(parents=True)
        exported_as = {"runtime": runtime, "scores": scores, "max_loss": max_loss}
        save_bundle(model, part_folder, graphs, convolutions, exported_as, whole=whole)
        os.replace(part_folder, out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part_folder, ignore_errors=True)
    return scores


def save_bundle(
    model: Predictor,
    folder: Path,
    graphs: dict[Precision, Graphs],
    convolutions: dict[str, np.ndarray] | None,
    exported_as: dict[str, Any],
    *,
    whole: bool = False,
) -> None:
    """Write a bundle of converted `graphs` into an empty folder; `exported_as`: runtime, scores and max_loss.

    `whole` adds the whole graph in the first precision.
    """
    pixel_mean = tuple(model.model.pixel_mean.tolist())
    split = convolutions is not None
    description = describe(model, pixel_mean, precisions=list(graphs), winograd=split, **exported_as)
    if whole:
        first = next(iter(graphs))
        parts = to_onnx(graphs_of(model.model)) if split else graphs[first]
        graphs = {**graphs, first: {**graphs[first], "whole": whole_graph(model, parts, description)}}
    write_bundle(folder, description, graphs, convolutions)


def _divided(model: Predictor, data: Dataset) -> tuple[Dataset, Dataset]:
    """Images of `data` to calibrate on, and others to measure on. Raises `UserError`."""
    match_classes(model, data)  # raises before the long work
    order = np.random.default_rng(0).permutation(len(data))
    half = max(min(CALIBRATION_IMAGES, len(data) // 2), 1)
    for_ranges, for_scores = data.take(order[:half]), data.take(order[half : half + MEASURED_IMAGES])
    if len(for_scores) == 0:
        raise UserError(
            f"{data.source} has {counted(len(data), 'image')}; --calibrate needs one for the ranges of int8 and "
            "another to measure on"
        )
    return for_ranges, for_scores


def _quantized(model: Predictor, graphs: Graphs, runtime: str, data: Dataset) -> Graphs:
    """The graphs in int8, calibrated on `data`."""
    fp32 = _in_memory(model, graphs, runtime, "fp32")
    assert isinstance(fp32.runtime, ExportedRuntime)
    return quantized(graphs, record(fp32.runtime, _inputs(fp32, data), fp32.config.predict))


def _scores(
    model: Predictor, graphs: dict[Precision, Graphs], runtime: str, data: Dataset, say: Callable[[str], None]
) -> dict[str, Any]:
    """The number of images of `data`, and box and mask AP in points of 100 by precision."""
    names = list(graphs)
    say(f"measuring {', '.join(names)} on {counted(len(data), 'other image')}")
    scores: dict[str, Any] = {"images": len(data)}
    for name in names:
        predictor = _in_memory(model, graphs[name], runtime, name)
        result = evaluate(predictor, data, say=say if name == names[0] else lambda line: None)
        scores[name] = {f"{kind} AP": _points(result[kind]["AP"]) for kind in ("box", "mask")}
        say(f"{name}: {', '.join(f'{kind} {_text(ap)}' for kind, ap in scores[name].items())}")
    return scores


def _points(ap: float | None) -> float | None:
    """AP in points of 100; None, as without objects, stays undefined."""
    return None if ap is None else 100 * ap


def _text(points: float | None) -> str:
    return "undefined (no objects)" if points is None else f"{points:.2f}"


def _check_cost(scores: dict[str, Any], precision: str, max_loss: float) -> None:
    """Raise `UserError` if `precision` costs more than `max_loss` points."""
    change = change_of_ap(scores, precision)
    if change is not None and not is_allowed(scores, precision, max_loss):
        lost, images = -min(change.values()), counted(scores["images"], "image")
        raise UserError(
            f"{precision} costs {lost:.2f} points of AP on {images}, more than {max_loss:g}; nothing "
            "was written. Allow more with --max-loss, or export with --precision fp32"
        )


def _converter(runtime: str) -> Callable[..., dict[str, Any]]:
    return to_openvino if runtime == "openvino" else to_onnx


def _inputs(predictor: Predictor, data: Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pixels (1, H, W, 3) and windows (1, 4) of every readable image."""
    oriented = predictor.oriented(data.reading.exif)
    for path in data.files:
        try:
            fitted = oriented.prepare(path).fitted
        except ImageError:
            continue
        yield stack([fitted.pixels])[0], np.array([fitted.window])


def _in_memory(model: Predictor, graphs: Graphs, runtime: str, precision: Precision) -> Predictor:
    """A predictor that runs `graphs` without writing them."""
    pixel_mean = tuple(model.model.pixel_mean.tolist())
    settings = model.config.model, model.conventions
    opened = ExportedRuntime(runtime, graphs, *settings, pixel_mean, precision=precision)
    return Predictor(opened, model.config, model.class_ids, model.class_names, reading=model.reading)
