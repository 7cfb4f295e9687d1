"""Selection: classes above the threshold -> refined boxes -> class-wise non-maximum suppression -> voting.

B images, R proposals of all images, K classes without the background
"""

from __future__ import annotations

from array_api_compat import array_namespace

from maskrcnn.config import PredictConfig
from maskrcnn.detection.boxes import Suppress, clip_boxes, decode_boxes, sides, suppress, vote_boxes
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.stages import Array, Proposals, Selection

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
    xp = array_namespace(class_logits)
    probabilities = softmax(class_logits)
    is_candidate = reaches(probabilities, candidate_score(predict), conventions)
    if conventions.best_class_only:
        best = xp.argmax(probabilities, axis=1)[:, None]
        is_candidate = is_candidate & (best == xp.arange(probabilities.shape[1], device=probabilities.device))
    row, label = xp.nonzero(is_candidate[:, 1:])
    label = label + 1
    scores, image_index = probabilities[row, label], proposals.image_index[row]
    weights, clip = conventions.box_delta_weights, conventions.delta_clip
    boxes = decode_boxes(box_deltas[row, label], proposals.boxes[row], weights, clip)
    boxes = clip_boxes(boxes, bounds[image_index])
    valid = (sides(boxes) > conventions.smallest_detection).all(-1)
    (rows,) = xp.nonzero(valid & reaches(scores, predict.score_threshold, conventions))
    columns = boxes[rows], scores[rows], label[rows], image_index[rows]
    threshold, limit = predict.nms_threshold, predict.detections or DEFAULT_DETECTIONS
    kept = rows[suppress(*columns, len(bounds), threshold, limit, conventions.groups_shifted)]
    kept_boxes = boxes[kept]
    if predict.box_voting:
        groups = image_index * class_logits.shape[1] + label
        kept_boxes = vote_boxes(boxes, scores, groups, kept, VOTING_IOU)
    return Selection(kept_boxes, scores[kept], label[kept], image_index[kept])


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
