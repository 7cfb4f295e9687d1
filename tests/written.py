"""A network whose outputs are written down: a picture of 64 px, one map of 4 x 4 cells, an anchor of 16 px in each."""

from __future__ import annotations

import numpy as np

from maskrcnn import RLE, Config
from maskrcnn.config import ModelConfig
from maskrcnn.detection.boxes import encode_boxes
from maskrcnn.detection.conventions import NATIVE
from maskrcnn.detection.stages import FLOAT_REGIONS, Trunk, ignore
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes import Runtime

SIDE, STRIDE, PLACES = 64, 16, 16
"""A picture of 64 px with one map of 4 x 4 cells, and an anchor of 16 px in each."""


class Written(Runtime):
    """Logits and boxes of every anchor, and class probabilities and masks of every object, as written down.

    The box head finds the anchor of a region by its place: proposals move anchors by less than half a cell.
    """

    name, precision, region_formats = "written", "fp32", FLOAT_REGIONS

    def __init__(self, config, boxes, logits, probabilities, shifts, inside):
        super().__init__(config, NATIVE)
        self.boxes, self.logits = boxes, logits
        self.probabilities, self.shifts, self.inside = probabilities, shifts, inside

    def network(self):
        return self

    def trunk(self, pixels, windows, observe=ignore):
        anchors = self.detector.anchors(((4, 4),), (SIDE, SIDE))
        deltas = encode_boxes(self.boxes, anchors, NATIVE.rpn_delta_weights)[None]
        numbers = np.arange(PLACES, dtype=np.float32).reshape(1, 4, 4, 1)
        return Trunk([numbers], self.logits[None], deltas, ((4, 4),), (SIDE, SIDE))

    def box_head(self, pooled):
        place = self.place(pooled)
        logits = np.log(self.probabilities[place])
        deltas = np.repeat(self.shifts[place][:, None], logits.shape[1], 1)
        return logits, deltas

    def mask_head(self, pooled, labels):
        return np.where(self.inside[self.place(pooled)], 9.0, -9.0)[:, None, None] * np.ones((1, 28, 28), np.float32)

    def place(self, pooled):
        """The anchor under each region: maps hold its number, and the mean over a region on one cell is near it."""
        return np.clip(np.round(pooled.mean((1, 2, 3))), 0, PLACES - 1).astype(int)


OBJECT = 5  # the anchor at x 16 to 32, y 16 to 32
MASK = RLE.from_mask(np.pad(np.ones((16, 16), bool), ((16, 32), (16, 32))))


def scene(*, object_box=None, others=(), logit=4.0, other_logit=-9.0, probabilities=(0.05, 0.9, 0.05),
          shift=(0.0, 0.0, 0.0, 0.0), inside=True, model=None, predict=None):  # fmt: skip
    """A model that sees one object at the anchor `OBJECT`; `others` are anchors that copy its box, with higher logits.

    Every other anchor keeps its place, with `other_logit` and background.
    """
    settings = dict.fromkeys(["proposals", "proposals_per_level"], 1000)
    config = ModelConfig(
        pyramid="single", anchor_sizes=(16.0,), anchor_ratios=(1.0,), anchor_scales=(1.0,), image_size=SIDE,
        channels=8, **{**settings, **(model or {})},
    )  # fmt: skip
    full = Config(model=config).changed(predict={"score_threshold": 0.5, **(predict or {})})
    runtime = Written(config, None, None, None, None, None)
    boxes = runtime.detector.anchors(((4, 4),), (SIDE, SIDE)).copy()
    logits = np.full(PLACES, other_logit, np.float32)
    logits[OBJECT] = logit
    table = np.tile(np.float32([0.98, 0.01, 0.01]), (PLACES, 1))
    table[OBJECT] = probabilities
    shifts, masks = np.zeros((PLACES, 4), np.float32), np.ones(PLACES, bool)
    shifts[OBJECT], masks[OBJECT] = shift, inside
    if object_box is not None:
        boxes[OBJECT] = object_box
    for k, box in others:
        boxes[k], logits[k], table[k] = box, logit + 1, probabilities
    runtime.boxes, runtime.logits = boxes, logits
    runtime.probabilities, runtime.shifts, runtime.inside = table, shifts, masks
    return Predictor(runtime, full, ["a", "b"], ["a", "b"])
