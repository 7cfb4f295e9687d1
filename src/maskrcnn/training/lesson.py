"""One picture as a training step sees it: matches of anchors and proposals, samples, and the five losses."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from maskrcnn.data.batch import Batch
from maskrcnn.data.dataset import targets_of
from maskrcnn.data.table import Dataset
from maskrcnn.detection.arrays import to_device, to_numpy
from maskrcnn.detection.boxes import iou, to_pixels
from maskrcnn.detection.fit import fitted_hw, place, stack
from maskrcnn.detection.stages import Proposals
from maskrcnn.inspection.trace import Lesson, Truth
from maskrcnn.rle import RunTable
from maskrcnn.structures import Placement
from maskrcnn.training.distributed import World
from maskrcnn.training.learner import Learner
from maskrcnn.training.targets import AnchorSample, RegionSample, match_anchors, match_regions

if TYPE_CHECKING:
    from maskrcnn.inference.predictor import Predictor


def lesson(predictor: Predictor, picture: np.ndarray, truth: Truth, sample: int) -> Lesson:
    """What a step of one image makes of `picture` (H, W, 3), unaugmented, as sample number `sample` of a run.

    The network learns nothing: the step runs on a copy. Raises `UserError` for a bundle, which cannot be trained.
    """
    config, conventions = predictor.config, predictor.conventions
    stages: dict[str, Any] = {}
    learner = Learner(deepcopy(predictor.model), config.train, World())
    learner.model.train()
    losses = learner.losses(_batch(predictor, picture, truth, sample), 1, stages.__setitem__)
    anchors: torch.Tensor = stages["anchors"]
    true_boxes = stages["true_boxes"][0]
    proposals: Proposals = stages["proposals"]
    anchor_sample: AnchorSample = stages["anchor_sample"]
    region_sample: RegionSample = stages["region_sample"]
    regions = torch.cat([to_device(proposals.boxes, true_boxes.device), true_boxes])
    anchor_overlap, region_overlap = iou(true_boxes, anchors), iou(true_boxes, regions)
    anchor_object, anchor_label = match_anchors(anchor_overlap, config.train)
    region_object, region_label = match_regions(region_overlap, config.train)
    input_hw = stack([_placed(predictor, picture)[0]])[0].shape[1:3]

    def in_pixels(boxes: torch.Tensor) -> np.ndarray:
        return to_pixels(to_numpy(boxes), input_hw, conventions)

    return Lesson(
        losses={name: float(value.detach()) for name, value in losses.items()},
        anchor_object=to_numpy(anchor_object),
        anchor_iou=_highest(anchor_overlap),
        anchor_label=to_numpy(anchor_label),
        sampled_anchors=to_numpy(anchor_sample.anchor_index),
        proposals=in_pixels(regions),
        proposal_object=to_numpy(region_object),
        proposal_iou=_highest(region_overlap),
        proposal_label=to_numpy(region_label),
        sampled_regions=in_pixels(region_sample.boxes),
        region_labels=to_numpy(region_sample.labels),
    )


def _placed(predictor: Predictor, picture: np.ndarray) -> tuple[np.ndarray, Placement]:
    """The picture as training scales it, without augmentation, and how."""
    hw = (picture.shape[0], picture.shape[1])
    placement = Placement((0, 0, hw[1], hw[0]), fitted_hw(hw, predictor.conventions, predictor.config.model))
    return place(picture, placement), placement


def _batch(predictor: Predictor, picture: np.ndarray, truth: Truth, sample: int) -> Batch:
    pixels, placement = _placed(predictor, picture)
    n = len(truth.labels)
    data = Dataset(
        source=Path("truth"),
        names=["picture"],
        files=[Path("picture")],
        sizes=np.array([picture.shape[:2]]),
        image_index=np.zeros(n, np.int64),
        labels=truth.labels,
        masks=RunTable.of(mask.runs for mask in truth.masks),
        rows=np.arange(n),
        class_ids=predictor.class_ids,
        class_names=predictor.class_names,
    )
    return Batch(*stack([pixels]), [targets_of(data, 0, placement)], data.names, [sample], [])


def _highest(overlap: torch.Tensor) -> np.ndarray:
    """The highest IoU of each box, (N,), from `overlap` (G, N); 0 without objects."""
    return to_numpy(overlap.amax(0)) if len(overlap) else np.zeros(overlap.shape[1], np.float32)
