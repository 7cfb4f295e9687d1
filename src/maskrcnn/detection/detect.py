"""The path of a batch from network input to detections, step by step.

trunk -> propose -> pool -> box head -> select -> pool -> mask head

B images, R proposals and N detections of all images, S x S pooled and M x M mask cells, C channels, K classes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from maskrcnn.config import ModelConfig, PredictConfig
from maskrcnn.detection.anchors import Anchors
from maskrcnn.detection.arrays import beside
from maskrcnn.detection.boxes import to_units
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.pool import BOX_POOL, pool
from maskrcnn.detection.propose import best_anchors, keep_best, sigmoid, weakest_proposals
from maskrcnn.detection.select import class_candidates, keep_detections
from maskrcnn.detection.stages import Array, Observe, RawDetections, RegionFormat, Trunk, ignore
from maskrcnn.detection.timing import stage
from maskrcnn.kernels.formats import to_float32
from maskrcnn.kernels.scratch import Scratch


class Network(Protocol):
    """The three learned parts. A runtime computes them; the steps between them are the same for every runtime."""

    region_formats: Mapping[str, RegionFormat]
    """How "box_head" and "mask_head" take regions of NumPy. Tensors are float."""

    def trunk(self, pixels: np.ndarray, windows: np.ndarray, observe: Observe = ignore) -> Trunk:
        """Pixels (B, H, W, 3), uint8 or float32 of 0 to 255, with pictures in windows (B, 4) xyxy.

        A network that has the maps C2 to C5, (B, M, N, C) each, hands them to `observe` as "backbone".
        """

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
        self,
        network: Network,
        pixels: np.ndarray,
        windows: np.ndarray,
        predict: PredictConfig,
        observe: Observe = ignore,
    ) -> RawDetections:
        """Detections in a batch of inputs (B, H, W, 3) whose pictures lie in `windows` (B, 4) xyxy.

        `observe` is handed each step's result: "backbone" (`Network.trunk`), "trunk", "candidates", "proposals",
        "box_pool" (R, S, S, C), "class_logits", "box_deltas", "class_candidates", "selection", "mask_pool"
        (N, S, S, C) and "mask_logits" (N, M, M).
        """
        conventions = self.conventions
        with stage("trunk"):
            trunk = network.trunk(pixels, windows, observe)
        if observe is not ignore:
            observe("trunk", replace(trunk, maps=[to_float32(m) if m.dtype == np.uint16 else m for m in trunk.maps]))
        frames = beside(windows.astype(np.float32), trunk.objectness)
        with stage("proposals"):
            candidates = best_anchors(trunk, frames, self.anchors, self.config, conventions)
            proposals = keep_best(candidates, self.config, conventions)
        observe("candidates", candidates)
        observe("proposals", proposals)
        with stage("roi_align"):
            regions = network.region_formats["box_head"]
            pooled = self._pool(trunk, proposals.boxes, proposals.image_index, BOX_POOL, regions)
        if observe is not ignore:
            observe("box_pool", regions.decode(pooled))
        with stage("box head"):
            class_logits, box_deltas = network.box_head(pooled)
        observe("class_logits", class_logits)
        observe("box_deltas", box_deltas)
        with stage("detections"):
            bounds = to_units(frames, trunk.input_hw, conventions)
            classified = class_candidates(class_logits, box_deltas, proposals, bounds, predict, conventions)
            selected = keep_detections(classified, len(windows), class_logits.shape[1], predict, conventions)
        observe("class_candidates", classified)
        observe("selection", selected)
        masks: Array = beside(np.zeros((0, *[self.config.mask_size] * 2), np.float32), trunk.objectness)
        if len(selected.boxes):
            with stage("roi_align for masks"):
                regions = network.region_formats["mask_head"]
                pooled = self._pool(trunk, selected.boxes, selected.image_index, self.config.mask_size // 2, regions)
            if observe is not ignore:
                observe("mask_pool", regions.decode(pooled))
            with stage("mask head"):
                mask_logits = network.mask_head(pooled, selected.labels)
                masks = sigmoid(mask_logits)
            observe("mask_logits", mask_logits)
        weakest = weakest_proposals(proposals, len(windows), self.config.proposals)
        return RawDetections(**vars(selected), masks=masks, weakest_proposals=weakest)

    def _pool(self, trunk: Trunk, boxes: Array, image_index: Array, size: int, regions: RegionFormat) -> Array:
        """`pool`. On a CPU, valid until this thread's next call: 50 MB of fresh memory would cost more than pooling."""
        out = None
        if isinstance(boxes, np.ndarray):
            shape = len(boxes), size, size, trunk.maps[0].shape[3]
            out = self._scratch.array("pooled", *shape, dtype=regions.dtype)
        return pool(trunk.maps, boxes, image_index, size, self.anchors.pooled_strides, self.conventions, out, regions)
