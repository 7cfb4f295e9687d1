"""TIDE on masks: classify every detection as correct or as a kind of error, and measure the AP that each kind costs.

The kinds follow Bolya, Foley, Hays, Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV
2020. A detection is correct if COCO's matching at mask IoU 0.5 assigns it an instance of its class. Any other detection
is of the first kind that applies:

    bad box, bad mask   highest mask IoU with its class is in [0.1, 0.5): TIDE's "localisation". The *mask* is bad if
                        the box IoU with that instance is at least 0.5, since the location is right; else the *box* is.
    wrong class         mask IoU with an instance of another class is at least 0.5
    duplicate           mask IoU with an instance of its class is at least 0.5, but a better detection has taken it
    background          mask IoU with every instance is at most 0.1
    class and place     mask IoU is between 0.1 and 0.5, with instances of other classes only

A detection that is not correct and lies by half or more in a crowd region of its class is not judged.

An instance is *missed* if no detection found it, and no detection with a wrong class, bad box or bad mask points to it.

    D detections, T instances; within one image: N detections, G instances
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskrcnn.data.table import Dataset
from maskrcnn.evaluation.crowds import labels_of, shares_in_crowds
from maskrcnn.rle import iou_matrix
from maskrcnn.structures import Detections

FOREGROUND, BACKGROUND = 0.5, 0.1
"""TIDE's IoU thresholds: at least 0.5 matches an instance, at most 0.1 is background."""

KINDS = ("correct", "wrong class", "bad box", "bad mask", "class and place", "duplicate", "background")
MISSED = "missed"
ERRORS = (*KINDS[1:], MISSED)
CORRECT, WRONG_CLASS, BAD_BOX, BAD_MASK, CLASS_AND_PLACE, DUPLICATE, ON_BACKGROUND = range(len(KINDS))
FIXABLE = (WRONG_CLASS, BAD_BOX, BAD_MASK)
"""Fixing one of these makes the detection correct if nothing found its instance. The others can only be removed."""

RECALLS = np.linspace(0, 1, 101)
"""Recall points at which COCO samples the precision."""


@dataclass(frozen=True)
class Judgement:
    """Columns of detections (D,), by image and then decreasing score, and of instances (T,), in the data's order.

    `images` are image indices, `rows` rows in the image's `Detections`, `labels` 1-based as in the data, and `kinds`
    indices into `KINDS`. `truth` is the index of the instance that the detection found or points to, else -1.
    `found_at` (T,) is the score of the detection that found the instance, else -1.
    """

    images: np.ndarray
    rows: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    kinds: np.ndarray
    truth: np.ndarray
    truth_images: np.ndarray
    truth_labels: np.ndarray
    found_at: np.ndarray

    @property
    def hits(self) -> np.ndarray:
        """Whether each detection is correct, (D,) bool."""
        return self.kinds == CORRECT

    def missed(self, score_threshold: float = 0.0) -> np.ndarray:
        """Whether each instance is missed by the detections that score at least `score_threshold`, (T,) bool."""
        missed = self.found_at < score_threshold
        missed[self.truth[np.isin(self.kinds, FIXABLE) & (self.scores >= score_threshold)]] = False
        return missed

    def counts(self, score_threshold: float = 0.0) -> dict[str, int]:
        """Count detections that score at least `score_threshold` by kind, and missed instances."""
        kinds = np.bincount(self.kinds[self.scores >= score_threshold], minlength=len(KINDS))
        return dict(zip(KINDS, kinds.tolist(), strict=True)) | {MISSED: int(self.missed(score_threshold).sum())}

    def average_precision(self, fixed: Sequence[str] = ()) -> float | None:
        """Return COCO's mask AP at IoU 0.5 after fixing the `ERRORS` named in `fixed`; None without instances.

        As in TIDE, fixing "missed" drops the missed instances from the ground truth. Of the detections of fixable kinds
        that point to an instance nothing found, the best one becomes correct. All others of a fixed kind are removed.
        """
        hits, labels = self.hits, self.labels.copy()
        removed = np.isin(self.kinds, [k for k, name in enumerate(KINDS) if name in fixed])
        candidates = np.flatnonzero(removed & np.isin(self.kinds, FIXABLE))
        candidates = candidates[self.found_at[self.truth[candidates]] < 0]
        candidates = candidates[np.argsort(-self.scores[candidates], kind="stable")]
        winners = candidates[np.unique(self.truth[candidates], return_index=True)[1]]
        hits[winners], labels[winners], removed[winners] = True, self.truth_labels[self.truth[winners]], False
        n_labels = int(max(self.truth_labels.max(initial=0), labels.max(initial=0))) + 1
        n_truth = np.bincount(self.truth_labels, minlength=n_labels)  # instances by label
        n_dropped = np.bincount(self.truth_labels[self.missed()], minlength=n_labels) if MISSED in fixed else 0
        kept = np.flatnonzero(~removed)
        kept = kept[np.lexsort((-self.scores[kept], labels[kept]))]
        ends = np.cumsum(np.bincount(labels[kept], minlength=n_labels))
        class_aps = [
            _average_precision(hits[kept[ends[label - 1] : ends[label]]], int((n_truth - n_dropped)[label]))
            for label in np.flatnonzero(n_truth)
        ]
        return float(np.mean(class_aps)) if class_aps else None

    def gains(self) -> dict[str, float]:
        """Return TIDE's dAP of each of `ERRORS`: the AP at IoU 0.5 gained by fixing it alone; 0 without instances."""
        ap = self.average_precision()
        if ap is None:
            return dict.fromkeys(ERRORS, 0.0)
        return {name: max((self.average_precision([name]) or 0.0) - ap, 0.0) for name in ERRORS}


def judge(data: Dataset, detections: Sequence[Detections]) -> Judgement:
    """Judge one `Detections` per image of `data`, in the same order. Skip classes that the data lacks.

    Instances are those of ``data.without_crowd``.
    """
    objects = data.without_crowd
    boxes = objects.boxes.astype(np.float64)
    found_at = np.full(objects.n_instances, -1.0)
    columns: list[tuple[np.ndarray, ...]] = []
    for i, dets in enumerate(detections):
        labels = labels_of(data, dets)
        rows = np.argsort(-dets.scores, kind="stable")
        rows = rows[labels[rows] > 0]
        instances = objects.instances(i)
        mask_iou = iou_matrix([dets.rles[k] for k in rows], objects.rles(i))
        same_class = labels[rows][:, None] == objects.labels[instances][None]
        kinds, truth = _judge_image(mask_iou, same_class, dets.boxes[rows].astype(np.float64), boxes[instances])
        judged = (kinds == CORRECT) | (shares_in_crowds(data, i, dets)[rows] < FOREGROUND)
        rows, kinds, truth = rows[judged], kinds[judged], truth[judged]
        truth[truth >= 0] += instances.start
        found_at[truth[kinds == CORRECT]] = dets.scores[rows][kinds == CORRECT]
        columns.append((np.full(len(rows), i), rows, dets.scores[rows].astype(np.float64), labels[rows], kinds, truth))
    empty = np.empty(0, np.int64)
    images, rows, scores, labels, kinds, truth = (
        np.concatenate(parts) for parts in (zip(*columns, strict=True) if columns else [(empty,)] * 6)
    )
    return Judgement(images, rows, scores, labels, kinds, truth, objects.image_index, objects.labels, found_at)


def _judge_image(
    mask_iou: np.ndarray, same_class: np.ndarray, boxes: np.ndarray, truth_boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return kinds (N,) and instance indices (N,) from `mask_iou` and `same_class` (N, G); detections best first."""
    n, n_truth = mask_iou.shape
    kinds, truth = np.full(n, ON_BACKGROUND), np.full(n, -1)
    if n_truth == 0:
        return kinds, truth
    class_iou, other_iou = mask_iou * same_class, mask_iou * ~same_class
    best_class, best_other = class_iou.argmax(1), other_iou.argmax(1)
    max_class_iou, max_other_iou = class_iou.max(1), other_iou.max(1)
    mislocated = (max_class_iou >= BACKGROUND) & (max_class_iou < FOREGROUND)
    box_matches = _box_iou(boxes, truth_boxes[best_class]) >= FOREGROUND
    # Each line overrides the ones before, so TIDE's tests run in reverse order.
    kinds[np.maximum(max_class_iou, max_other_iou) > BACKGROUND] = CLASS_AND_PLACE
    kinds[max_class_iou >= FOREGROUND] = DUPLICATE
    kinds[max_other_iou >= FOREGROUND] = WRONG_CLASS
    kinds[mislocated & ~box_matches] = BAD_BOX
    kinds[mislocated & box_matches] = BAD_MASK
    truth = np.where(kinds == WRONG_CLASS, best_other, np.where(mislocated | (kinds == DUPLICATE), best_class, -1))
    free = np.ones(n_truth, bool)
    for k in np.flatnonzero(max_class_iou >= FOREGROUND):
        free_iou = np.where(free, class_iou[k], 0.0)
        best = n_truth - 1 - int(free_iou[::-1].argmax())  # COCO breaks ties in favour of the last instance
        if free_iou[best] >= FOREGROUND:
            free[best] = False
            kinds[k], truth[k] = CORRECT, best
    return kinds, truth


def _box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the IoU of boxes `a` and `b` (N, 4) row by row, (N,); 0 for two empty boxes."""
    intersection = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])).clip(0).prod(1)
    areas = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1)
    return intersection / np.maximum(areas - intersection, 1e-12)


def _average_precision(hits: np.ndarray, n_truth: int) -> float:
    """Return the mean precision at `RECALLS` of one class, best first. No instances: 1 without detections, else 0."""
    if n_truth == 0:
        return float(len(hits) == 0)
    n_correct = np.cumsum(hits)
    precision = n_correct / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # highest precision at this recall or above
    return float(np.append(envelope, 0.0)[np.searchsorted(n_correct / n_truth, RECALLS)].mean())
