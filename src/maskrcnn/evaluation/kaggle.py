"""Metric of the 2018 Data Science Bowl (Kaggle): mean over IoU thresholds and images of ``TP / (TP + FP + FN)``."""

from __future__ import annotations

from typing import Any

import numpy as np

from maskrcnn.rle import RLE, iou_matrix
from maskrcnn.structures import Detections

THRESHOLDS = np.arange(0.5, 1.0, 0.05)


def image_scores(truth: list[RLE], truth_classes: list[Any], detections: Detections) -> np.ndarray:
    """Return ``TP / (TP + FP + FN)`` of one image at IoU 0.5, 0.55, ... 0.95, (10,); 1 if there is nothing to match.

    A detection is a true positive if its mask IoU with an instance of its class exceeds the threshold. Matching is
    one-to-one, in order of decreasing IoU.
    """
    if not truth and not len(detections):
        return np.ones(len(THRESHOLDS))
    # (detections, instances)
    iou = iou_matrix(detections.rles, truth) if truth and len(detections) else np.zeros((len(detections), len(truth)))
    same_class = np.array([[str(a) == str(b) for b in truth_classes] for a in detections.class_ids], bool)
    matched_iou = _match_greedily(iou * same_class.reshape(iou.shape))
    true_positives = (matched_iou[:, None] > THRESHOLDS[None] + 1e-12).sum(0)
    return true_positives / (len(detections) + len(truth) - true_positives)


def _match_greedily(iou: np.ndarray) -> np.ndarray:
    """Match rows and columns one-to-one, highest IoU first. Return the matched IoUs above the lowest threshold."""
    rows, columns = np.nonzero(iou > THRESHOLDS[0])
    free_row, free_column = np.ones(iou.shape[0], bool), np.ones(iou.shape[1], bool)
    matched = []
    for k in np.argsort(-iou[rows, columns], kind="stable"):
        if free_row[rows[k]] and free_column[columns[k]]:
            free_row[rows[k]] = free_column[columns[k]] = False
            matched.append(iou[rows[k], columns[k]])
    return np.array(matched, np.float64)
