"""Why a false detection was made: its kind of TIDE, and the stage of a `Trace` that it comes from.

`evaluation.tide.judge` says which detections are false and of which kind. Each cause belongs to one kind, so causes add
up to kinds, and kinds to the false detections. A detection in a crowd region is not judged, and so not false.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from maskrcnn.data.table import Dataset
from maskrcnn.detection.boxes import iou
from maskrcnn.evaluation.classes import match_classes, model_labels
from maskrcnn.evaluation.tide import (
    BAD_BOX,
    BAD_MASK,
    CLASS_AND_PLACE,
    CORRECT,
    DUPLICATE,
    FOREGROUND,
    KINDS,
    ON_BACKGROUND,
    WRONG_CLASS,
    judge,
)
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inspection.explain import Explanation
from maskrcnn.inspection.trace import Origin, Trace
from maskrcnn.rle import RLE, iou_matrix

CERTAIN = 0.5
"""Objectness from which the RPN takes a box for an object rather than for background."""

FROM_RPN = "background proposed"
FROM_BOX_HEAD = "background classified"
LEFT = "duplicate left"
PROPOSED_OFF = "box off from the start"
MOVED_OFF = "box moved off"
MASK_OFF = "mask off"
CONFUSED = "another class"
PARTLY_CONFUSED = "part of another class"

FALSE_CAUSES = {
    FROM_RPN: "there is no object; the RPN takes the place for one, and the box head agrees",
    FROM_BOX_HEAD: "there is no object; the RPN doubts the place (objectness below 0.5), but the box head takes it",
    PROPOSED_OFF: "its proposal already misses the object, and the box head does not mend it",
    MOVED_OFF: "its proposal fits the object, but the box head moves the box away",
    CONFUSED: "the box head takes an object for one of another class",
    PARTLY_CONFUSED: "it overlaps only objects of other classes, and those in part",
    LEFT: "a better detection has the object; their boxes overlap too little for suppression",
    MASK_OFF: "its box fits the object, but its mask does not",
}
"""Causes in the order of the stages, each with its meaning."""

KIND_OF = {
    FROM_RPN: KINDS[ON_BACKGROUND],
    FROM_BOX_HEAD: KINDS[ON_BACKGROUND],
    PROPOSED_OFF: KINDS[BAD_BOX],
    MOVED_OFF: KINDS[BAD_BOX],
    CONFUSED: KINDS[WRONG_CLASS],
    PARTLY_CONFUSED: KINDS[CLASS_AND_PLACE],
    LEFT: KINDS[DUPLICATE],
    MASK_OFF: KINDS[BAD_MASK],
}
"""The kind of TIDE that each cause belongs to."""


@dataclass(frozen=True)
class FalseDetection:
    """A false detection in image `image` of the data: why (`FALSE_CAUSES`), its box and its mask."""

    image: int
    explanation: Explanation
    box: tuple[float, float, float, float]
    mask: RLE


def false_detections(trace: Trace, data: Dataset, i: int, model: Predictor) -> Iterator[FalseDetection]:
    """Explain the false detections of a trace of image i of `data`."""
    one = data.take([i])
    match = match_classes(model, one)
    labels = np.array([match.label_of[str(c)] for c in trace.detections.class_ids], np.int64)
    detected = np.flatnonzero(labels)  # the rows that `in_data_classes` keeps
    found = match.in_data_classes(trace.detections)
    judgement = judge(one, [found])
    hits = judgement.hits
    finder_of = dict(zip(judgement.truth[hits].tolist(), judgement.rows[hits].tolist(), strict=True))
    objects = one.without_crowd
    model_label = model_labels(model, one)
    for row, kind, truth in zip(judgement.rows.tolist(), judgement.kinds, judgement.truth.tolist(), strict=True):
        if kind == CORRECT:
            continue
        case = _Case(trace, int(detected[row]))
        mask = found.rles[row]
        if kind == ON_BACKGROUND:
            cause, detail = case.background()
        elif kind == DUPLICATE:
            cause, detail = case.duplicate(int(detected[finder_of[truth]]))
        elif kind == BAD_BOX:
            cause, detail = case.bad_box(objects.boxes[truth])
        elif kind == BAD_MASK:
            cause, detail = MASK_OFF, f"the IoU of the masks is {_mask_iou(mask, objects, truth):.2f}"
        elif kind == WRONG_CLASS:
            label = int(objects.labels[truth])
            overlap = _mask_iou(mask, objects, truth)
            cause, detail = case.confused(objects.class_names[label - 1], model_label.get(label), overlap)
        else:
            cause, detail = PARTLY_CONFUSED, "no object of its class is near"
        yield FalseDetection(i, Explanation(cause, f"{case.score}; {detail}"), tuple(found.boxes[row].tolist()), mask)


def _mask_iou(mask: RLE, objects: Dataset, instance: int) -> float:
    return float(iou_matrix([mask], [objects.rles(0)[instance]])[0, 0])


class _Case:
    """A detection of a trace, followed back to its proposal."""

    def __init__(self, trace: Trace, detection: int) -> None:
        self.trace, self.detection = trace, detection

    @cached_property
    def origin(self) -> Origin:
        return self.trace.origin(self.detection)

    @property
    def score(self) -> str:
        detections = self.trace.detections
        return f"{detections.class_names[self.detection]} scores {detections.scores[self.detection]:.2f}"

    def background(self) -> tuple[str, str]:
        objectness = self.trace.proposals.objectness[self.origin.proposal]
        return FROM_RPN if objectness >= CERTAIN else FROM_BOX_HEAD, f"its proposal has objectness {objectness:.2g}"

    def duplicate(self, better: int) -> tuple[str, str]:
        stage = self.trace.class_candidates
        boxes = stage.boxes[[self.origin.class_candidate, self.trace.origin(better).class_candidate]]
        overlap, threshold = iou(boxes[:1], boxes[1:])[0, 0], self.trace.config.predict.nms_threshold
        return LEFT, f"its box overlaps the better one by IoU {overlap:.2f}; suppression starts above {threshold:g}"

    def bad_box(self, box: np.ndarray) -> tuple[str, str]:
        boxes = np.stack([self.origin.proposal_box, self.origin.box]).astype(np.float32)
        proposed, final = iou(boxes, self.trace.in_input(box)[None])[:, 0]
        detail = f"the IoU with the object's box is {proposed:.2f} of the proposal and {final:.2f} of the detection"
        return MOVED_OFF if proposed >= FOREGROUND else PROPOSED_OFF, detail

    def confused(self, name: str, label: int | None, overlap: float) -> tuple[str, str]:
        """`name` is the object's class, and `label` the model's for it, if it has one."""
        detail = f"it covers an object of class {name} by mask IoU {overlap:.2f}"
        if label is None:
            return CONFUSED, f"{detail}, which the model does not know"
        probability = self.trace.proposals.class_probabilities[self.origin.proposal, label]
        return CONFUSED, f"{detail}, which scores {probability:.2f}"
