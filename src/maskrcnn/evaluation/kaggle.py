"""Metric of the 2018 Data Science Bowl (Kaggle): mean over IoU thresholds and images of ``TP / (TP + FP + FN)``."""

from __future__ import annotations

from typing import Any

import numpy as np

from maskrcnn.rle import RLE, iou_matrix
from maskrcnn.structures import Detections

THRESHOLDS = np.arange(0.5, 1.0, 0.05)


def image_scores(
    truth: list[RLE], truth_classes: list[Any], detections: Detections, shares_in_crowds: np.ndarray | None = None
) -> np.ndarray:
    """Return ``TP / (TP + FP + FN)`` of one image at IoU 0.5, 0.55, ... 0.95, (10,); 1 if there is nothing to match.

    A detection is a true positive if its mask IoU with an instance of its class exceeds the threshold. Matching is
    one-to-one, in order of decreasing IoU. Any other detection is a false positive, unless more of it than the
    threshold lies in a crowd region: ``shares_in_crowds`` (D,), by default 0.
    """
    shares = np.zeros(len(detections)) if shares_in_crowds is None else shares_in_crowds
    # (detections, instances)
    iou = iou_matrix(detections.rles, truth) if truth and len(detections) else np.zeros((len(detections), len(truth)))
    same_class = np.array([[str(a) == str(b) for b in truth_classes] for a in detections.class_ids], bool)
    matched_iou = _match_greedily(iou * same_class.reshape(iou.shape))
    is_true = matched_iou[:, None] > THRESHOLDS[None] + 1e-12  # (detections, 10)
    n_true, n_false = is_true.sum(0), (~is_true & (shares[:, None] <= THRESHOLDS[None] + 1e-12)).sum(0)
    n_counted = n_false + len(truth)
    return np.where(n_counted > 0, n_true / np.maximum(n_counted, 1), 1.0)


def _match_greedily(iou: np.ndarray) -> np.ndarray:
    """Match rows and columns one-to-one, highest IoU first. Return each row's IoU, 0 without one above the lowest."""
    rows, columns = np.nonzero(iou > THRESHOLDS[0])
    matched, free_column = np.zeros(iou.shape[0]), np.ones(iou.shape[1], bool)
    for k in np.argsort(-iou[rows, columns], kind="stable"):
        if matched[rows[k]] == 0 and free_column[columns[k]]:
            free_column[columns[k]] = False
            matched[rows[k]] = iou[rows[k], columns[k]]
    return matched
