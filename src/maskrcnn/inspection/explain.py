"""Why an object was missed: the first stage of a `Trace` that lost it.

anchors -> candidates -> proposals -> classes -> suppression -> boxes -> masks

A stage still has the object if one of its boxes overlaps the object's by an IoU of at least 0.5. The last stage that
has it says what happened next. Every missed object has exactly one cause, so that causes add up to what was missed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from maskrcnn.detection.anchors import POOLED_LEVELS
from maskrcnn.detection.boxes import iou, to_units
from maskrcnn.detection.pool import assign_levels
from maskrcnn.detection.select import detection_limit
from maskrcnn.evaluation.tide import FOREGROUND
from maskrcnn.inspection.trace import BELOW_FLOOR, CUT, SUPPRESSED, Trace
from maskrcnn.rle import RLE, iou_matrix

FOUND = "found"
UNKNOWN_CLASS = "class unknown"
NO_ANCHOR = "no anchor fits"
LOW_OBJECTNESS = "objectness too low"
PROPOSAL_SUPPRESSED = "proposal suppressed"
PROPOSAL_CUT = "limit of proposals"
WRONG_CLASS = "another class"
LOW_SCORE = "score too low"
DETECTION_SUPPRESSED = "detection suppressed"
DETECTION_CUT = "limit of detections"
BOX_OFF = "box off"
MASK_OFF = "mask off"

CAUSES = {
    UNKNOWN_CLASS: "the model does not know the object's class",
    NO_ANCHOR: "no anchor overlaps the object by the IoU that training asks for, nor does any box of the RPN",
    LOW_OBJECTNESS: "the RPN has a box for it, but not among the best of its level, or below the floor",
    PROPOSAL_SUPPRESSED: "a better proposal that overlaps it suppressed its proposal",
    PROPOSAL_CUT: "better proposals filled the limit of proposals",
    WRONG_CLASS: "the box head takes it for another class",
    LOW_SCORE: "its class scores below the threshold",
    DETECTION_SUPPRESSED: "a better detection of its class suppressed it",
    DETECTION_CUT: "better detections filled the limit of detections",
    BOX_OFF: "an anchor or a proposal fits it, but the boxes that are made of it do not",
    MASK_OFF: "it was detected, but the mask is wrong",
}
"""Causes in the order of the stages, each with its meaning."""

REMEDIES = {
    LOW_OBJECTNESS: "proposals",
    PROPOSAL_SUPPRESSED: "proposal_nms_threshold",
    PROPOSAL_CUT: "proposals",
    LOW_SCORE: "score_threshold",
    DETECTION_SUPPRESSED: "nms_threshold",
    DETECTION_CUT: "detections",
}
"""The setting that would have kept the object, where there is one."""


@dataclass(frozen=True)
class Explanation:
    """Why an object was missed (`CAUSES`), or "found".

    `detail` is a sentence with the figures of this object. `setting` would have kept it, or is None. `by` is the box in
    picture pixels that suppressed it, or None. `remark` says if the box was pooled from another level than the object's
    size suggests.
    """

    cause: str
    detail: str
    setting: str | None = None
    by: np.ndarray | None = None
    remark: str | None = None


def explain(trace: Trace, mask: RLE, label: int) -> Explanation:
    """Explain what became of an object of a traced picture, from its mask in the picture's pixels and its label."""
    found = _mask_iou(trace, mask, label)
    if found >= FOREGROUND:
        return Explanation(FOUND, f"a detection overlaps it by a mask IoU of {found:.2f}")
    return _Search(trace, mask, label).explanation(found)


def _mask_iou(trace: Trace, mask: RLE, label: int) -> float:
    """The highest mask IoU of a detection of the object's class."""
    labels = trace.class_candidates.labels[trace.masks.class_candidate[trace.detected_mask]]
    rles = [rle for rle, k in zip(trace.detections.rles, labels, strict=True) if k == label]
    return float(iou_matrix([mask], rles).max(initial=0))


class _Search:
    """Looks for an object's box in the stages of a trace, from the last to the first."""

    def __init__(self, trace: Trace, mask: RLE, label: int) -> None:
        self.trace, self.label = trace, label
        self.box = trace.in_input(np.array(mask.box))[None]  # (1, 4)
        self.threshold = trace.config.predict.score_threshold

    def explanation(self, mask_iou: float) -> Explanation:
        for stage in (self._masks, self._class_candidates, self._proposals, self._candidates):
            result = stage(mask_iou)
            if result is not None:
                cause = result.cause
                return replace(result, setting=REMEDIES.get(cause), remark=self._remark())
        return self._anchors()

    def _overlaps(self, boxes: np.ndarray) -> np.ndarray:
        return iou(self.box, boxes.astype(np.float32))[0] if len(boxes) else np.zeros(0, np.float32)

    def _masks(self, mask_iou: float) -> Explanation | None:
        masks, classified = self.trace.masks, self.trace.class_candidates
        ours = classified.labels[masks.class_candidate] == self.label
        rows = np.flatnonzero(ours & (self._overlaps(masks.boxes) >= FOREGROUND))
        if not len(rows):
            return None
        if not np.isin(rows, self.trace.detected_mask).any():
            return Explanation(LOW_SCORE, "its score, times the certainty of its mask, is below the threshold")
        return Explanation(MASK_OFF, f"its detection's box fits, but the best mask IoU is {mask_iou:.2f}")

    def _class_candidates(self, mask_iou: float) -> Explanation | None:
        stage = self.trace.class_candidates
        overlaps = self._overlaps(stage.boxes)
        lost = np.isin(stage.fate, [SUPPRESSED, CUT])
        rows = np.flatnonzero((stage.labels == self.label) & lost & (overlaps >= FOREGROUND))
        if not len(rows):
            return None
        row = rows[stage.scores[rows].argmax()]
        score = f"a detection of its class with score {stage.scores[row]:.2f}"
        if stage.fate[row] == CUT:
            limit = detection_limit(self.trace.config.predict)
            return Explanation(DETECTION_CUT, f"{score} came after {limit} better ones")
        winner = stage.suppressed_by[row]
        detail = f"{score} was suppressed by one with {stage.scores[winner]:.2f} at IoU {stage.suppressed_iou[row]:.2f}"
        return Explanation(DETECTION_SUPPRESSED, detail, by=self.trace.in_picture(stage.boxes[winner]))

    def _proposals(self, mask_iou: float) -> Explanation | None:
        stage = self.trace.proposals
        fits = self._overlaps(stage.boxes) >= FOREGROUND
        refined = self._overlaps(stage.refined_boxes[:, self.label]) >= FOREGROUND if len(fits) else fits
        rows = np.flatnonzero(fits | refined)
        if not len(rows):
            return None
        scores = stage.class_probabilities[rows, self.label]
        is_best = stage.class_probabilities[rows].argmax(1) == self.label
        eligible = (scores > self.threshold) & (is_best | (not self.trace.conventions.best_class_only))
        if eligible.any():
            row = rows[np.where(eligible, scores, 0).argmax()]
            overlap = self._overlaps(stage.refined_boxes[[row], self.label])[0]
            return Explanation(
                BOX_OFF, f"its class scores {scores[eligible].max():.2f}, but the box's IoU is {overlap:.2f}"
            )
        others = stage.class_probabilities[rows].copy()
        others[:, [0, self.label]] = 0
        best = int(others.max(0).argmax())
        if others.max() > self.threshold:
            name = self.trace.detections.vocabulary[best - 1]
            return Explanation(WRONG_CLASS, f"{name} scores {others.max():.2f}, its class at most {scores.max():.2f}")
        return Explanation(
            LOW_SCORE, f"its class scores at most {scores.max():.2f}; the threshold is {self.threshold:g}"
        )

    def _candidates(self, mask_iou: float) -> Explanation | None:
        stage = self.trace.candidates
        rows = np.flatnonzero(self._overlaps(stage.boxes) >= FOREGROUND)
        if not len(rows):
            return None
        row = rows[stage.objectness[rows].argmax()]
        objectness = f"its best candidate has objectness {stage.objectness[row]:.2g}"
        fate = stage.fate[row]
        if fate == SUPPRESSED:
            winner = stage.suppressed_by[row]
            detail = f"{objectness} and was suppressed by one with {stage.objectness[winner]:.2g} at IoU "
            box = self.trace.in_picture(stage.boxes[winner])
            return Explanation(PROPOSAL_SUPPRESSED, f"{detail}{stage.suppressed_iou[row]:.2f}", by=box)
        if fate == CUT:
            return Explanation(PROPOSAL_CUT, f"{objectness} and came after {self.trace.config.model.proposals} others")
        return Explanation(LOW_OBJECTNESS if fate == BELOW_FLOOR else BOX_OFF, f"{objectness} and is {fate}")

    def _anchors(self) -> Explanation:
        trace = self.trace
        overlaps = self._overlaps(trace.rpn_boxes)
        if overlaps.max() >= FOREGROUND:
            probabilities = np.concatenate([p.reshape(-1, 2)[:, 1] for p in trace.rpn_class_probabilities])
            best = probabilities[overlaps >= FOREGROUND].max()
            limit = trace.config.model.proposals_per_level
            detail = f"its best box has objectness {best:.2g}, not among the {limit} best of its level"
            return Explanation(LOW_OBJECTNESS, detail, REMEDIES[LOW_OBJECTNESS])
        best_anchor = float(self._overlaps(np.concatenate(trace.anchors)).max())
        required = trace.config.train.rpn_positive_iou
        if best_anchor < required:
            return Explanation(NO_ANCHOR, f"the best anchor's IoU is {best_anchor:.2f}; training asks for {required:g}")
        detail = f"an anchor fits by IoU {best_anchor:.2f}, but the RPN moves it to {overlaps.max():.2f} at best"
        return Explanation(BOX_OFF, detail)

    def _remark(self) -> str | None:
        proposals = self.trace.proposals
        overlaps = self._overlaps(proposals.boxes)
        if not overlaps.max(initial=0) >= FOREGROUND:
            return None
        maps_hw = [(m.shape[1], m.shape[2]) for m in self.trace.pyramid_maps]
        input_hw = (self.trace.network_input.shape[1], self.trace.network_input.shape[2])
        box = to_units(self.box, input_hw, self.trace.conventions)
        level = int(assign_levels(box, maps_hw[:POOLED_LEVELS], self.trace.strides[0], self.trace.conventions)[0])
        pooled = int(proposals.pooled_level[overlaps.argmax()])
        return None if pooled == level else f"pooled from P{pooled + 2}; its size suggests P{level + 2}"
