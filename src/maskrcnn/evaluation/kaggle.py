"""The metric of the 2018 Data Science Bowl: mean over IoU thresholds and images of ``TP / (TP + FP + FN)``."""

from __future__ import annotations

from typing import Any

import numpy as np

from maskrcnn.rle import RLE, iou_matrix
from maskrcnn.structures import Detections

THRESHOLDS = np.arange(0.5, 1.0, 0.05)


def image_scores(truth: list[RLE], truth_classes: list[Any], found: Detections) -> np.ndarray:
    """(10,) ``TP / (TP + FP + FN)`` of one image at IoU 0.5, 0.55, ... 0.95; 1 where both are empty.

    A detection is a true positive when it overlaps an instance of its class by more than the threshold. Each instance
    and each detection is matched once: the pairs of highest overlap first.
    """
    if not truth and not len(found):
        return np.ones(len(THRESHOLDS))
    overlap = iou_matrix(found.rles, truth) if truth and len(found) else np.zeros((len(found), len(truth)))
    same = np.array([[str(a) == str(b) for b in truth_classes] for a in found.class_ids], bool)
    overlap = overlap * same.reshape(overlap.shape)
    matched = _greedy_pairs(overlap)
    true_positives = (matched[:, None] > THRESHOLDS[None] + 1e-12).sum(0)
    return true_positives / (len(found) + len(truth) - true_positives)


def _greedy_pairs(overlap: np.ndarray) -> np.ndarray:
    """Overlaps of one-to-one pairs, taken from the highest down; only those that can reach a threshold matter."""
    rows, columns = np.nonzero(overlap > THRESHOLDS[0])
    free_row, free_column = np.ones(overlap.shape[0], bool), np.ones(overlap.shape[1], bool)
    values = []
    for k in np.argsort(-overlap[rows, columns], kind="stable"):
        if free_row[rows[k]] and free_column[columns[k]]:
            free_row[rows[k]] = free_column[columns[k]] = False
            values.append(overlap[rows[k], columns[k]])
    return np.array(values, np.float64)
