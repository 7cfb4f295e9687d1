"""Selection: classes above the threshold -> refined boxes -> class-wise non-maximum suppression -> voting.

B images, R proposals of all images, K classes without the background
"""

from __future__ import annotations

from array_api_compat import array_namespace

from maskrcnn.config import PredictConfig
from maskrcnn.detection.boxes import Suppress, clip_boxes, decode_boxes, sides, suppress, vote_boxes
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.stages import Array, ClassCandidates, Proposals, Selection

DEFAULT_DETECTIONS = 100
"""Detections an image, if neither the configuration nor the training data sets a limit."""

VOTING_SCORE = 0.05
"""Minimum score of a candidate that votes. It ignores the score threshold, so that raising that does not move boxes."""

VOTING_IOU = 0.8
"""Minimum IoU of a candidate with the detection that it votes for (docs/experiments/box-voting-and-suppression.md)."""


def select(
    class_logits: Array,
    box_deltas: Array,
    proposals: Proposals,
    bounds: Array,
    predict: PredictConfig,
    conventions: Conventions,
    suppress: Suppress = suppress,
) -> Selection:
    """Class logits (R, K + 1), deltas (R, K + 1, 4) -> detections clipped to `bounds` (B, 4) in the network's units."""
    candidates = class_candidates(class_logits, box_deltas, proposals, bounds, predict, conventions)
    return keep_detections(candidates, len(bounds), class_logits.shape[1], predict, conventions, suppress)


def class_candidates(
    class_logits: Array,
    box_deltas: Array,
    proposals: Proposals,
    bounds: Array,
    predict: PredictConfig,
    conventions: Conventions,
) -> ClassCandidates:
    """Every class of every proposal that reaches `candidate_score`, with its refined box, proposal by proposal."""
    xp = array_namespace(class_logits)
    probabilities = softmax(class_logits)
    is_candidate = reaches(probabilities, candidate_score(predict), conventions)
    if conventions.best_class_only:
        best = xp.argmax(probabilities, axis=1)[:, None]
        is_candidate = is_candidate & (best == xp.arange(probabilities.shape[1], device=probabilities.device))
    row, label = xp.nonzero(is_candidate[:, 1:])
    label = label + 1
    scores, image_index = probabilities[row, label], proposals.image_index[row]
    boxes = refine(box_deltas[row, label], proposals.boxes[row], bounds[image_index], conventions)
    valid = (sides(boxes) > conventions.smallest_detection).all(-1)
    competes = valid & reaches(scores, predict.score_threshold, conventions)
    return ClassCandidates(boxes, scores, label, image_index, row, competes)


def detection_limit(predict: PredictConfig) -> int:
    """Maximum number of detections of an image."""
    return predict.detections or DEFAULT_DETECTIONS


def keep_detections(
    candidates: ClassCandidates,
    n_images: int,
    n_labels: int,
    predict: PredictConfig,
    conventions: Conventions,
    suppress: Suppress = suppress,
) -> Selection:
    """The best competing candidates that survive suppression within their class, and the votes on their boxes."""
    boxes, scores, labels = candidates.boxes, candidates.scores, candidates.labels
    (rows,) = array_namespace(boxes).nonzero(candidates.competes)
    columns = boxes[rows], scores[rows], labels[rows], candidates.image_index[rows]
    threshold, limit = predict.nms_threshold, detection_limit(predict)
    kept = rows[suppress(*columns, n_images, threshold, limit, conventions.groups_shifted)]
    kept_boxes = boxes[kept]
    if predict.box_voting:
        groups = candidates.image_index * n_labels + labels
        kept_boxes = vote_boxes(boxes, scores, groups, kept, VOTING_IOU)
    return Selection(kept_boxes, scores[kept], labels[kept], candidates.image_index[kept], candidate_index=kept)


def refine(box_deltas: Array, boxes: Array, bounds: Array, conventions: Conventions) -> Array:
    """Apply deltas (..., 4) of the box head to boxes (..., 4) and clip them to bounds (..., 4)."""
    refined = decode_boxes(box_deltas, boxes, conventions.box_delta_weights, conventions.delta_clip)
    return clip_boxes(refined, bounds)


def candidate_score(predict: PredictConfig) -> float:
    """Minimum score of a candidate: the score threshold, or less where candidates vote on boxes."""
    return min(predict.score_threshold, VOTING_SCORE) if predict.box_voting else predict.score_threshold


def reaches(scores: Array, threshold: float, conventions: Conventions) -> Array:
    """Whether scores pass the threshold; a score equal to it passes where only the best class counts (Matterport)."""
    return scores >= threshold if conventions.best_class_only else scores > threshold


def softmax(logits: Array) -> Array:
    """Softmax over the last axis."""
    xp = array_namespace(logits)
    exponents = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    return exponents / exponents.sum(-1)[..., None]
