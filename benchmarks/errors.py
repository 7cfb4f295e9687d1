"""Why a model misses objects and finds false ones, and what other settings find and cost on two halves of a data set.

    python benchmarks/errors.py DATA [--images FOLDER] [--ids FILE] [--model nuclei] [--json]

Prints three tables: missed objects by cause, false detections by cause, and objects found, false detections and the
Kaggle metric with each setting alone. Images of even index are for choosing a setting, those of odd index for
reporting what it gives.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import maskrcnn
from maskrcnn.evaluation import Evaluation, examine, score
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inspection.diagnosis import diagnose
from maskrcnn.inspection.trials import count, setting_of, with_setting

THREADS = 2

THRESHOLDS = (0.6, 0.5, 0.325)
"""Score thresholds to try. An evaluation holds the detections of all of them (`evaluation.MIN_SCORE`)."""

STEPS = {"nms_threshold": 0.1, "proposal_nms_threshold": 0.1}
"""Other settings to try, and by how much they are raised."""


def halves(evaluation: Evaluation, threshold: float) -> dict[str, dict[str, float]]:
    """Objects found, false detections and Kaggle's score of the images of even and of odd index."""
    result = {}
    for name, start in (("even", 0), ("odd", 1)):
        images = np.arange(start, len(evaluation.data), 2)
        data, detections = evaluation.data.take(images), [evaluation.detections[i] for i in images]
        n_found, n_false = count(data, detections, threshold)
        kaggle = score(data, detections, threshold)["kaggle"]["mean"]
        result[name] = {"found": n_found, "false": n_false, "kaggle": round(kaggle, 4)}
    return result


def settings(model: Predictor, evaluation: Evaluation) -> dict[str, dict[str, dict[str, float]]]:
    """`halves` as the model is, and with each setting alone."""
    threshold = model.config.predict.score_threshold
    rows = {f"score_threshold {threshold:g}, as it is": halves(evaluation, threshold)}
    rows |= {f"score_threshold {value:g}": halves(evaluation, value) for value in THRESHOLDS if value < threshold}
    for name, step in STEPS.items():
        value = round(setting_of(model, name) + step, 3)
        changed = examine(with_setting(model, name, value), evaluation.data, say=lambda _: None)
        rows[f"{name} {value:g}"] = halves(changed, threshold)
    return rows


def counted(title: str, counts: dict[str, int]) -> list[Sequence[Any]]:
    return [(title, "number"), *((cause, n) for cause, n in counts.items() if n)]


def cell(value: Any) -> str:
    """Format a count, a score or a name."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if isinstance(value, float) else value


def show(rows: Sequence[Sequence[Any]]) -> None:
    """Print rows as a Markdown table; the first is the head."""
    lines = [f"| {' | '.join(map(cell, row))} |" for row in rows]
    print("\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]), end="\n\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--ids", type=Path, help="file with the names of the images, one on each line")
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    data = maskrcnn.open_dataset(args.data, images=args.images, say=lambda _: None)
    if args.ids is not None:
        data = data.named(args.ids.read_text("utf-8").split())
    model = maskrcnn.load(args.model, device="cpu")
    evaluation = examine(model, data, say=lambda _: None)
    began = time.perf_counter()
    diagnosis = diagnose(model, evaluation)
    seconds = time.perf_counter() - began
    by_setting = settings(model, evaluation)
    if args.json:
        causes = {"missed": diagnosis.missed_counts, "false": diagnosis.false_counts}
        print(json.dumps({"images": len(evaluation.data), "seconds": seconds, **causes, "settings": by_setting}))
        return
    print(
        f"{len(evaluation.data)} images, {evaluation.data.without_crowd.n_instances:,} objects: {diagnosis.n_missed:,} "
        f"missed, {diagnosis.n_false:,} false detections. Predicted in {evaluation.scores['inference_seconds']:.0f} s; "
        f"explained, and settings tried, in {seconds:.0f} s more\n"
    )
    show(counted("missed because of", diagnosis.missed_counts))
    show(counted("false because of", diagnosis.false_counts))
    head = ("setting", *(f"{half}: {key}" for half in ("even", "odd") for key in ("found", "false", "kaggle")))
    show([head, *((name, *row["even"].values(), *row["odd"].values()) for name, row in by_setting.items())])


if __name__ == "__main__":
    main()
