"""The steps of `maskrcnn.detection` in ONNX's dialect: modules that an exporter can trace, for one graph of everything.

The exporter fixes every size that Python sees, so here each size is a value of the graph, and loops over images become
operations on shapes. Constants and formulas come from `detection`. All pictures of a batch have one size.

B images, A cell anchors, G groups to suppress within, R proposals and N detections of all images, C channels,
S x S pooled cells, M x N cells of a map, M x M of a mask
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn.config import ModelConfig, PredictConfig
from maskrcnn.deploy.operations import LOWEST, RoiAlign, Suppress, lengths, resize_averaging, resize_plain
from maskrcnn.detection.anchors import Anchors, p6_length
from maskrcnn.detection.boxes import clip_boxes, decode_boxes, sides
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.finish import MASK_THRESHOLD
from maskrcnn.detection.fit import LARGEST_INPUT, STRIDE
from maskrcnn.detection.pool import BOX_POOL, CANONICAL_SIDE, level_of
from maskrcnn.detection.propose import keep_best
from maskrcnn.detection.select import select
from maskrcnn.detection.stages import Candidates, Proposals
from maskrcnn.detection.tensors import pool_by_level


class Fit(nn.Module):
    """`detection.fit`: pictures -> padded network input."""

    def __init__(self, conventions: Conventions, config: ModelConfig, pixel_mean: Tensor) -> None:
        super().__init__()
        self.conventions = conventions
        self.config = config
        self.pixel_mean = pixel_mean

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, W, 3) uint8 -> (B, H', W', 3) float32, padded with the mean; height and width (2,) before that."""
        hw = self._fitted(lengths(images, 1, 2).double())
        pixels = (resize_plain if self.conventions.resize == "shorter" else resize_averaging)(images, hw).float()
        missing = (hw + STRIDE - 1) // STRIDE * STRIDE - hw
        pixels = F.pad(pixels, (0, 0, 0, missing[1], 0, missing[0]))  # type: ignore[arg-type]
        rows, columns = (torch.arange(pixels.shape[axis]) < hw[axis - 1] for axis in (1, 2))
        return torch.where((rows[:, None] & columns)[..., None], pixels, self.pixel_mean), hw

    def _fitted(self, hw: Tensor) -> Tensor:
        """Height and width (2,) float64 of a picture -> those that `fit_picture` scales it to, int64."""
        # Every tensor has one axis: the exporter takes scalars for numbers and rounds them to float32.
        # No number is divided by a tensor: torch multiplies by the reciprocal instead, which rounds differently.
        shorter = torch.tensor([self.conventions.shorter_side], dtype=torch.float64)
        longest = torch.tensor([self.config.image_size], dtype=torch.float64)
        low, high = hw.amin(0, keepdim=True), hw.amax(0, keepdim=True)
        if self.conventions.resize == "longer":
            if self.config.min_scale > 0:
                scaled = (high * torch.tensor([self.config.min_scale], dtype=torch.float64)).clamp(max=LARGEST_INPUT)
                longest = torch.maximum(longest, scaled.round())
            return (hw * (longest / high)).round().clamp(min=1).long()
        if self.conventions.resize == "shorter":
            return (hw * torch.minimum(shorter / low, longest / high)).long().clamp(min=1)
        sides = torch.where(hw == low, shorter, shorter / low * hw)
        return (sides * (longest / sides.amax(0, keepdim=True)).clamp(max=1) + 0.5).long().clamp(min=1)


class Propose(nn.Module):
    """`detection.propose` and `pool`: the trunk's outputs -> proposals, pooled for the box head."""

    def __init__(self, config: ModelConfig, anchors: Anchors, conventions: Conventions) -> None:
        super().__init__()
        self.config = config
        self.anchors = anchors
        # Anchors that fill up a small level have the logit -inf.
        self.conventions = conventions.changed(objectness_floor=max(conventions.objectness_floor, LOWEST))

    def forward(self, hw: Tensor, objectness: Tensor, deltas: Tensor, *maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures' height, width (2,), outputs of `TrunkGraph` -> proposals (R, 4), images (R,), box head input."""
        candidates = self._best_anchors(hw, objectness, deltas, maps)
        suppress = _Suppression(lengths(objectness, 0), len(self.anchors.cells))
        proposals = keep_best(candidates, self.config, self.conventions, suppress)
        pooled = _pool(maps, proposals.boxes, proposals.image_index, BOX_POOL, self.anchors, self.conventions)
        return proposals.boxes, proposals.image_index, pooled if self.config.box_convs else pooled.flatten(1)

    def _best_anchors(self, hw: Tensor, objectness: Tensor, deltas: Tensor, maps: tuple[Tensor, ...]) -> Candidates:
        """`best_anchors`, with equally many anchors from each level: logits of -inf fill up one with fewer."""
        limit = self.config.proposals_per_level
        maps_hw = [lengths(m, 1, 2) for m in maps]
        input_hw = maps_hw[0] * self.anchors.strides[0]
        if self.config.pyramid == "fpn":
            maps_hw.append(p6_length(maps_hw[-1]))
        boxes, logits = [], []
        start: Any = 0
        for level, map_hw in enumerate(maps_hw):
            grid = self._grid(level, map_hw, input_hw)
            end = start + grid.shape[0]
            best, index = F.pad(objectness[:, start:end], (0, limit), value=-math.inf).topk(limit)  # (B, limit)
            index = index.clamp(max=grid.shape[0] - 1)
            chosen = deltas[:, start:end].gather(1, index[..., None].expand(-1, -1, 4))
            weights, clip = self.conventions.rpn_delta_weights, self.conventions.delta_clip
            boxes.append(decode_boxes(chosen, grid[index], weights, clip))
            logits.append(best)
            start = end
        levels = torch.arange(len(maps_hw)).repeat_interleave(limit)
        return Candidates(clip_boxes(torch.cat(boxes, 1), _window(hw)), torch.cat(logits, 1), levels)

    def _grid(self, level: int, map_hw: Tensor, input_hw: Tensor) -> Tensor:
        """`Anchors` of one level, (M*N*A, 4)."""
        stride = torch.tensor([self.anchors.strides[level]] * 2)
        if self.conventions.stride_from_shape:
            stride = input_hw // map_hw
        y, x = ((torch.arange(map_hw[k]).float() + self.conventions.anchor_offset) * stride[k] for k in (0, 1))  # type: ignore[call-overload]
        cy, cx = torch.meshgrid(y, x, indexing="ij")
        centers = torch.stack([cx, cy, cx, cy], -1).reshape(-1, 1, 4)  # (M, N, 4) -> (M*N, 1, 4)
        return (centers + torch.from_numpy(self.anchors.cells[level])).reshape(-1, 4)


class Select(nn.Module):
    """`detection.select` and `pool`: the box head's outputs -> detections, pooled for the mask head."""

    def __init__(self, config: ModelConfig, anchors: Anchors, conventions: Conventions, predict: PredictConfig) -> None:
        super().__init__()
        self.size = config.mask_size // 2
        self.anchors = anchors
        self.conventions = conventions
        self.predict = predict

    def forward(
        self,
        images: Tensor,
        hw: Tensor,
        class_logits: Tensor,
        box_deltas: Tensor,
        regions: Tensor,
        region_image: Tensor,
        *maps: Tensor,
    ) -> tuple[Tensor, ...]:
        """Pictures, their height and width (2,) in the input, and outputs of `BoxGraph` for regions (R, 4) of images
        (R,) -> boxes (N, 4) in pixels of the pictures, classes (N,) from 0, scores (N,), images (N,); then labels
        (N + 1,) and features (N + 1, S, S, C) whose last row is zeros, because the mask head fails on an empty batch.
        """
        bounds = _window(hw).float().expand(images.shape[0], 4)
        suppress = _Suppression(lengths(images, 0), class_logits.shape[1])
        proposals = Proposals(regions, regions, region_image)
        selected = select(class_logits, box_deltas, proposals, bounds, self.predict, self.conventions, suppress)
        picture_hw = lengths(images, 1, 2)
        boxes = selected.boxes * (picture_hw.double() / hw.double()).float()[[1, 0, 1, 0]]
        boxes = clip_boxes(boxes, _window(picture_hw))
        rows = (sides(boxes).amin(-1) > 0).nonzero()[:, 0]  # of boxes that are not empty
        image, label, boxes = selected.image_index[rows], selected.labels[rows], boxes[rows]
        pooled = _pool(maps, selected.boxes[rows], image, self.size, self.anchors, self.conventions)
        return boxes, label - 1, selected.scores[rows], image, F.pad(label, (0, 1)), F.pad(pooled, (0,) * 7 + (1,))


class Finish(nn.Module):
    """`detection.finish.score_by_masks`, if the settings ask for it, and the masks as probabilities."""

    def __init__(self, predict: PredictConfig) -> None:
        super().__init__()
        self.predict = predict

    def forward(
        self, mask_logits: Tensor, boxes: Tensor, classes: Tensor, scores: Tensor, image: Tensor
    ) -> tuple[Tensor, ...]:
        """Logits (N + 1, M, M), last row unused, and outputs of `Select` -> boxes, classes, scores, image, masks."""
        masks = mask_logits.sigmoid()[:-1]
        if not self.predict.mask_scoring:
            return boxes, classes, scores, image, masks
        inside = (masks >= MASK_THRESHOLD).float()
        scores = scores * (masks * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
        order = (2 * image.double() - scores.double()).argsort()  # image by image, best first: a score is at most 1
        kept = order[scores[order] >= self.predict.score_threshold]
        return boxes[kept], classes[kept], scores[kept], image[kept], masks[kept]


def _pool(
    maps: tuple[Tensor, ...], boxes: Tensor, image_index: Tensor, size: int, anchors: Anchors, conventions: Conventions
) -> Tensor:
    """`detection.pool.pool`: boxes (R, 4) of images (R,) on maps (B, M, N, C) -> (R, S, S, C)."""
    levels = level_of(sides(boxes).prod(-1).sqrt() / CANONICAL_SIDE, conventions).clamp(0, len(maps) - 1)
    samples, aligned = conventions.roi_samples, conventions.pooling == "aligned"

    def pool_level(level: int, feature: Tensor, level_boxes: Tensor, images: Tensor) -> Tensor:
        return RoiAlign.apply(feature, level_boxes, images, size, anchors.strides[level], samples, aligned)

    features = [feature.permute(0, 3, 1, 2) for feature in maps]
    level_rows = [(levels == level).nonzero()[:, 0] for level in range(len(features))]
    return pool_by_level(features, boxes, image_index, level_rows, pool_level).permute(0, 2, 3, 1)


def _window(hw: Tensor) -> Tensor:
    """Height and width (2,) -> xyxy (1, 4)."""
    return F.pad(hw.flip(0), (2, 0))[None]


@dataclass(frozen=True)
class _Suppression:
    """`detection.boxes.suppress` by ONNX's operation, for a number of images (1,) that is a value of the graph.

    ONNX suppresses class by class, so groups are never shifted.
    """

    n_images: Tensor
    n_groups: int

    def __call__(
        self,
        boxes: Tensor,
        scores: Tensor,
        groups: Tensor,
        image_index: Tensor,
        _: int,
        threshold: float,
        limit: int,
        groups_shifted: bool,
    ) -> Tensor:
        group_index = torch.arange((self.n_images * self.n_groups)[0])[:, None]  # type: ignore[call-overload]
        in_group = image_index * self.n_groups + groups == group_index  # (G, N)
        masked = torch.where(in_group, scores, -math.inf)
        _image, _group, kept = Suppress.apply(boxes[None], masked[None], threshold, limit).T
        kept_scores = torch.full_like(scores, -math.inf).scatter(0, kept, scores[kept])
        in_image = image_index == torch.arange(self.n_images[0])[:, None]  # type: ignore[call-overload]
        by_image = torch.where(in_image, kept_scores, -math.inf)  # (B, N)
        values, index = F.pad(by_image, (0, limit), value=-math.inf).topk(limit)
        image, rank = (values > LOWEST).nonzero(as_tuple=True)
        return index[image, rank]
