"""What lies before and between the network's three graphs, as torch modules that an exporter can trace.

`inference/fit.py`, `inference/regions.py` and `inference/postprocess.py` in operations of ONNX: every size is a value
of the graph, every loop over images or levels a matter of shapes. All pictures of a batch have one size.

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
from maskrcnn.data.augment import LARGEST_INPUT
from maskrcnn.data.batch import STRIDE
from maskrcnn.deploy.operations import LOWEST, RoiAlign, Suppress, lengths, resize_averaging, resize_plain
from maskrcnn.inference.regions import DETECTIONS, VOTING_IOU, least_candidate
from maskrcnn.model.anchors import POOLED_LEVELS, Anchors
from maskrcnn.model.boxes import clip_boxes, decode_boxes, vote_boxes
from maskrcnn.model.conventions import Conventions
from maskrcnn.model.mask_rcnn import BOX_POOL
from maskrcnn.model.pooling import CANONICAL_LEVEL, CANONICAL_SIDE, FINEST_LEVEL


class Fit(nn.Module):
    """Pictures as they are -> the network's input, by the rules of `inference/fit.py`, padded as in `data/batch.py`."""

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
        """Height and width (2,), float64, that `fit_picture` brings a picture to; int64."""
        # Tensors of one axis, all of them: the exporter takes those without for numbers, and rounds them to float32.
        # No numbers over tensors either: torch makes that a product with the reciprocal, which rounds otherwise.
        shorter = torch.tensor([self.conventions.shorter_side], dtype=torch.float64)
        longest = torch.tensor([self.config.image_size], dtype=torch.float64)
        low, high = hw.amin(0, keepdim=True), hw.amax(0, keepdim=True)
        if self.conventions.resize == "longer":
            if self.config.min_scale > 0:
                own = (high * torch.tensor([self.config.min_scale], dtype=torch.float64)).clamp(max=LARGEST_INPUT)
                longest = torch.maximum(longest, own.round())
            return (hw * (longest / high)).round().clamp(min=1).long()
        if self.conventions.resize == "shorter":
            return (hw * torch.minimum(shorter / low, longest / high)).long().clamp(min=1)
        sides = torch.where(hw == low, shorter, shorter / low * hw)
        return (sides * (longest / sides.amax(0, keepdim=True)).clamp(max=1) + 0.5).long().clamp(min=1)


class Propose(nn.Module):
    """The trunk's outputs -> proposals, pooled for the box head."""

    def __init__(self, config: ModelConfig, anchors: Anchors, conventions: Conventions) -> None:
        super().__init__()
        self.config = config
        self.anchors = anchors
        self.conventions = conventions
        self.pool = _Pool(BOX_POOL, anchors, conventions)

    def forward(self, hw: Tensor, objectness: Tensor, deltas: Tensor, *maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Height and width (2,) of the pictures in the inputs and what `TrunkGraph` makes of these -> proposals (R, 4),
        their images (R,) and features, (R, S*S*C) or (R, S, S, C) as the box head takes them.
        """
        boxes, logits, levels = self._candidates(objectness, deltas, maps)
        boxes = clip_boxes(boxes, _window(hw))
        wanted = (_sides(boxes).amin(-1) > self.conventions.smallest_proposal) & (
            logits >= max(self.conventions.objectness_floor, LOWEST)
        )
        n_levels = len(self.anchors.cells)
        most = min(self.config.proposals, n_levels * self.config.proposals_per_level)
        kept = _suppress(boxes, logits, wanted, levels, n_levels, self.config.proposal_nms_threshold, most)
        image, row = _best(kept.reshape(logits.shape), most)
        boxes = boxes[image, row]
        pooled = self.pool(boxes, image, maps)
        return boxes, image, pooled if self.config.box_convs else pooled.flatten(1)

    def _candidates(
        self, objectness: Tensor, deltas: Tensor, maps: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best anchors of each level, decoded: boxes (B, T, 4), logits (B, T), levels (T,). A level of fewer
        anchors is filled up with logits of -inf.
        """
        most = self.config.proposals_per_level
        maps_hw = [lengths(m, 1, 2) for m in maps]
        input_hw = maps_hw[0] * self.anchors.strides[0]
        if self.config.pyramid == "fpn":
            maps_hw.append((maps_hw[-1] + 1) // 2)
        boxes, logits, levels = [], [], []
        start: Any = 0
        for level, map_hw in enumerate(maps_hw):
            grid = self._grid(level, map_hw, input_hw)
            end = start + grid.shape[0]
            best, index = F.pad(objectness[:, start:end], (0, most), value=-math.inf).topk(most)  # (B, most)
            index = index.clamp(max=grid.shape[0] - 1)
            chosen = deltas[:, start:end].gather(1, index[..., None].expand(-1, -1, 4))
            boxes.append(
                decode_boxes(chosen, grid[index], self.conventions.rpn_delta_weights, self.conventions.delta_clip)
            )
            logits.append(best)
            levels.append(torch.full((most,), level))
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
    """The box head's outputs -> detections, their boxes voted on where that is asked for, pooled for the mask head."""

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
        """Pictures, their height and width (2,) in the input and what `BoxGraph` makes of regions (R, 4) of images (R,)
        -> boxes (N, 4) in pixels of the pictures, classes (N,) counted from 0, scores (N,), images (N,); then labels
        (N + 1,) and features (N + 1, S, S, C) for the mask head, which fails on nothing: their last row is zeros.
        """
        probabilities = class_logits.softmax(-1)
        classes = probabilities.shape[1] - 1
        row, kind = (probabilities[:, 1:] > least_candidate(self.predict)).nonzero(as_tuple=True)
        boxes = decode_boxes(
            box_deltas[row, kind + 1],
            regions[row],
            self.conventions.box_delta_weights,
            self.conventions.delta_clip,
        )
        boxes = clip_boxes(boxes[None], _window(hw))[0]
        scores, image = probabilities[row, kind + 1], region_image[row]
        wanted = (_sides(boxes).amin(-1) > self.conventions.smallest_detection) & (
            scores > self.predict.score_threshold
        )
        most = self.predict.detections or DETECTIONS
        group = image * classes + kind
        kept = _suppress(
            boxes[None],
            scores[None],
            wanted[None],
            group,
            images.shape[0] * classes,
            self.predict.nms_threshold,
            most,
        )
        each = torch.where(image == torch.arange(images.shape[0])[:, None], kept, -math.inf)  # (B, T)
        image, row = _best(F.pad(each, (0, most), value=-math.inf), most)
        found = vote_boxes(boxes, scores, group, row, VOTING_IOU) if self.predict.box_voting else boxes[row]

        picture_hw = lengths(images, 1, 2)
        placed = found * (picture_hw.double() / hw.double()).float()[[1, 0, 1, 0]]
        placed = clip_boxes(placed[None], _window(picture_hw))[0]
        whole = (_sides(placed).amin(-1) > 0).nonzero()[:, 0]
        image, row, placed = image[whole], row[whole], placed[whole]
        features = F.pad(self.pool(found[whole], image, maps), (0,) * 7 + (1,))
        return placed, kind[row], scores[row], image, F.pad(kind[row] + 1, (0, 1)), features


class Finish(nn.Module):
    """The mask head's output -> masks, and scores that take them in where `score_by_masks` would."""

    def __init__(self, predict: PredictConfig) -> None:
        super().__init__()
        self.predict = predict

    def forward(
        self, mask_logits: Tensor, boxes: Tensor, classes: Tensor, scores: Tensor, image: Tensor
    ) -> tuple[Tensor, ...]:
        """Logits (N + 1, M, M), of which the last row stands for nothing, and what `Select` found -> boxes, classes,
        scores, image, masks of what is left.
        """
        masks = mask_logits.sigmoid()[:-1]
        if not self.predict.mask_scoring:
            return boxes, classes, scores, image, masks
        inside = (masks >= 0.5).float()
        scores = scores * (masks * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
        order = (2 * image.double() - scores.double()).argsort()  # image by image, best first: a score is at most 1
        kept = order[scores[order] >= self.predict.score_threshold]
        return boxes[kept], classes[kept], scores[kept], image[kept], masks[kept]


class _Pool(nn.Module):
    """RoIAlign of each box from the map of its level, by the rules of `model/pooling.py`."""

    def __init__(self, size: int, anchors: Anchors, conventions: Conventions) -> None:
        super().__init__()
        self.size = size
        self.strides = anchors.strides[:POOLED_LEVELS]
        self.conventions = conventions

    def forward(self, boxes: Tensor, image: Tensor, maps: tuple[Tensor, ...]) -> Tensor:
        """Boxes (R, 4) of images (R,) on maps (B, M, N, C) -> (R, S, S, C)."""
        levels = self._levels(boxes, len(maps))
        parts, rows = [], []
        for level, feature in enumerate(maps):
            own = (levels == level).nonzero()[:, 0]
            part = RoiAlign.apply(
                feature.permute(0, 3, 1, 2),
                boxes[own],
                image[own],
                self.size,
                self.strides[level],
                self.conventions.roi_samples,
                self.conventions.pooling == "aligned",
            )
            parts.append(part)
            rows.append(own)
        order = torch.cat(rows)
        place = torch.zeros_like(order).scatter(0, order, torch.arange(boxes.shape[0]))
        return torch.cat(parts)[place].permute(0, 2, 3, 1)

    def _levels(self, boxes: Tensor, n_maps: int) -> Tensor:
        """`assign_levels` of boxes (R, 4)."""
        relative = _sides(boxes).prod(-1).sqrt() / CANONICAL_SIDE
        if self.conventions.level_rule == "floor-tight":
            level = CANONICAL_LEVEL + (relative + 1e-8).log2()
        else:
            level = CANONICAL_LEVEL + relative.log2() + 1e-6
        return (level.floor() - FINEST_LEVEL).clamp(0, n_maps - 1)


def _window(hw: Tensor) -> Tensor:
    """Height and width (2,) -> (1, 4) xyxy of the whole."""
    return F.pad(hw.flip(0), (2, 0))[None]


def _sides(boxes: Tensor) -> Tensor:
    """(..., 4) -> width and height (..., 2)."""
    return boxes[..., 2:] - boxes[..., :2]


def _suppress(
    boxes: Tensor, scores: Tensor, wanted: Tensor, groups: Tensor, n_groups: int, threshold: float, most: int
) -> Tensor:
    """Scores (B, T) of boxes (B, T, 4) as (B*T,), because a Reshape of ONNX cannot bring back a T of 0: -inf for all
    but those that are `wanted` (B, T) and survive suppression within `groups` (T,).
    """
    own = (groups == torch.arange(n_groups)[:, None]) & wanted[:, None]  # (B, G, T)
    image, _, box = Suppress.apply(boxes, torch.where(own, scores[:, None], -math.inf), threshold, most).T
    place = image * scores.shape[1] + box
    flat = scores.flatten()
    return torch.full_like(flat, -math.inf).scatter(0, place, flat[place])


def _best(scores: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The `most` best of each image that are not -inf, image by image, best first: image and index along T, (N,)."""
    values, index = scores.topk(most)
    image, rank = (values > LOWEST).nonzero(as_tuple=True)
    return image, index[image, rank]
