"""Between the graphs, in NumPy and numba: trunk -> proposals -> box head -> detections -> mask head.

A CPU runs this whatever computes the three graphs. `model.proposals` and `runtimes.torch` hold the same steps in
torch, for training and for other devices; the tests hold the two together.

    B images, L levels, K anchors of a level, R proposals of all images, N detections of all images, M mask cells
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from maskrcnn.config import ModelConfig, PredictConfig
from maskrcnn.inference.timing import stage
from maskrcnn.kernels.boxes import decode, nms, vote
from maskrcnn.kernels.scratch import Scratch
from maskrcnn.model.anchors import POOLED_LEVELS, Anchors, to_units
from maskrcnn.model.conventions import Conventions
from maskrcnn.model.pooling import assign_levels, pool_maps

BOX_POOL = 7
DETECTIONS = 100
"""Most detections of an image, where neither the configuration nor the training data says."""

VOTING_SCORE = 0.05
"""Candidates vote from this score on, also where that of detections is higher: it shall not move their boxes."""
VOTING_IOU = 0.8
"""Overlap with a detection from which on they do (docs/benchmarks.md)."""

OFFSET_LIMIT = 1000
"""Up to so many boxes, torchvision's `batched_nms` keeps groups apart by moving them, which rounds their corners."""


@dataclass(frozen=True)
class Trunk:
    """What the first graph makes of a batch: maps P2 to P5 (B, M, N, C), and the RPN's outputs of P2 to P6 in a row.

    objectness (B, K * L) logits, deltas (B, K * L, 4); `maps_hw` are the sizes of the L maps, `input_hw` the input's.
    """

    maps: list[np.ndarray]
    objectness: np.ndarray
    deltas: np.ndarray
    maps_hw: tuple[tuple[int, int], ...]
    input_hw: tuple[int, int]


class Graphs(Protocol):
    """The three parts that are nothing but arithmetic; who computes them is the runtime's business."""

    def trunk(self, pixels: np.ndarray, windows: np.ndarray) -> Trunk:
        """Pixels (B, H, W, 3) of 0 to 255, of which windows (B, 4) are picture."""

    def box_head(self, pooled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(R, S, S, C) -> class_logits (R, K + 1), box_deltas (R, K + 1, 4)."""

    def mask_head(self, pooled: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(N, S, S, C), labels (N,) -> mask logits (N, M, M)."""


@dataclass(frozen=True)
class Found:
    """Detections of a batch, image by image, best first; boxes (N, 4) in the network's units, masks (N, M, M)."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    image_index: np.ndarray
    masks: np.ndarray


def detect(
    graphs: Graphs,
    pixels: np.ndarray,
    windows: np.ndarray,
    *,
    anchors: Anchors,
    model: ModelConfig,
    predict: PredictConfig,
    conventions: Conventions,
    scratch: Scratch,
) -> Found:
    """The whole path of a batch of inputs (B, H, W, 3) whose pictures lie in `windows` (B, 4) xyxy."""
    with stage("trunk"):
        trunk = graphs.trunk(pixels, windows)
    with stage("proposals"):
        boxes, image_index = propose(trunk, windows, anchors, model, conventions)
    with stage("roi_align"):
        pooled = pool(trunk, boxes, image_index, BOX_POOL, anchors, conventions, scratch)
    with stage("box head"):
        class_logits, box_deltas = graphs.box_head(pooled)
    with stage("detections"):
        bounds = to_units(windows.astype(np.float32), trunk.input_hw, conventions)
        boxes, scores, labels, image_index = select(
            class_logits, box_deltas, boxes, image_index, bounds, predict, conventions
        )
    masks = np.zeros((0, model.mask_size, model.mask_size), np.float32)
    if len(boxes):
        with stage("roi_align for masks"):
            pooled = pool(trunk, boxes, image_index, model.mask_size // 2, anchors, conventions, scratch)
        with stage("mask head"):
            masks = _sigmoid(graphs.mask_head(pooled, labels))
    return Found(boxes, scores, labels, image_index, masks)


def propose(
    trunk: Trunk, windows: np.ndarray, anchors: Anchors, model: ModelConfig, conventions: Conventions
) -> tuple[np.ndarray, np.ndarray]:
    """The best anchors of each level -> decode -> clip -> suppress -> the best of each image: (R, 4) and image (R,)."""
    h, w = trunk.input_hw
    if conventions.proposal_bounds == "input":
        windows = np.tile([0, 0, w, h], (len(windows), 1))
    bounds = to_units(windows.astype(np.float32), trunk.input_hw, conventions)
    grids = anchors(trunk.maps_hw, trunk.input_hw)
    counts = [len(grid) for grid in grids]
    grid, ends = np.concatenate(grids), np.cumsum([0, *counts])
    if conventions.proposals_jointly:
        ends = ends[[0, -1]]
    chosen_boxes, image_index = [], []
    for b in range(len(windows)):
        logits = trunk.objectness[b]
        best = [_best(logits[s:e], model.proposals_per_level, conventions) + s for s, e in pairwise(ends)]
        levels = np.repeat(np.arange(len(best)), [len(rows) for rows in best])
        rows = np.concatenate(best)
        boxes = decode(
            trunk.deltas[b, rows],
            grid[rows],
            np.broadcast_to(bounds[b], (len(rows), 4)),
            np.array(conventions.rpn_delta_weights, np.float32),
            conventions.delta_clip,
        )
        scores = _sigmoid(logits[rows]) if conventions.proposals_jointly else logits[rows]
        large = ((boxes[:, 2:] - boxes[:, :2]) > conventions.smallest_proposal).all(1)
        large &= logits[rows] >= conventions.objectness_floor
        boxes, scores, levels = boxes[large], scores[large], levels[large]
        keep = suppress(boxes, scores, levels, model.proposal_nms_threshold, model.proposals)
        chosen_boxes.append(boxes[keep])
        image_index.append(np.full(len(keep), b, np.int64))
    return np.concatenate(chosen_boxes), np.concatenate(image_index)


def _best(logits: np.ndarray, most: int, conventions: Conventions) -> np.ndarray:
    """Rows of the `most` largest logits, largest first; equal ones in their order."""
    values = _sigmoid(logits) if conventions.proposals_jointly else logits
    rows = np.arange(len(values))
    if most < len(values):
        # Everything from the value of the last chosen one on, so that equal ones compete in their order.
        rows = np.flatnonzero(values >= np.partition(values, len(values) - most)[len(values) - most])
    return rows[np.argsort(-values[rows], kind="stable")][:most]


def suppress(boxes: np.ndarray, scores: np.ndarray, groups: np.ndarray, threshold: float, most: int) -> np.ndarray:
    """Non-maximum suppression within groups; indices of at most `most` boxes (N, 4) that stay, best first."""
    order = np.argsort(-scores, kind="stable")
    boxes, groups = boxes[order], groups[order]
    if 0 < len(boxes) <= OFFSET_LIMIT:
        boxes = boxes + (groups.astype(np.float32) * (boxes.max() + np.float32(1)))[:, None]
    return order[nms(np.ascontiguousarray(boxes), groups, np.float32(threshold), most)]


def pool(
    trunk: Trunk,
    boxes: np.ndarray,
    image_index: np.ndarray,
    size: int,
    anchors: Anchors,
    conventions: Conventions,
    scratch: Scratch,
) -> np.ndarray:
    """Boxes (R, 4) of images (R,) -> (R, size, size, C), valid until `scratch` pools again."""
    maps_hw = [(m.shape[1], m.shape[2]) for m in trunk.maps]
    levels = assign_levels(boxes, maps_hw, anchors.strides[0], conventions)
    pooled = scratch.array("pooled", len(boxes), size, size, trunk.maps[0].shape[3])
    strides = anchors.strides[:POOLED_LEVELS]
    samples, pooling = conventions.roi_samples, conventions.pooling
    pool_maps(trunk.maps, boxes, image_index, levels, pooled, strides=strides, samples=samples, pooling=pooling)
    return pooled


def select(
    class_logits: np.ndarray,
    box_deltas: np.ndarray,
    regions: np.ndarray,
    image_index: np.ndarray,
    bounds: np.ndarray,
    predict: PredictConfig,
    conventions: Conventions,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Classes of regions (R, 4) above the threshold -> class-wise suppression -> votes, where asked for.

    Returns boxes (N, 4), scores (N,), labels (N,) and the image of each (N,).
    """
    exponents = np.exp(class_logits - class_logits.max(1, keepdims=True))
    probabilities = exponents / exponents.sum(1, keepdims=True)
    least = least_candidate(predict)
    enough = np.greater_equal if conventions.best_class_only else np.greater
    if conventions.best_class_only:
        likeliest = probabilities.argmax(1)
        row = np.flatnonzero((likeliest > 0) & enough(probabilities.max(1, initial=0), least))
        label = likeliest[row]
    else:
        row, label = np.nonzero(enough(probabilities[:, 1:], least))
        label = label + 1
    boxes = decode(
        np.ascontiguousarray(box_deltas[row, label]),
        regions[row],
        bounds[image_index[row]],
        np.array(conventions.box_delta_weights, np.float32),
        conventions.delta_clip,
    )
    scores, image = probabilities[row, label], image_index[row]
    wanted = ((boxes[:, 2:] - boxes[:, :2]) > conventions.smallest_detection).all(1)
    wanted &= enough(scores, predict.score_threshold)
    kept = []
    for b in range(len(bounds)):
        rows = np.flatnonzero(wanted & (image == b))
        keep = suppress(boxes[rows], scores[rows], label[rows], predict.nms_threshold, predict.detections or DETECTIONS)
        kept.append(rows[keep])
    chosen = np.concatenate(kept) if kept else np.zeros(0, np.int64)
    found = boxes[chosen]
    if predict.box_voting:
        found = vote(boxes, scores, image * class_logits.shape[1] + label, chosen, np.float32(VOTING_IOU))
    return found, scores[chosen], label[chosen], image[chosen]


def least_candidate(predict: PredictConfig) -> float:
    """Score from which on regions are looked at: the detections' own, or less where boxes are voted on."""
    return min(predict.score_threshold, VOTING_SCORE) if predict.box_voting else predict.score_threshold


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-logits))
