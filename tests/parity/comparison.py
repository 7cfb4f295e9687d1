"""What the tests against other programs compare with, and how detections are matched."""

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
    """The same for normalised images (1, 3, H, W)."""
    model = predictor.model
    features, rpn = model(images)
    trunk = model.trunk(features, rpn, (images.shape[-2], images.shape[-1]))
    proposals = propose(trunk, windows.astype(np.float32), model.anchors, model.config, model.conventions)
    return Stages(features, rpn, model.anchors(trunk.maps_hw, trunk.input_hw), proposals)


def same_detections(
    found: Detections, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, rles: list[RLE], *, off: set[int]
) -> dict[str, float]:
    """Pair each of ours with the nearest of theirs of its class, one to one; the largest differences.

    Neighbours of equal score can swap by rounding, so order is not compared. `off` are theirs whose masks hang on a
    rounding in the reference itself.
    """
    assert len(found) == len(boxes) > 0
    distance = np.abs(found.boxes[:, None] - boxes[None]).max(2).astype(float)
    distance[found.class_ids[:, None] != classes[None]] = np.inf
    partner = distance.argmin(1)
    assert sorted(partner) == list(range(len(boxes)))
    ious = [
        float(iou_matrix([mine], [rles[k]])[0, 0])
        for mine, k in zip(found.rles, partner, strict=True)
        if k not in off and (mine.area or rles[k].area)
    ]
    return {
        "box": float(distance.min(1).max()),
        "score": float(np.abs(found.scores - scores[partner]).max()),
        "mask iou": min(ious),
    }


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference in units of the reference's standard deviation."""
    return float(np.abs(ours - theirs).max() / theirs.std())
