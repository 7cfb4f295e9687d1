"""`export`: a model as a folder or file for another runtime; what int8 costs is measured before it is written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.numpy import save_file

from maskrcnn.checkpoints.bundle import CONVOLUTIONS, DESCRIPTION, describe
from maskrcnn.checkpoints.torchvision import to_torchvision
from maskrcnn.data.batch import stack
from maskrcnn.data.images import ImageError
from maskrcnn.data.table import Dataset
from maskrcnn.deploy.convert import to_onnx, to_openvino
from maskrcnn.deploy.quantize import quantized, record
from maskrcnn.deploy.whole import check_expressible, whole_graph
from maskrcnn.errors import UserError
from maskrcnn.evaluation import evaluate
from maskrcnn.files import atomic, write_text
from maskrcnn.inference.graphs import graphs_of, weights_of
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes import CpuRuntime

CALIBRATION_IMAGES = 48
MEASURED_IMAGES = 100
MOST_LOSS = 1.0
"""Mask or box AP, in points of 100, that int8 may cost before the export is refused."""


def export(
    model: Predictor,
    out: str | Path,
    *,
    runtime: Literal["openvino", "onnx", "torchvision"] = "openvino",
    precision: Literal["fp32", "int8"] = "fp32",
    calibrate: Dataset | None = None,
    most_loss: float = MOST_LOSS,
    whole: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write `model` to `out`, which must not exist; returns the scores that were measured, if any.

    "openvino" and "onnx" make a bundle: a folder that `maskrcnn.load` opens where there is no torch. int8 needs
    `calibrate`: some of its images set the ranges, others measure box and mask AP before and after; a loss of more than
    `most_loss` points is a `UserError`. "torchvision" makes a ``.pth`` that torchvision's own model loads. `whole` puts
    one graph from pictures to detections into a bundle for "onnx" (`whole_graph`).
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
            raise UserError("torchvision's layout is fp32")
        state = to_torchvision(model)
        with atomic(out) as beside:
            torch.save(state, beside)
        return {}
    if precision == "int8" and calibrate is None:
        raise UserError("int8 needs images to calibrate on, with their masks: --calibrate DATA")
    convert = to_openvino if runtime == "openvino" else to_onnx
    graphs = convert(graphs_of(model.model, winograd=precision == "fp32"))
    scores: dict[str, Any] = {}
    if precision == "int8":
        assert calibrate is not None
        graphs, scores = _to_int8(model, graphs, calibrate, runtime, say)
        lost = max(scores["fp32"][kind] - scores["int8"][kind] for kind in ("box AP", "mask AP"))
        if lost > most_loss:
            raise UserError(
                f"int8 costs {lost:.2f} points of AP on {scores['images']} images, more than {most_loss:g}; nothing "
                "was written. --most-loss allows more, --precision fp32 loses nothing"
            )
    beside = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        beside.mkdir(parents=True)
        write_bundle(model, graphs, beside, runtime=runtime, precision=precision, scores=scores, whole=whole)
        os.replace(beside, out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return scores


def write_bundle(
    model: Predictor,
    graphs: dict[str, Any],
    folder: Path,
    *,
    runtime: str,
    precision: str,
    scores: dict[str, Any],
    whole: bool = False,
) -> None:
    """Put a bundle of `graphs` into an empty folder; those of fp32 are without the convolutions of `weights_of`."""
    network, winograd = model.model, precision == "fp32"
    mean = tuple(network.pixel_mean.tolist())
    text = describe(model, mean, runtime=runtime, precision=precision, winograd=winograd, scores=scores)
    if whole:
        parts = to_onnx(graphs_of(network)) if winograd else graphs
        graphs = {**graphs, "whole": whole_graph(model, parts, text)}
    _save(graphs, folder, runtime)
    if winograd:
        save_file(weights_of(network), folder / CONVOLUTIONS)
    write_text(json.dumps(text, indent=1), folder / DESCRIPTION)


def _to_int8(
    model: Predictor,
    graphs: dict[str, Any],
    data: Dataset,
    runtime: str,
    say: Callable[[str], None],
) -> tuple[dict[str, Any], dict[str, Any]]:
    order = np.random.default_rng(0).permutation(len(data))
    half = max(min(CALIBRATION_IMAGES, len(data) // 2), 1)
    for_ranges, for_scores = data.take(order[:half]), data.take(order[half : half + MEASURED_IMAGES])
    if len(for_scores) == 0:
        raise UserError(f"{data.source} has {len(data)} image; int8 needs some to calibrate and others to measure on")
    before = _predictor(model, graphs, runtime)
    say(f"calibrating on {len(for_ranges)} images")
    assert isinstance(before.runtime, CpuRuntime)
    seen = record(before.runtime, _inputs(before, for_ranges), before.config.predict)
    small = quantized(graphs, seen)
    say(f"measuring fp32 and int8 on {len(for_scores)} other images")
    scores: dict[str, Any] = {"images": len(for_scores)}
    for name, predictor in (("fp32", before), ("int8", _predictor(model, small, runtime))):
        found = evaluate(predictor, for_scores)
        scores[name] = {f"{kind} AP": 100 * (found[kind]["AP"] or 0.0) for kind in ("box", "mask")}
        say(f"{name}: box AP {scores[name]['box AP']:.2f}, mask AP {scores[name]['mask AP']:.2f}")
    return small, scores


def _inputs(predictor: Predictor, data: Dataset) -> Any:
    for path in data.files:
        try:
            fitted = predictor._prepare(path).fitted
        except ImageError:
            continue
        yield stack([fitted.pixels])[0], np.array([fitted.window])


def _predictor(model: Predictor, graphs: dict[str, Any], runtime: str) -> Predictor:
    opened: CpuRuntime
    mean = tuple(model.model.pixel_mean.tolist())
    if runtime == "openvino":
        from maskrcnn.inference.runtimes.openvino import OpenVinoRuntime

        opened = OpenVinoRuntime(graphs, model.config.model, model.conventions, mean)
    else:
        import onnxruntime

        from maskrcnn.inference.runtimes.onnx import OnnxRuntime

        sessions = {
            name: onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
            for name, graph in graphs.items()
        }
        opened = OnnxRuntime(sessions, model.config.model, model.conventions, mean)
    return Predictor(opened, model.config, model.class_ids, model.class_names)


def _save(graphs: dict[str, Any], folder: Path, runtime: str) -> None:
    for name, graph in graphs.items():
        if runtime == "openvino":
            import openvino as ov

            ov.save_model(graph, folder / f"{name}.xml", compress_to_fp16=False)
        else:
            import onnx

            onnx.save(graph, folder / f"{name}.onnx")
