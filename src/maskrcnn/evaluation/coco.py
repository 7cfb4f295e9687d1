"""COCO scores of boxes and masks, computed by faster-coco-eval with a detection limit that fits the data."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from maskrcnn.data.table import Dataset
from maskrcnn.structures import Detections

COCO_MAX_DETECTIONS = 100
"""COCO's limit of scored detections per image."""


def coco_scores(data: Dataset, detections: list[Detections]) -> dict[str, Any]:
    """Return ``{"box": {...}, "mask": {...}, "max_detections": n}``; a score that no instance defines is None.

    COCO's limit rises to the largest number of instances or detections of any image. AP could otherwise not reach 1.
    """
    max_detections = int(max(COCO_MAX_DETECTIONS, data.counts.max(initial=0), *map(len, detections)))
    truth, results = _truth(data), _results(data, detections)
    scores: dict[str, Any] = {"max_detections": max_detections}
    for key, kind in (("box", "bbox"), ("mask", "segm")):
        scores[key] = _summary(_evaluate(truth, results, kind, max_detections), data)
    return scores


def _truth(data: Dataset) -> dict[str, Any]:
    """Return the ground truth in COCO's annotation format; category ids are 1-based labels."""
    boxes, areas = data.boxes, data.masks.areas
    annotations = []
    for i in range(len(data)):
        instances = data.instances(i)
        for k, rle in zip(range(instances.start, instances.stop), data.rles(i), strict=True):
            x1, y1, x2, y2 = boxes[k].tolist()
            annotations.append(
                {
                    "id": k + 1,
                    "image_id": i,
                    "category_id": int(data.labels[k]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": int(areas[k]),
                    "iscrowd": 0,
                    "segmentation": rle.to_coco(),
                }
            )
    return {
        "info": {},
        "images": [{"id": i, "height": data.hw(i)[0], "width": data.hw(i)[1]} for i in range(len(data))],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(data.class_names)],
        "annotations": annotations,
    }


def _results(data: Dataset, detections: list[Detections]) -> list[dict[str, Any]]:
    """Return the detections in COCO's result format; drop classes that the data lacks."""
    label_of = {str(cid): k + 1 for k, cid in enumerate(data.class_ids)}
    results = []
    for i, dets in enumerate(detections):
        for entry in dets.to_coco(i):
            label = label_of.get(str(entry["category_id"]))
            if label is not None:
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
    return {**ap(precision[..., 0]), **by_area, "AR": _mean(recall[..., 0]), "per_class": per_class}


def _mean(values: np.ndarray) -> float | None:
    """Average the defined entries; -1 marks an undefined one."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None
