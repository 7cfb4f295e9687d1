"""What the settings of a prediction choose from: every candidate with its classes, and masks of those that may be kept.

trace with all candidates as proposals -> class candidates of each -> masks of those of the model's proposals

The network runs twice more. A page, or a reader, can then change a threshold and repeat the choice alone.

T candidates, P class candidates, S masks of G x G cells
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from maskrcnn.config import LEVELS
from maskrcnn.detection.finish import mask_certainty
from maskrcnn.detection.propose import ranking, sigmoid
from maskrcnn.detection.select import VOTING_SCORE, detection_limit
from maskrcnn.detection.stages import Candidates, ClassCandidates, Proposals
from maskrcnn.inspection.trace import Trace
from maskrcnn.inspection.tracer import Recorder, trace
from maskrcnn.rle import RLE

if TYPE_CHECKING:
    from maskrcnn.inference.predictor import Picture, Predictor

MAX_MASKS = 600
"""Class candidates, best first, whose masks are computed, unless the model's own limit of detections is higher."""

MAX_CLASS_CANDIDATES = 40_000
"""Class candidates that are kept, best first. A model of 80 classes that keeps every score has ten times as many."""


@dataclass(frozen=True)
class ClassChoice:
    """Every class of every candidate that scores at least `floor`, in the order in which selection sees them.

    Boxes (P, 4) are in the network's units. `candidate` (P,) is a row of the candidates. `is_large` (P,) bool says
    which may become detections; the others can only vote.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    candidate: np.ndarray
    is_large: np.ndarray
    floor: float


@dataclass(frozen=True)
class MaskChoice:
    """Masks of class candidates: their rows (S,), logits (S, G, G), certainty (S,) and runs in the picture's pixels."""

    row: np.ndarray
    logits: np.ndarray
    certainty: np.ndarray
    rles: list[RLE]


@dataclass(frozen=True)
class Replay:
    """What proposals and detections are chosen from. Boxes are in the network's units (`detection.boxes.to_units`).

    `boxes` (T, 4), `rank` (T,), by which suppression sorts, `group` (T,), within which it works, and `is_eligible` (T,)
    bool, false for those too small or below the floor, are the candidates of `Trace.candidates`. `wide` is a trace in
    which every eligible candidate is a proposal.
    """

    boxes: np.ndarray
    rank: np.ndarray
    group: np.ndarray
    is_eligible: np.ndarray
    wide: Trace
    classes: ClassChoice
    masks: MaskChoice


def replay(predictor: Predictor, picture: Picture, traced: Trace) -> Replay:
    """Predict the picture of `traced` with all candidates as proposals, and with the masks of all that may be kept."""
    floor = min(predictor.config.predict.score_threshold, VOTING_SCORE)
    recorder = Recorder()
    wide = trace(_without_suppression(predictor, floor), picture, recorder)
    candidates: Candidates = recorder.results["candidates"]
    proposals: Proposals = recorder.results["proposals"]
    assert proposals.columns is not None
    is_eligible = np.zeros(len(candidates.levels), bool)
    is_eligible[proposals.columns] = True
    classes = _class_choice(recorder.results["class_candidates"], proposals.columns, floor)
    row_of = {key: row for row, key in enumerate(zip(classes.candidate.tolist(), classes.labels.tolist(), strict=True))}
    conventions = traced.conventions
    return Replay(
        boxes=candidates.boxes[0],
        rank=ranking(candidates.logits[0], conventions),
        group=candidates.levels,
        is_eligible=is_eligible,
        wide=wide,
        classes=classes,
        masks=_masks(predictor, picture, floor, row_of),
    )


def _without_suppression(predictor: Predictor, floor: float) -> Predictor:
    """The network with all candidates as proposals, and one detection: the masks of all would take minutes."""
    limit = predictor.config.model.proposals_per_level
    everything = predictor.proposing(proposals=LEVELS * limit, proposals_per_level=limit, proposal_nms_threshold=1.0)
    return everything.changed(score_threshold=floor, detections=1, mask_scoring=False)


def _class_choice(classified: ClassCandidates, columns: np.ndarray, floor: float) -> ClassChoice:
    rows = np.arange(len(classified.scores))
    if len(rows) > MAX_CLASS_CANDIDATES:
        floor = float(np.partition(classified.scores, -MAX_CLASS_CANDIDATES)[-MAX_CLASS_CANDIDATES])
        rows = np.flatnonzero(classified.scores > floor)
    return ClassChoice(
        boxes=classified.boxes[rows],
        scores=classified.scores[rows],
        labels=classified.labels[rows],
        candidate=columns[classified.proposal_index[rows]],
        is_large=classified.competes[rows],
        floor=floor,
    )


def _masks(predictor: Predictor, picture: Picture, floor: float, row_of: dict[tuple[int, int], int]) -> MaskChoice:
    """Masks of the best class candidates of the model's own proposals, whether or not suppression keeps them."""
    limit = max(MAX_MASKS, detection_limit(predictor.config.predict))
    lenient = predictor.changed(score_threshold=floor, nms_threshold=1.0, detections=limit, mask_scoring=False)
    traced = trace(lenient, picture)
    detection, row = _known(traced, row_of)
    logits = traced.masks.logits[traced.detected_mask[detection]]
    certainty = mask_certainty(sigmoid(logits)).astype(np.float32)
    return MaskChoice(row, logits, certainty, [traced.detections.rles[k] for k in detection])


def _known(traced: Trace, row_of: dict[tuple[int, int], int]) -> tuple[np.ndarray, np.ndarray]:
    """The detections of a trace that are among the class candidates `row_of`, and their rows there."""
    class_candidate = traced.masks.class_candidate[traced.detected_mask]
    candidate = traced.proposals.candidate[traced.class_candidates.proposal[class_candidate]]
    keys = zip(candidate.tolist(), traced.class_candidates.labels[class_candidate].tolist(), strict=True)
    rows = np.array([row_of.get(key, -1) for key in keys], np.int64)
    known = np.flatnonzero(rows >= 0)
    return known, rows[known]
