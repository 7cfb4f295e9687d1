"""The path of a batch from network input to detections, step by step.

trunk -> propose -> pool -> box head -> select -> pool -> mask head

B images, R proposals and N detections of all images, S x S pooled and M x M mask cells, C channels, K classes
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from maskrcnn.config import ModelConfig, PredictConfig
from maskrcnn.detection.anchors import Anchors
from maskrcnn.detection.arrays import beside
from maskrcnn.detection.boxes import to_units
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.pool import BOX_POOL, pool
from maskrcnn.detection.propose import propose, sigmoid, weakest_proposals
from maskrcnn.detection.select import select
from maskrcnn.detection.stages import Array, RawDetections, Trunk
from maskrcnn.detection.timing import stage
from maskrcnn.kernels.scratch import Scratch


class Network(Protocol):
    """The three learned parts. A runtime computes them; the steps between them are the same for every runtime."""

    def trunk(self, pixels: np.ndarray, windows: np.ndarray) -> Trunk:
        """Pixels (B, H, W, 3), uint8 or float32 of 0 to 255, with pictures in windows (B, 4) xyxy."""

    def box_head(self, pooled: Array) -> tuple[Array, Array]:
        """(R, S, S, C) -> class_logits (R, K + 1), box_deltas (R, K + 1, 4)."""

    def mask_head(self, pooled: Array, labels: Array) -> Array:
        """(N, S, S, C), labels (N,) -> mask logits (N, M, M) of the labels' classes."""


class Detector:
    """The method with its settings: everything but the network. One instance serves any number of threads."""

    def __init__(self, config: ModelConfig, conventions: Conventions) -> None:
        self.config = config
        self.conventions = conventions
        self.anchors = Anchors(config, conventions)
        self._scratch = Scratch()

    def detect(
        self, network: Network, pixels: np.ndarray, windows: np.ndarray, predict: PredictConfig
    ) -> RawDetections:
        """Detections in a batch of inputs (B, H, W, 3) whose pictures lie in `windows` (B, 4) xyxy."""
        with stage("trunk"):
            trunk = network.trunk(pixels, windows)
        frames = beside(windows.astype(np.float32), trunk.objectness)
        with stage("proposals"):
            proposals = propose(trunk, frames, self.anchors, self.config, self.conventions)
        with stage("roi_align"):
            pooled = self._pool(trunk, proposals.boxes, proposals.image_index, BOX_POOL)
        with stage("box head"):
            class_logits, box_deltas = network.box_head(pooled)
        with stage("detections"):
            bounds = to_units(frames, trunk.input_hw, self.conventions)
            selected = select(class_logits, box_deltas, proposals, bounds, predict, self.conventions)
        size = self.config.mask_size
        masks: Array = beside(np.zeros((0, size, size), np.float32), trunk.objectness)
        if len(selected.boxes):
            with stage("roi_align for masks"):
                pooled = self._pool(trunk, selected.boxes, selected.image_index, size // 2)
            with stage("mask head"):
                masks = sigmoid(network.mask_head(pooled, selected.labels))
        weakest = weakest_proposals(proposals, len(windows), self.config.proposals)
        return RawDetections(selected.boxes, selected.scores, selected.labels, selected.image_index, masks, weakest)

    def with_proposals(self, limit: int) -> Detector:
        """Return the same method with another limit of proposals, of an image and of each level."""
        limits = {"proposals": limit, "proposals_per_level": max(limit, self.config.proposals_per_level)}
        return Detector(self.config.model_copy(update=limits), self.conventions)

    def _pool(self, trunk: Trunk, boxes: Array, image_index: Array, size: int) -> Array:
        """`pool`. On a CPU, valid until this thread's next call: 50 MB of fresh memory would cost more than pooling."""
        out = None
        if isinstance(boxes, np.ndarray):
            out = self._scratch.array("pooled", len(boxes), size, size, trunk.maps[0].shape[3])
        return pool(trunk.maps, boxes, image_index, size, self.anchors.pooled_strides, self.conventions, out)
