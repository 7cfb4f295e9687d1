"""Intermediate outputs and detection matching for the tests against other implementations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from maskrcnn import RLE, Detections, iou_matrix
from maskrcnn.detection.fit import stack
from maskrcnn.detection.propose import propose
from maskrcnn.detection.stages import Proposals
from maskrcnn.inference.predictor import Predictor
from maskrcnn.model.rpn import RPNOutput


@dataclass
class Stages:
    """Output of each step for one image, up to the proposals."""

    features: list[torch.Tensor]
    rpn: RPNOutput
    anchors: np.ndarray
    proposals: Proposals


@torch.no_grad()
def network_stages(predictor: Predictor, image: np.ndarray) -> Stages:
    """Run the steps on an image, as `Detector.detect` does, and keep their outputs."""
    fitted = predictor.prepare(image).fitted
    pixels, _ = stack([fitted.pixels])
    windows = np.array([fitted.window])
    images = predictor.model.normalize(torch.from_numpy(pixels), torch.from_numpy(windows))
    return stages_of(predictor, images.contiguous(), windows)


def stages_of(predictor: Predictor, images: torch.Tensor, windows: np.ndarray) -> Stages:
    """Run the steps on normalised images (1, 3, H, W)."""
    model = predictor.model
    features, rpn = model(images)
    trunk = model.trunk(features, rpn, (images.shape[-2], images.shape[-1]))
    proposals = propose(trunk, windows.astype(np.float32), model.anchors, model.config, model.conventions)
    return Stages(features, rpn, model.anchors(trunk.maps_hw, trunk.input_hw), proposals)


def compare_detections(
    ours: Detections, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, rles: list[RLE], *, skip: set[int]
) -> dict[str, float]:
    """Match our detections one to one with the nearest reference of their class; return the largest differences.

    The order is not compared: rounding can swap equal scores. `skip` are indices of reference detections whose
    masks depend on rounding in the reference itself.
    """
    assert len(ours) == len(boxes) > 0
    distance = np.abs(ours.boxes[:, None] - boxes[None]).max(2).astype(float)
    distance[ours.class_ids[:, None] != classes[None]] = np.inf
    matches = distance.argmin(1)
    assert sorted(matches) == list(range(len(boxes)))
    ious = [
        float(iou_matrix([rle], [rles[k]])[0, 0])
        for rle, k in zip(ours.rles, matches, strict=True)
        if k not in skip and (rle.area or rles[k].area)
    ]
    return {
        "box": float(distance.min(1).max()),
        "score": float(np.abs(ours.scores - scores[matches]).max()),
        "mask iou": min(ious),
    }


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference in standard deviations of the reference."""
    return float(np.abs(ours - theirs).max() / theirs.std())
