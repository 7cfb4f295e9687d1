"""COCO's scores for boxes and masks, by faster-coco-eval, with as many detections an image as the data needs."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from maskrcnn.data.table import Dataset
from maskrcnn.structures import Detections

AREAS = {"all": "", "small": "s", "medium": "m", "large": "l"}
USUAL_DETECTIONS = 100


def coco_scores(data: Dataset, found: list[Detections]) -> dict[str, Any]:
    """``{"box": {...}, "mask": {...}, "max_detections": n}``; None for what no instance defines.

    COCO scores the best 100 detections of an image. Where an image holds more instances, or more were returned, the
    limit is raised to that number, since an AP that cannot reach 1 says nothing.
    """
    most = int(max(USUAL_DETECTIONS, data.counts.max(initial=0), max((len(d) for d in found), default=0)))
    truth, results = _truth(data), _results(data, found)
    scores: dict[str, Any] = {"max_detections": most}
    for key, kind in (("box", "bbox"), ("mask", "segm")):
        scores[key] = _summary(_evaluate(truth, results, kind, most), data)
    return scores


def _truth(data: Dataset) -> dict[str, Any]:
    boxes, areas = data.boxes, data.masks.areas
    annotations = []
    for i in range(len(data)):
        where = data.instances(i)
        for k, rle in zip(range(where.start, where.stop), data.rles(i), strict=True):
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


def _results(data: Dataset, found: list[Detections]) -> list[dict[str, Any]]:
    label_of = {str(cid): k + 1 for k, cid in enumerate(data.class_ids)}
    results = []
    for i, detections in enumerate(found):
        for k, entry in enumerate(detections.to_coco(i)):
            label = label_of.get(str(entry["category_id"]))
            if label is not None:
                box = detections.boxes[k].astype(float)
                bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                results.append({**entry, "bbox": bbox, "score": float(detections.scores[k]), "category_id": label})
    return results


def _evaluate(truth: dict[str, Any], results: list[dict[str, Any]], kind: str, most: int) -> Any:
    from faster_coco_eval import COCO, COCOeval_faster

    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO(truth)
        entries = [{k: v for k, v in r.items() if k != ("bbox" if kind == "segm" else "segmentation")} for r in results]
        evaluation = COCOeval_faster(
            ground, ground.loadRes(entries) if entries else COCO({**truth, "annotations": []}), kind
        )
        evaluation.params.maxDets = [1, 10, most]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _summary(evaluation: Any, data: Dataset) -> dict[str, Any]:
    """Means over the accumulated tables; -1 marks what nothing defines."""
    # precision: (IoU thresholds, recall points, classes, areas, limits); recall: the same without points
    precision, recall = evaluation.eval["precision"][..., -1], evaluation.eval["recall"][..., -1]
    thresholds = np.asarray(evaluation.params.iouThrs)
    at = {t: int(np.argmin(np.abs(thresholds - t))) for t in (0.5, 0.75)}
    scores = {
        "AP": _mean(precision[..., 0]),
        "AP50": _mean(precision[at[0.5], ..., 0]),
        "AP75": _mean(precision[at[0.75], ..., 0]),
    }
    for k, suffix in enumerate(AREAS.values()):
        if suffix:
            scores[f"AP{suffix}"] = _mean(precision[..., k])
    scores["AR"] = _mean(recall[..., 0])
    per_class = {
        name: {
            "AP": _mean(precision[:, :, c, 0]),
            "AP50": _mean(precision[at[0.5], :, c, 0]),
            "AP75": _mean(precision[at[0.75], :, c, 0]),
            "AR": _mean(recall[:, c, 0]),
        }
        for c, name in enumerate(data.class_names)
    }
    return {**scores, "per_class": per_class}


def _mean(values: np.ndarray) -> float | None:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None
