"""The steps of `maskrcnn.detection` in ONNX's dialect: modules that an exporter can trace, for one graph of everything.

The exporter fixes every size that Python sees, so here each size is a value of the graph, and loops over images become
operations on shapes. Constants and formulas come from `detection`. All pictures of a batch have one size.

B images, T candidates of an image, G groups that suppress within, R proposals and N detections of all images,
C channels, S pooled cells along a side, M x N cells of a map, K classes
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn.config import ModelConfig, PredictConfig
from maskrcnn.deploy.operations import LOWEST, RoiAlign, Suppress, lengths, resize_averaging, resize_plain
from maskrcnn.detection.anchors import Anchors
from maskrcnn.detection.boxes import clip_boxes, decode_boxes, sides, vote_boxes
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.fit import LARGEST_INPUT, STRIDE
from maskrcnn.detection.pool import BOX_POOL, CANONICAL_SIDE, level_of
from maskrcnn.detection.select import DEFAULT_DETECTIONS, VOTING_IOU, candidate_score, reaches


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
    """`detection.propose` and `detection.pool`: the trunk's outputs -> proposals, pooled for the box head."""

    def __init__(self, config: ModelConfig, anchors: Anchors, conventions: Conventions) -> None:
        super().__init__()
        self.config = config
        self.anchors = anchors
        self.conventions = conventions
        self.pool = _Pool(BOX_POOL, anchors, conventions)

    def forward(self, hw: Tensor, objectness: Tensor, deltas: Tensor, *maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Height and width (2,) of the pictures in the inputs and outputs of `TrunkGraph` -> proposals (R, 4), their
        images (R,) and features, (R, S*S*C) or (R, S, S, C) as the box head takes them.
        """
        boxes, logits, levels = self._candidates(objectness, deltas, maps)
        boxes = clip_boxes(boxes, _window(hw))
        valid = (sides(boxes).amin(-1) > self.conventions.smallest_proposal) & (
            logits >= max(self.conventions.objectness_floor, LOWEST)
        )
        n_levels = len(self.anchors.cells)
        limit = min(self.config.proposals, n_levels * self.config.proposals_per_level)
        kept = _suppress(boxes, logits, valid, levels, n_levels, self.config.proposal_nms_threshold, limit)
        image, row = _best(kept.reshape(logits.shape), limit)
        boxes = boxes[image, row]
        pooled = self.pool(boxes, image, maps)
        return boxes, image, pooled if self.config.box_convs else pooled.flatten(1)

    def _candidates(
        self, objectness: Tensor, deltas: Tensor, maps: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`best_anchors`: boxes (B, T, 4), logits (B, T), levels (T,). A level of few anchors is padded with -inf."""
        limit = self.config.proposals_per_level
        maps_hw = [lengths(m, 1, 2) for m in maps]
        input_hw = maps_hw[0] * self.anchors.strides[0]
        if self.config.pyramid == "fpn":
            maps_hw.append((maps_hw[-1] + 1) // 2)
        boxes, logits, levels = [], [], []
        start: Any = 0
        for level, map_hw in enumerate(maps_hw):
            grid = self._grid(level, map_hw, input_hw)
            end = start + grid.shape[0]
            best, index = F.pad(objectness[:, start:end], (0, limit), value=-math.inf).topk(limit)  # (B, limit)
            index = index.clamp(max=grid.shape[0] - 1)
            chosen = deltas[:, start:end].gather(1, index[..., None].expand(-1, -1, 4))
            boxes.append(
                decode_boxes(chosen, grid[index], self.conventions.rpn_delta_weights, self.conventions.delta_clip)
            )
            logits.append(best)
            levels.append(torch.full((limit,), level))
            start = end
        return torch.cat(boxes, 1), torch.cat(logits, 1), torch.cat(levels)

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
    """`detection.select` and `detection.pool`: the box head's outputs -> detections, pooled for the mask head."""

    def __init__(self, config: ModelConfig, anchors: Anchors, conventions: Conventions, predict: PredictConfig) -> None:
        super().__init__()
        self.conventions = conventions
        self.predict = predict
        self.pool = _Pool(config.mask_size // 2, anchors, conventions)

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
        (R,) -> boxes (N, 4) in pixels of the pictures, classes (N,) counted from 0, scores (N,), images (N,); then
        labels (N + 1,) and features (N + 1, S, S, C) for the mask head. Their last row is zeros, because the mask head
        fails on an empty batch.
        """
        probabilities = class_logits.softmax(-1)
        classes = probabilities.shape[1] - 1
        is_candidate = reaches(probabilities[:, 1:], candidate_score(self.predict), self.conventions)
        row, kind = is_candidate.nonzero(as_tuple=True)
        boxes = decode_boxes(
            box_deltas[row, kind + 1],
            regions[row],
            self.conventions.box_delta_weights,
            self.conventions.delta_clip,
        )
        boxes = clip_boxes(boxes, _window(hw))
        scores, image = probabilities[row, kind + 1], region_image[row]
        valid = (sides(boxes).amin(-1) > self.conventions.smallest_detection) & reaches(
            scores, self.predict.score_threshold, self.conventions
        )
        limit = self.predict.detections or DEFAULT_DETECTIONS
        group = image * classes + kind
        kept = _suppress(
            boxes[None],
            scores[None],
            valid[None],
            group,
            images.shape[0] * classes,
            self.predict.nms_threshold,
            limit,
        )
        each = torch.where(image == torch.arange(images.shape[0])[:, None], kept, -math.inf)  # (B, T)
        image, row = _best(F.pad(each, (0, limit), value=-math.inf), limit)
        found = vote_boxes(boxes, scores, group, row, VOTING_IOU) if self.predict.box_voting else boxes[row]

        picture_hw = lengths(images, 1, 2)
        placed = found * (picture_hw.double() / hw.double()).float()[[1, 0, 1, 0]]
        placed = clip_boxes(placed, _window(picture_hw))
        non_empty = (sides(placed).amin(-1) > 0).nonzero()[:, 0]
        image, row, placed = image[non_empty], row[non_empty], placed[non_empty]
        features = F.pad(self.pool(found[non_empty], image, maps), (0,) * 7 + (1,))
        return placed, kind[row], scores[row], image, F.pad(kind[row] + 1, (0, 1)), features


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
        inside = (masks >= 0.5).float()
        scores = scores * (masks * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
        order = (2 * image.double() - scores.double()).argsort()  # image by image, best first: a score is at most 1
        kept = order[scores[order] >= self.predict.score_threshold]
        return boxes[kept], classes[kept], scores[kept], image[kept], masks[kept]


class _Pool(nn.Module):
    """`detection.pool`: RoIAlign of each box from the map of its level."""

    def __init__(self, size: int, anchors: Anchors, conventions: Conventions) -> None:
        super().__init__()
        self.size = size
        self.strides = anchors.pooled_strides
        self.conventions = conventions

    def forward(self, boxes: Tensor, image: Tensor, maps: tuple[Tensor, ...]) -> Tensor:
        """Boxes (R, 4) of images (R,) on maps (B, M, N, C) -> (R, S, S, C)."""
        levels = self._levels(boxes, len(maps))
        parts, rows = [], []
        for level, feature in enumerate(maps):
            level_rows = (levels == level).nonzero()[:, 0]
            part = RoiAlign.apply(
                feature.permute(0, 3, 1, 2),
                boxes[level_rows],
                image[level_rows],
                self.size,
                self.strides[level],
                self.conventions.roi_samples,
                self.conventions.pooling == "aligned",
            )
            parts.append(part)
            rows.append(level_rows)
        order = torch.cat(rows)
        place = torch.zeros_like(order).scatter(0, order, torch.arange(boxes.shape[0]))
        return torch.cat(parts)[place].permute(0, 2, 3, 1)

    def _levels(self, boxes: Tensor, n_maps: int) -> Tensor:
        """`assign_levels` of boxes (R, 4)."""
        relative_side = sides(boxes).prod(-1).sqrt() / CANONICAL_SIDE
        return level_of(relative_side, self.conventions).clamp(0, n_maps - 1)


def _window(hw: Tensor) -> Tensor:
    """Height and width (2,) -> xyxy (1, 4)."""
    return F.pad(hw.flip(0), (2, 0))[None]


def _suppress(
    boxes: Tensor, scores: Tensor, valid: Tensor, groups: Tensor, n_groups: int, threshold: float, limit: int
) -> Tensor:
    """Scores (B*T,) of boxes (B, T, 4), -inf for those that are not `valid` (B, T) or suppressed in `groups` (T,).

    The result is flat because ONNX's Reshape cannot restore a T of 0.
    """
    in_group = (groups == torch.arange(n_groups)[:, None]) & valid[:, None]  # (B, G, T)
    image, _, box = Suppress.apply(boxes, torch.where(in_group, scores[:, None], -math.inf), threshold, limit).T
    place = image * scores.shape[1] + box
    flat = scores.flatten()
    return torch.full_like(flat, -math.inf).scatter(0, place, flat[place])


def _best(scores: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Image (N,) and index along T (N,) of the `limit` best scores (B, T) of each image above -inf, best first."""
    values, index = scores.topk(limit)
    image, rank = (values > LOWEST).nonzero(as_tuple=True)
    return image, index[image, rank]
