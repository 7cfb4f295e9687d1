"""Training targets: a sample of anchors, a sample of regions, and the masks inside the regions.

B images, G instances of the fullest image, K anchors, S sampled anchors, R sampled regions, P positive regions
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from maskrcnn.config import TrainConfig
from maskrcnn.detection.boxes import encode_boxes, iou
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.stages import Proposals
from maskrcnn.kernels.masks import coverage_of_boxes
from maskrcnn.structures import Targets
from maskrcnn.training.matcher import match
from maskrcnn.training.sampler import sample_labels

ANCHOR_POSITIVE_FRACTION = 0.5


@dataclass(frozen=True)
class Truth:
    """Instances of a batch as tensors: boxes (B, G, 4), labels (B, G), valid (B, G). Their masks stay in `targets`."""

    boxes: Tensor
    labels: Tensor
    valid: Tensor
    targets: Sequence[Targets]

    @classmethod
    def of(cls, targets: Sequence[Targets], device: torch.device) -> Truth:
        """Pad the instances of each image to the longest list."""
        G = max((len(t) for t in targets), default=0)
        boxes = np.zeros((len(targets), G, 4), np.float32)
        labels = np.zeros((len(targets), G), np.int64)
        valid = np.zeros((len(targets), G), bool)
        for b, target in enumerate(targets):
            n = len(target)
            boxes[b, :n], labels[b, :n], valid[b, :n] = target.boxes, target.labels, True
        boxes_t, labels_t, valid_t = (torch.from_numpy(array).to(device) for array in (boxes, labels, valid))
        return cls(boxes_t, labels_t, valid_t, targets)


@dataclass(frozen=True)
class AnchorSample:
    """Sampled anchors (S,): image, index over all levels, label 1 or 0, and box deltas (0 for negatives)."""

    image_index: Tensor
    anchor_index: Tensor
    labels: Tensor
    deltas: Tensor


@dataclass(frozen=True)
class RegionSample:
    """Sampled regions of all images: boxes (R, 4), image, label (0 is background), instance, and box deltas."""

    boxes: Tensor
    image_index: Tensor
    labels: Tensor
    instance: Tensor
    deltas: Tensor


@torch.no_grad()
def sample_anchors(
    anchors: Tensor, truth: Truth, config: TrainConfig, conventions: Conventions, generators: Sequence[Generator]
) -> AnchorSample:
    """Match all anchors (K, 4) with each image's instances and draw ``rpn_batch`` of them with its generator."""
    columns: list[tuple[Tensor, ...]] = []
    for b in range(len(truth.targets)):
        true_boxes = truth.boxes[b, truth.valid[b]]  # (G, 4)
        overlap, positive, negative = iou(true_boxes, anchors), config.rpn_positive_iou, config.rpn_negative_iou
        instance, label = match(overlap, positive=positive, negative=negative, best_counts=True)
        positives, negatives = sample_labels(label, config.rpn_batch, ANCHOR_POSITIVE_FRACTION, generators[b])
        chosen = torch.cat([positives, negatives])
        deltas = anchors.new_zeros(len(chosen), 4)
        if len(positives):
            matched = true_boxes[instance[positives]]
            deltas[: len(positives)] = encode_boxes(matched, anchors[positives], conventions.rpn_delta_weights)
        columns.append((torch.full_like(chosen, b), chosen, label[chosen].float(), deltas))
    return AnchorSample(*(torch.cat(column) for column in zip(*columns, strict=True)))


@torch.no_grad()
def sample_regions(
    proposals: Proposals, truth: Truth, config: TrainConfig, conventions: Conventions, generators: Sequence[Generator]
) -> RegionSample:
    """Match the proposals and true boxes of each image with its instances; draw ``roi_batch`` with its generator."""
    proposed_boxes = torch.as_tensor(proposals.boxes, device=truth.boxes.device)
    proposed_images = torch.as_tensor(proposals.image_index, device=truth.boxes.device)
    columns: list[tuple[Tensor, ...]] = []
    for b in range(len(truth.targets)):
        true_boxes = truth.boxes[b, truth.valid[b]]
        regions = torch.cat([proposed_boxes[proposed_images == b], true_boxes])  # good ones from the start
        threshold = config.roi_positive_iou
        instance, label = match(iou(true_boxes, regions), positive=threshold, negative=threshold, best_counts=False)
        positives, negatives = sample_labels(label, config.roi_batch, config.roi_positive_fraction, generators[b])
        chosen = torch.cat([positives, negatives])
        boxes, instances = regions[chosen], instance[chosen]
        labels = torch.zeros_like(instances)
        deltas = torch.zeros_like(boxes)
        n = len(positives)
        if n:
            labels[:n] = truth.labels[b, instances[:n]]
            deltas[:n] = encode_boxes(true_boxes[instances[:n]], boxes[:n], conventions.box_delta_weights)
        columns.append((boxes, torch.full_like(instances, b), labels, instances, deltas))
    return RegionSample(*(torch.cat(column) for column in zip(*columns, strict=True)))


def first_of_each_image(rows: Tensor, image_index: Tensor, limit: int) -> Tensor:
    """At most `limit` of the `rows` (P,) of each image, which are in random order; `image_index` (R,) is by region."""
    parts = [rows[image_index[rows] == b][:limit] for b in image_index[rows].unique().tolist()]
    return torch.cat(parts) if parts else rows


def mask_targets(boxes_px: Tensor, image_index: Tensor, instance: Tensor, truth: Truth, size: int) -> Tensor:
    """Share (P, size, size) in [0, 1] of each cell of boxes (P, 4), in input pixels, that their instance (P,) covers.

    Boxes are mapped back onto the original runs, and grids mirrored and turned like the image: no mask is rasterised.
    """
    boxes, images, instances = boxes_px.cpu().numpy(), image_index.cpu().numpy(), instance.cpu().numpy()
    result = np.zeros((len(boxes), size, size), np.float32)
    for b, target in enumerate(truth.targets):
        rows = np.flatnonzero(images == b)
        if len(rows) == 0:
            continue
        source = target.placement.boxes_to_source(boxes[rows])
        runs, offsets, height = target.masks.runs, target.masks.offsets, target.source_hw[0]
        grids = coverage_of_boxes(runs, offsets, height, instances[rows], source, size)
        result[rows] = target.placement.grid_to_input(grids)
    return torch.from_numpy(result).to(boxes_px.device)
