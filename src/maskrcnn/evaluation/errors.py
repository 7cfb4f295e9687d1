"""Detections and instances judged: correct, or in what way wrong; and the AP that not being wrong so would gain.

The types are those of TIDE (Bolya, Foley, Hays, Hoffman, "TIDE: A General Toolbox for Identifying Object Detection
Errors", ECCV 2020) on masks. A detection is correct when COCO's matching at mask IoU 0.5 gives it an instance of its
class. Every other detection is the first of these that holds:

    bad box, bad mask   its mask overlaps an instance of its class by 0.1 or more, and none by 0.5: the *mask* is bad
                        where the boxes of the two overlap by 0.5 or more, so that the right place was found; else the
                        *box* is
    wrong class         its mask overlaps an instance of another class by 0.5 or more
    duplicate           it overlaps an instance of its class by 0.5 or more, which a better detection has taken
    background          it overlaps no instance by more than 0.1
    class and place     it overlaps an instance of another class alone, by 0.1 to 0.5

An instance is *missed* when no detection found it and none with a wrong class, a bad box or a bad mask stands for it.
TIDE's one "localisation" error is bad box and bad mask together.

    D detections, T instances, G instances of an image, N its detections
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskrcnn.data.table import Dataset
from maskrcnn.rle import iou_matrix
from maskrcnn.structures import Detections

FOREGROUND, BACKGROUND = 0.5, 0.1
"""TIDE's thresholds of IoU: what is found, and what was never there."""

KINDS = ("correct", "wrong class", "bad box", "bad mask", "class and place", "duplicate", "background")
"""What a detection can be; `Judgement.kinds` holds indices of it."""

MISSED = "missed"
ERRORS = (*KINDS[1:], MISSED)
CORRECT, WRONG_CLASS, BAD_BOX, BAD_MASK, CLASS_AND_PLACE, DUPLICATE, ON_BACKGROUND = range(len(KINDS))
MENDABLE = (WRONG_CLASS, BAD_BOX, BAD_MASK)
"""Mending these makes a detection correct, if its instance is still free; the others can only be taken away."""

RECALLS = np.linspace(0, 1, 101)
"""Where COCO reads the precision."""


@dataclass(frozen=True)
class Judgement:
    """What `judge` returns.

    Of each detection, image after image and best first: `images` (D,) and `rows` (D,) tell which row of which image's
    `Detections` it is; `scores` (D,); `labels` (D,) 1-based as in the data; `kinds` (D,) index into `KINDS`; `truth`
    (D,) the instance that it found or stands for, else -1. Of each instance, in the data's order: `truth_images` and
    `truth_labels` (T,), and `found_at` (T,) the score of the detection that found it, else -1.
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
        """(D,) bool: the correct detections."""
        return self.kinds == CORRECT

    def missed(self, score_threshold: float = 0.0) -> np.ndarray:
        """(T,) bool: the instances that no detection from `score_threshold` on found or stands for."""
        missed = self.found_at < score_threshold
        missed[self.truth[np.isin(self.kinds, MENDABLE) & (self.scores >= score_threshold)]] = False
        return missed

    def counts(self, score_threshold: float = 0.0) -> dict[str, int]:
        """How many detections from `score_threshold` on are of each of `KINDS`, and how many instances are missed."""
        kinds = np.bincount(self.kinds[self.scores >= score_threshold], minlength=len(KINDS))
        return dict(zip(KINDS, kinds.tolist(), strict=True)) | {MISSED: int(self.missed(score_threshold).sum())}

    def average_precision(self, mended: Sequence[str] = ()) -> float | None:
        """COCO's mask AP at IoU 0.5, had the `ERRORS` named in `mended` not been made; None without instances.

        As TIDE mends: a missed instance is no longer asked for. Of the detections that stand for an instance which
        nothing found, the best becomes correct; all others of a mended type are taken away.
        """
        hits, labels = self.hits, self.labels.copy()
        wanted = np.isin(self.kinds, [k for k, name in enumerate(KINDS) if name in mended])
        candidates = np.flatnonzero(wanted & np.isin(self.kinds, MENDABLE))
        candidates = candidates[self.found_at[self.truth[candidates]] < 0]
        candidates = candidates[np.argsort(-self.scores[candidates], kind="stable")]
        winners = candidates[np.unique(self.truth[candidates], return_index=True)[1]]
        hits[winners], labels[winners], wanted[winners] = True, self.truth_labels[self.truth[winners]], False
        n_labels = int(max(self.truth_labels.max(initial=0), labels.max(initial=0))) + 1
        asked = np.bincount(self.truth_labels, minlength=n_labels)
        due = asked - np.bincount(self.truth_labels[self.missed()], minlength=n_labels) if MISSED in mended else asked
        kept = np.flatnonzero(~wanted)
        kept = kept[np.lexsort((-self.scores[kept], labels[kept]))]
        ends = np.cumsum(np.bincount(labels[kept], minlength=n_labels))
        values = [
            _average_precision(hits[kept[ends[label - 1] : ends[label]]], int(due[label]))
            for label in np.flatnonzero(asked)
        ]
        return float(np.mean(values)) if values else None

    def gains(self) -> dict[str, float]:
        """TIDE's dAP of each of `ERRORS`: the AP at IoU 0.5 that not making it would gain; 0 without instances."""
        now = self.average_precision()
        if now is None:
            return dict.fromkeys(ERRORS, 0.0)
        return {name: max((self.average_precision([name]) or 0.0) - now, 0.0) for name in ERRORS}


def judge(data: Dataset, detections: Sequence[Detections]) -> Judgement:
    """Judge detections, one `Detections` an image of `data`, in its order; classes that the data lacks are left out."""
    label_of = {str(cid): k + 1 for k, cid in enumerate(data.class_ids)}
    boxes = data.boxes.astype(np.float64)
    found_at = np.full(data.n_instances, -1.0)
    columns: list[tuple[np.ndarray, ...]] = []
    for i, found in enumerate(detections):
        labels = np.array([label_of.get(str(c), 0) for c in found.class_ids], np.int64)
        rows = np.argsort(-found.scores, kind="stable")
        rows = rows[labels[rows] > 0]
        where = data.instances(i)
        overlap = iou_matrix([found.rles[k] for k in rows], data.rles(i))
        same = labels[rows][:, None] == data.labels[where][None]
        kinds, truth = _judge_image(overlap, same, found.boxes[rows].astype(np.float64), boxes[where])
        truth[truth >= 0] += where.start
        found_at[truth[kinds == CORRECT]] = found.scores[rows][kinds == CORRECT]
        columns.append((np.full(len(rows), i), rows, found.scores[rows].astype(np.float64), labels[rows], kinds, truth))
    empty = np.empty(0, np.int64)
    images, rows, scores, labels, kinds, truth = (
        np.concatenate(parts) for parts in (zip(*columns, strict=True) if columns else [(empty,)] * 6)
    )
    return Judgement(images, rows, scores, labels, kinds, truth, data.image_index, data.labels, found_at)


def _judge_image(
    overlap: np.ndarray, same: np.ndarray, boxes: np.ndarray, truth_boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Kinds (N,) and instances (N,) of detections, best first: mask IoU `overlap` (N, G), equal class `same` (N, G)."""
    n, n_truth = overlap.shape
    kinds, truth = np.full(n, ON_BACKGROUND), np.full(n, -1)
    if n_truth == 0:
        return kinds, truth
    own, other = overlap * same, overlap * ~same
    best_own, best_other = own.argmax(1), other.argmax(1)
    top_own, top_other = own.max(1), other.max(1)
    beside = (top_own >= BACKGROUND) & (top_own < FOREGROUND)
    framed = _box_iou(boxes, truth_boxes[best_own]) >= FOREGROUND
    # Later lines overrule earlier ones; TIDE asks in the opposite order.
    kinds[np.maximum(top_own, top_other) > BACKGROUND] = CLASS_AND_PLACE
    kinds[top_own >= FOREGROUND] = DUPLICATE
    kinds[top_other >= FOREGROUND] = WRONG_CLASS
    kinds[beside & ~framed] = BAD_BOX
    kinds[beside & framed] = BAD_MASK
    truth = np.where(kinds == WRONG_CLASS, best_other, np.where(beside | (kinds == DUPLICATE), best_own, -1))
    free = np.ones(n_truth, bool)
    for k in np.flatnonzero(top_own >= FOREGROUND):
        left = np.where(free, own[k], 0.0)
        best = n_truth - 1 - int(left[::-1].argmax())  # of equals COCO takes the last
        if left[best] >= FOREGROUND:
            free[best] = False
            kinds[k], truth[k] = CORRECT, best
    return kinds, truth


def _box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) IoU of boxes (N, 4) with their partners (N, 4); 0 for two empty ones."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = sides.clip(0).prod(1)
    areas = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1)
    return shared / np.maximum(areas - shared, 1e-12)


def _average_precision(hits: np.ndarray, n_truth: int) -> float:
    """Mean precision at COCO's 101 recalls, of detections of one class, best first.

    Where nothing is asked for any more, a detection that is left is still an error.
    """
    if n_truth == 0:
        return float(len(hits) == 0)
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    highest_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.append(highest_from_here, 0.0)[np.searchsorted(right / n_truth, RECALLS)].mean())
