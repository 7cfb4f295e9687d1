"""`export`: write a model for another runtime. The cost of int8 is measured before anything is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from maskrcnn.checkpoints.torchvision import to_torchvision
from maskrcnn.data.table import Dataset
from maskrcnn.deploy import winograd
from maskrcnn.deploy.convert import to_onnx, to_openvino
from maskrcnn.deploy.graphs import graphs_of
from maskrcnn.deploy.quantize import quantized, record
from maskrcnn.deploy.whole import check_expressible, whole_graph
from maskrcnn.detection.fit import stack
from maskrcnn.errors import ImageError, UserError
from maskrcnn.evaluation import evaluate
from maskrcnn.evaluation.classes import match_classes
from maskrcnn.files import atomic, unfinished
from maskrcnn.inference.bundle import describe, write_bundle
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes import ExportedRuntime

CALIBRATION_IMAGES = 48
MEASURED_IMAGES = 100
MAX_LOSS = 1.0
"""Mask or box AP, in points of 100, that int8 may cost before the export is refused."""


def export(
    model: Predictor,
    out: str | Path,
    *,
    runtime: Literal["openvino", "onnx", "torchvision"] = "openvino",
    precision: Literal["fp32", "int8"] = "fp32",
    calibrate: Dataset | None = None,
    most_loss: float = MAX_LOSS,
    whole: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write `model` to `out`, which must not exist, and return the measured scores, if any.

    "openvino" and "onnx" make a bundle: a folder that `maskrcnn.load` opens without torch. int8 needs `calibrate`: some
    of its images set the ranges, others measure box and mask AP before and after. `whole` adds one graph from pictures
    to detections to a bundle for "onnx" (`whole_graph`). "torchvision" makes a ``.pth`` that torchvision's own model
    loads. Raises `UserError`, also if int8 costs more than `most_loss` points.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"{out} exists; choose another name")
    if whole:
        if runtime != "onnx":
            raise UserError("--whole makes an ONNX graph; it needs --runtime onnx")
        check_expressible(model.conventions)
    if runtime == "torchvision":
        if precision != "fp32":
            raise UserError("torchvision's layout is fp32; leave out --precision")
        state = to_torchvision(model)
        with atomic(out) as part_file:
            torch.save(state, part_file)
        return {}
    convolutions: dict[str, np.ndarray] | None = None
    scores: dict[str, Any] = {}
    if precision != "int8":
        network, convolutions = winograd.split(model.model)
        graphs = _converter(runtime)(network)
    elif calibrate is None:
        raise UserError("int8 needs images with masks to calibrate on: --calibrate DATA")
    else:
        graphs, scores = _int8(model, runtime, calibrate, most_loss, say)
    part_folder = unfinished(out)
    try:
        part_folder.mkdir(parents=True)
        exported_as = {"runtime": runtime, "precision": precision, "scores": scores}
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
    graphs: dict[str, Any],
    convolutions: dict[str, np.ndarray] | None,
    exported_as: dict[str, Any],
    *,
    whole: bool = False,
) -> None:
    """Write a bundle of converted `graphs` into an empty folder; `exported_as`: runtime, precision and scores."""
    pixel_mean = tuple(model.model.pixel_mean.tolist())
    split = convolutions is not None
    description = describe(model, pixel_mean, winograd=split, **exported_as)
    if whole:
        parts = to_onnx(graphs_of(model.model)) if split else graphs
        graphs = {**graphs, "whole": whole_graph(model, parts, description)}
    write_bundle(folder, description, graphs, convolutions)


def _int8(
    model: Predictor, runtime: str, data: Dataset, most_loss: float, say: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Quantised graphs by name, and their scores beside those of fp32."""
    match_classes(model, data)  # raises before the long work
    order = np.random.default_rng(0).permutation(len(data))
    half = max(min(CALIBRATION_IMAGES, len(data) // 2), 1)
    for_ranges, for_scores = data.take(order[:half]), data.take(order[half : half + MEASURED_IMAGES])
    if len(for_scores) == 0:
        raise UserError(f"{data.source} has {len(data)} image; int8 needs one to calibrate and one to measure on")
    graphs = _converter(runtime)(graphs_of(model.model))
    fp32 = _in_memory(model, graphs, runtime)
    say(f"calibrating on {len(for_ranges)} images")
    assert isinstance(fp32.runtime, ExportedRuntime)
    samples = record(fp32.runtime, _inputs(fp32, for_ranges), fp32.config.predict)
    quantized_graphs = quantized(graphs, samples)
    say(f"measuring fp32 and int8 on {len(for_scores)} other images")
    scores: dict[str, Any] = {"images": len(for_scores)}
    for name, predictor in (("fp32", fp32), ("int8", _in_memory(model, quantized_graphs, runtime))):
        result = evaluate(predictor, for_scores, say=say if name == "fp32" else lambda line: None)
        scores[name] = {f"{kind} AP": 100 * (result[kind]["AP"] or 0.0) for kind in ("box", "mask")}
        say(f"{name}: box AP {scores[name]['box AP']:.2f}, mask AP {scores[name]['mask AP']:.2f}")
    lost = max(scores["fp32"][kind] - scores["int8"][kind] for kind in ("box AP", "mask AP"))
    if lost > most_loss:
        raise UserError(
            f"int8 costs {lost:.2f} points of AP on {scores['images']} images, more than {most_loss:g}; nothing was "
            "written. Allow more with --most-loss, or export with --precision fp32"
        )
    return quantized_graphs, scores


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


def _in_memory(model: Predictor, graphs: dict[str, Any], runtime: str) -> Predictor:
    """A predictor that runs `graphs` without writing them."""
    pixel_mean = tuple(model.model.pixel_mean.tolist())
    opened = ExportedRuntime(runtime, graphs, model.config.model, model.conventions, pixel_mean)
    return Predictor(opened, model.config, model.class_ids, model.class_names, reading=model.reading)
