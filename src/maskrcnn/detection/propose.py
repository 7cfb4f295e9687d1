"""Proposals: the best anchors of each level -> decode -> clip -> non-maximum suppression -> the best of each image.

B images, T best anchors of all levels
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from array_api_compat import array_namespace

from maskrcnn.config import ModelConfig
from maskrcnn.detection.anchors import Anchors
from maskrcnn.detection.arrays import beside
from maskrcnn.detection.boxes import Suppress, clip_boxes, decode_boxes, sides, suppress, to_units, top_rows
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.stages import Array, Candidates, Proposals, Trunk


def propose(trunk: Trunk, windows: Array, anchors: Anchors, config: ModelConfig, conventions: Conventions) -> Proposals:
    """Propose at most ``config.proposals`` boxes an image. Pictures lie in `windows` (B, 4) float32 xyxy of inputs."""
    return keep_best(best_anchors(trunk, windows, anchors, config, conventions), config, conventions)


def keep_best(
    candidates: Candidates, config: ModelConfig, conventions: Conventions, suppress: Suppress = suppress
) -> Proposals:
    """The best candidates that survive non-maximum suppression within their level."""
    valid = is_large(candidates, conventions) & reaches_floor(candidates, conventions)
    image_index, column = array_namespace(valid).nonzero(valid)
    boxes, logits = candidates.boxes[image_index, column], candidates.logits[image_index, column]
    scores = ranking(logits, conventions)
    levels, n_images, threshold = candidates.levels[column], len(candidates.logits), config.proposal_nms_threshold
    shifted = conventions.groups_shifted
    keep = suppress(boxes, scores, levels, image_index, n_images, threshold, config.proposals, shifted)
    return Proposals(boxes[keep], logits[keep], image_index[keep], column[keep])


def ranking(logits: Array, conventions: Conventions) -> Array:
    """The values by which suppression sorts candidates of `logits` (N,)."""
    # Sorting by probability keeps the order of anchors whose probabilities round to the same number, such as 1.
    return sigmoid(logits) if conventions.proposals_jointly else logits


def is_large(candidates: Candidates, conventions: Conventions) -> Array:
    """Whether both sides of each candidate exceed ``smallest_proposal``, (B, T) bool."""
    return (sides(candidates.boxes) > conventions.smallest_proposal).all(-1)


def reaches_floor(candidates: Candidates, conventions: Conventions) -> Array:
    """Whether the logit of each candidate is at least ``objectness_floor``, (B, T) bool."""
    return candidates.logits >= conventions.objectness_floor


def best_anchors(
    trunk: Trunk, windows: Array, anchors: Anchors, config: ModelConfig, conventions: Conventions
) -> Candidates:
    """Decode and clip the ``proposals_per_level`` best anchors of each level; ``proposals_jointly`` makes them one."""
    xp = array_namespace(trunk.objectness)
    ends, values = np.cumsum([0, *anchors.counts(trunk.maps_hw)]), trunk.objectness
    if conventions.proposals_jointly:
        ends, values = ends[[0, -1]], sigmoid(values)
    parts = [top_rows(values[:, s:e], config.proposals_per_level) + s for s, e in pairwise(ends.tolist())]
    index = xp.concat(parts, axis=1)  # (B, T)
    levels = beside(np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts]), index)
    device = None if isinstance(trunk.objectness, np.ndarray) else trunk.objectness.device
    grid = anchors(trunk.maps_hw, trunk.input_hw, device)
    images = beside(np.arange(len(index)), index)[:, None]
    weights, clip = conventions.rpn_delta_weights, conventions.delta_clip
    boxes = decode_boxes(trunk.deltas[images, index], grid[index], weights, clip)  # (B, T, 4)
    bounds = proposal_bounds(windows, trunk, conventions)
    return Candidates(clip_boxes(boxes, bounds[:, None]), trunk.objectness[images, index], levels, index)


def proposal_bounds(windows: Array, trunk: Trunk, conventions: Conventions) -> Array:
    """Boxes (B, 4) in the network's units that proposals are clipped to: the pictures, or the padded inputs."""
    if conventions.proposal_bounds == "input":
        h, w = trunk.input_hw
        windows = beside(np.tile(np.array([0, 0, w, h], np.float32), (len(windows), 1)), windows)
    return to_units(windows, trunk.input_hw, conventions)


def weakest_proposals(proposals: Proposals, n_images: int, limit: int) -> Array:
    """Objectness (B,) of the weakest proposal of each image that has `limit` of them, NaN for the others."""
    xp = array_namespace(proposals.logits)
    if len(proposals.logits) < limit:
        return beside(np.full(n_images, np.nan, np.float32), proposals.logits)
    in_image = proposals.image_index[:, None] == beside(np.arange(n_images), proposals.image_index)  # (R, B)
    weakest = xp.min(xp.where(in_image, proposals.logits[:, None], xp.inf), axis=0)
    return xp.where(xp.sum(xp.astype(in_image, xp.int64), axis=0) >= limit, sigmoid(weakest), xp.nan)


def sigmoid(logits: Array) -> Array:
    """1 / (1 + exp(-x)), without a warning where the exponential overflows."""
    with np.errstate(over="ignore"):
        return 1 / (1 + array_namespace(logits).exp(-logits))
