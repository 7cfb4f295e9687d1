"""What the tests against other programs compare with, and how detections are matched."""

from __future__ import annotations

import numpy as np

from maskrcnn import RLE, Detections, iou_matrix
from maskrcnn.data.batch import stack
from maskrcnn.inference.predictor import Predictor
from maskrcnn.model.mask_rcnn import Stages


def network_stages(predictor: Predictor, image: np.ndarray) -> Stages:
    """What each step makes of an image, in torch, up to the box head."""
    fitted = predictor._prepare(image).fitted
    pixels, _ = stack([fitted.pixels])
    return predictor.runtime.stages(pixels, np.array([fitted.window]), predictor.config.predict)[0]


def same_detections(
    found: Detections, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, rles: list[RLE], *, off: set[int]
) -> dict[str, float]:
    """Pair each of ours with the nearest of theirs of its class, one to one; the largest differences.

    Neighbours of equal score can swap by rounding, so order is not compared. `off` are theirs whose masks hang on a
    rounding in the reference itself.
    """
    assert len(found) == len(boxes) > 0
    distance = np.abs(found.boxes[:, None] - boxes[None]).max(2).astype(float)
    distance[found.class_ids[:, None] != classes[None]] = np.inf
    partner = distance.argmin(1)
    assert sorted(partner) == list(range(len(boxes)))
    ious = [
        float(iou_matrix([mine], [rles[k]])[0, 0])
        for mine, k in zip(found.rles, partner, strict=True)
        if k not in off and (mine.area or rles[k].area)
    ]
    return {
        "box": float(distance.min(1).max()),
        "score": float(np.abs(found.scores - scores[partner]).max()),
        "mask iou": min(ious),
    }


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference in units of the reference's standard deviation."""
    return float(np.abs(ours - theirs).max() / theirs.std())
