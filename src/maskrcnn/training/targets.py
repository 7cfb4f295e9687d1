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
from maskrcnn.detection.arrays import beside, group_sizes, to_device, to_numpy
from maskrcnn.detection.boxes import encode_boxes, iou, share_inside
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.stages import Proposals
from maskrcnn.kernels.masks import coverage_of_boxes
from maskrcnn.structures import Targets
from maskrcnn.training.matcher import NEGATIVE, NEITHER, match
from maskrcnn.training.sampler import sample_labels

ANCHOR_POSITIVE_FRACTION = 0.5

MIN_SHARE_IN_CROWD = 0.5
"""Share of a box inside the box of a crowd region from which it is not background. COCO's scores do not count such a
detection either: its IoU with a crowd is over the area of the detection."""


@dataclass(frozen=True)
class Truth:
    """Instances of a batch as tensors: boxes (B, G, 4), labels (B, G). Counts and masks stay in `targets`.

    `crowd_boxes` (B, C, 4) are those of crowd regions, padded with empty boxes.
    """

    boxes: Tensor
    labels: Tensor
    targets: Sequence[Targets]
    crowd_boxes: Tensor

    @classmethod
    def of(cls, targets: Sequence[Targets], device: torch.device) -> Truth:
        """Pad the instances of each image to the longest list."""
        G = max((len(t) for t in targets), default=0)
        boxes = np.zeros((len(targets), G, 4), np.float32)
        labels = np.zeros((len(targets), G), np.int64)
        for b, target in enumerate(targets):
            n = len(target)
            boxes[b, :n], labels[b, :n] = target.boxes, target.labels
        crowd_boxes = np.zeros((len(targets), max((len(t.crowd_boxes) for t in targets), default=0), 4), np.float32)
        for b, target in enumerate(targets):
            crowd_boxes[b, : len(target.crowd_boxes)] = target.crowd_boxes
        return cls(to_device(boxes, device), to_device(labels, device), targets, to_device(crowd_boxes, device))

    def boxes_of(self, b: int) -> Tensor:
        """Boxes of the instances of image b, without padding."""
        return self.boxes[b, : len(self.targets[b])]

    def without_crowd(self, b: int, label: Tensor, boxes: Tensor) -> Tensor:
        """Return the labels (N,) of boxes (N, 4) of image b, with NEITHER for the negatives in a crowd region."""
        if self.crowd_boxes.shape[1] == 0:
            return label
        is_inside = share_inside(boxes, self.crowd_boxes[b]).amax(1) >= MIN_SHARE_IN_CROWD
        return torch.where((label == NEGATIVE) & is_inside, NEITHER, label)


@dataclass(frozen=True)
class AnchorSample:
    """Sampled anchors (S,): image, index over all levels, label 1 or 0, and box deltas (0 for negatives).

    `positive` (P,) are the rows of the positives.
    """

    image_index: Tensor
    anchor_index: Tensor
    labels: Tensor
    deltas: Tensor
    positive: Tensor


@dataclass(frozen=True)
class RegionSample:
    """Sampled regions of all images: boxes (R, 4), image, label (0 is background), instance, and box deltas.

    `positive` (P,) are the rows of the positives, in random order within an image, and `masked` those of the first
    ``mask_batch`` of each image, which train the mask head.
    """

    boxes: Tensor
    image_index: Tensor
    labels: Tensor
    instance: Tensor
    deltas: Tensor
    positive: Tensor
    masked: Tensor


def match_anchors(overlap: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """Instances and labels (K,) of anchors, by `match`, from their IoUs (G, K) with the instances."""
    return match(overlap, positive=config.rpn_positive_iou, negative=config.rpn_negative_iou, best_counts=True)


def match_regions(overlap: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """Instances and labels (N,) of regions, by `match`, from their IoUs (G, N) with the instances."""
    return match(overlap, positive=config.roi_positive_iou, negative=config.roi_positive_iou, best_counts=False)


@torch.no_grad()
def sample_anchors(
    anchors: Tensor, truth: Truth, config: TrainConfig, conventions: Conventions, generators: Sequence[Generator]
) -> AnchorSample:
    """Match all anchors (K, 4) with each image's instances and draw ``rpn_batch`` of them with its generator."""
    columns: list[tuple[Tensor, ...]] = []
    counts = []
    for b in range(len(truth.targets)):
        true_boxes = truth.boxes_of(b)
        instance, label = match_anchors(iou(true_boxes, anchors), config)
        label = truth.without_crowd(b, label, anchors)
        positives, negatives = sample_labels(label, config.rpn_batch, ANCHOR_POSITIVE_FRACTION, generators[b])
        chosen = torch.cat([positives, negatives])
        deltas = anchors.new_zeros(len(chosen), 4)
        if len(positives):
            matched = true_boxes[instance[positives]]
            deltas[: len(positives)] = encode_boxes(matched, anchors[positives], conventions.rpn_delta_weights)
        columns.append((torch.full_like(chosen, b), chosen, label[chosen].float(), deltas))
        counts.append((len(chosen), len(positives)))
    image_index, anchor_index, labels, deltas = (torch.cat(column) for column in zip(*columns, strict=True))
    return AnchorSample(image_index, anchor_index, labels, deltas, _positive_rows(counts, anchors))


@torch.no_grad()
def sample_regions(
    proposals: Proposals, truth: Truth, config: TrainConfig, conventions: Conventions, generators: Sequence[Generator]
) -> RegionSample:
    """Match the proposals and true boxes of each image with its instances; draw ``roi_batch`` with its generator."""
    per_image = group_sizes(proposals.image_index, len(truth.targets))
    proposed = to_device(proposals.boxes, truth.boxes.device).split(per_image)
    columns: list[tuple[Tensor, ...]] = []
    counts = []
    for b in range(len(truth.targets)):
        true_boxes = truth.boxes_of(b)
        regions = torch.cat([proposed[b], true_boxes])  # good ones from the start
        instance, label = match_regions(iou(true_boxes, regions), config)
        label = truth.without_crowd(b, label, regions)
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
        counts.append((len(chosen), n))
    boxes, image_index, labels, instance, deltas = (torch.cat(column) for column in zip(*columns, strict=True))
    positive, masked = _positive_rows(counts, boxes), _positive_rows(counts, boxes, config.mask_batch)
    return RegionSample(boxes, image_index, labels, instance, deltas, positive, masked)


def _positive_rows(counts: Sequence[tuple[int, int]], tensor: Tensor, limit: int | None = None) -> Tensor:
    """Rows of the positives, at most `limit` of each image, on the device of `tensor`.

    `counts` has the number of samples and of positives of each image, whose samples begin with the positives.
    """
    rows, start = [], 0
    for n_samples, n_positives in counts:
        rows.append(np.arange(start, start + n_positives)[:limit])
        start += n_samples
    return beside(np.concatenate(rows), tensor)


def mask_targets(boxes_px: Tensor, image_index: Tensor, instance: Tensor, truth: Truth, size: int) -> Tensor:
    """Share (P, size, size) in [0, 1] of each cell of boxes (P, 4), in input pixels, that their instance (P,) covers.

    Boxes are mapped back onto the original runs, and grids mirrored and turned like the image: no mask is rasterised.
    """
    packed = torch.cat([boxes_px.float(), image_index[:, None].float(), instance[:, None].float()], 1)
    values = to_numpy(packed)  # one copy, because each waits for all work that a GPU has queued
    boxes, images, instances = values[:, :4], values[:, 4], values[:, 5].astype(np.int64)
    on_gpu = boxes_px.device.type == "cuda"
    coverage = torch.zeros(len(boxes), size, size, pin_memory=on_gpu)  # page-locked: copied while the GPU computes
    result = coverage.numpy()
    for b, target in enumerate(truth.targets):
        rows = np.flatnonzero(images == b)
        if len(rows) == 0:
            continue
        source = target.placement.boxes_to_source(boxes[rows])
        runs, offsets, height = target.masks.runs, target.masks.offsets, target.source_hw[0]
        grids = coverage_of_boxes(runs, offsets, height, instances[rows], source, size)
        result[rows] = target.placement.grid_to_input(grids)
    return to_device(coverage, boxes_px.device)
