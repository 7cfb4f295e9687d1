"""COCO's and LVIS's scores of boxes and masks, computed by faster-coco-eval with a detection limit that fits the data.

LVIS differs in three ways, by its toolkit (github.com/lvis-dataset/lvis-api, ``lvis/eval.py``). The best 300 detections
of an image are scored. A detection is left out if its class is neither annotated in its image nor known to be absent. A
detection is not false if its class was not annotated exhaustively. A crowd region over the image has both effects.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from maskrcnn.data.federated import FREQUENCIES
from maskrcnn.data.table import Dataset
from maskrcnn.evaluation.crowds import incomplete_labels, labels_of
from maskrcnn.rle import RLE
from maskrcnn.structures import Detections

COCO_MAX_DETECTIONS = 100
"""COCO's limit of scored detections per image."""

LVIS_MAX_DETECTIONS = 300
"""LVIS's limit of scored detections per image, of all classes together."""


def coco_scores(data: Dataset, detections: list[Detections]) -> dict[str, Any]:
    """Return ``{"box": {...}, "mask": {...}, "max_detections": n}``; a score that no instance defines is None.

    COCO's limit rises to the largest number of instances or detections of any image. AP could otherwise not reach 1.
    LVIS's limit stays, and its scores have "APr", "APc" and "APf" too: the AP of rare, common and frequent classes.
    """
    if data.federated is None:
        max_detections = int(max(COCO_MAX_DETECTIONS, data.counts.max(initial=0), *map(len, detections)))
    else:
        max_detections = LVIS_MAX_DETECTIONS
        detections = [dets[np.argsort(-dets.scores, kind="stable")[:max_detections]] for dets in detections]
    truth, results = _truth(data, detections), _results(data, detections)
    scores: dict[str, Any] = {"max_detections": max_detections}
    for key, kind in (("box", "bbox"), ("mask", "segm")):
        scores[key] = _summary(_evaluate(truth, results, kind, max_detections), data)
    return scores


def _truth(data: Dataset, detections: list[Detections]) -> dict[str, Any]:
    """Return the ground truth in COCO's annotation format; category ids are 1-based labels."""
    boxes, areas = data.boxes.tolist(), data.masks.areas.tolist()
    annotations: list[dict[str, Any]] = []

    def add(i: int, label: int, rle: RLE, box: Sequence[int], area: int, is_crowd: bool) -> None:
        x1, y1, x2, y2 = box
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": i,
                "category_id": label,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": area,
                "iscrowd": int(is_crowd),
                "segmentation": rle.to_coco(),
            }
        )

    for i, dets in enumerate(detections):
        for k, rle in enumerate(data.rles(i), data.instances(i).start):
            is_crowd = data.crowd is not None and bool(data.crowd[k])
            add(i, int(data.labels[k]), rle, boxes[k], areas[k], is_crowd)
        h, w = data.hw(i)
        for label in sorted(incomplete_labels(data, i, labels_of(data, dets))):
            add(i, label, RLE(np.array([[0, h * w]]), (h, w)), (0, 0, w, h), h * w, is_crowd=True)
    return {
        "info": {},
        "images": [{"id": i, "height": data.hw(i)[0], "width": data.hw(i)[1]} for i in range(len(data))],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(data.class_names)],
        "annotations": annotations,
    }


def _results(data: Dataset, detections: list[Detections]) -> list[dict[str, Any]]:
    """Return the detections in COCO's result format; drop classes that the data lacks."""
    results = []
    for i, dets in enumerate(detections):
        for entry, label in zip(dets.to_coco(i), labels_of(data, dets).tolist(), strict=True):
            if label:
                results.append({**entry, "category_id": label})
    return results


def _evaluate(truth: dict[str, Any], results: list[dict[str, Any]], kind: str, max_detections: int) -> Any:
    from faster_coco_eval import COCO, COCOeval_faster

    with contextlib.redirect_stdout(io.StringIO()):
        coco_truth = COCO(truth)
        entries = [{k: v for k, v in r.items() if k != ("bbox" if kind == "segm" else "segmentation")} for r in results]
        evaluation = COCOeval_faster(
            coco_truth, coco_truth.loadRes(entries) if entries else COCO({**truth, "annotations": []}), kind
        )
        evaluation.params.maxDets = [1, 10, max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _summary(evaluation: Any, data: Dataset) -> dict[str, Any]:
    """Average the accumulated tables."""
    # precision: (IoU thresholds, recall points, classes, areas, detection limits); recall has no recall points
    precision, recall = evaluation.eval["precision"][..., -1], evaluation.eval["recall"][..., -1]
    thresholds = np.asarray(evaluation.params.iouThrs)
    at_50, at_75 = (int(np.argmin(np.abs(thresholds - t))) for t in (0.5, 0.75))

    def ap(values: np.ndarray) -> dict[str, Any]:
        return {"AP": _mean(values), "AP50": _mean(values[at_50]), "AP75": _mean(values[at_75])}

    by_area = {f"AP{size}": _mean(precision[..., k]) for k, size in enumerate("sml", 1)}  # area 0: all sizes
    per_class = {
        name: {**ap(precision[:, :, c, 0]), "AR": _mean(recall[:, c, 0])} for c, name in enumerate(data.class_names)
    }
    by_frequency = {}
    if data.federated is not None and any(data.federated.frequencies):
        groups = np.array(data.federated.frequencies)
        by_frequency = {f"AP{group}": _mean(precision[:, :, groups == group, 0]) for group in FREQUENCIES}
    return {
        **ap(precision[..., 0]),
        **by_area,
        **by_frequency,
        "AR": _mean(recall[..., 0]),
        "per_threshold": [_mean(at_threshold) for at_threshold in precision[..., 0]],
        "per_class": per_class,
    }


def _mean(values: np.ndarray) -> float | None:
    """Average the defined entries; -1 marks an undefined one."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None
