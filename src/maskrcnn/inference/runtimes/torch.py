"""The network in torch: on a CPU with `inference.regions` between its parts, on other devices with torch throughout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from maskrcnn.config import PredictConfig
from maskrcnn.inference.regions import DETECTIONS, VOTING_IOU, Found, Graphs, Trunk, least_candidate
from maskrcnn.inference.runtimes import CpuRuntime
from maskrcnn.model.anchors import POOLED_LEVELS
from maskrcnn.model.boxes import clip_boxes, decode_boxes, vote_boxes
from maskrcnn.model.conventions import Conventions
from maskrcnn.model.layers import channels_last
from maskrcnn.model.mask_rcnn import MaskRCNN, Stages


@dataclass(frozen=True)
class Kept:
    """Detections of a batch, image by image, best first; boxes (N, 4) in the network's units."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    image_index: Tensor


class TorchRuntime(CpuRuntime):
    """Runs `model`, as it is, on `device`."""

    name = "torch"

    def __init__(self, model: MaskRCNN, device: torch.device | str = "cpu") -> None:
        super().__init__(model.config, model.conventions)
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()

    def graphs(self) -> TorchRuntime:
        """Itself: torch serves any thread."""
        return self

    def detect(
        self, pixels: np.ndarray, windows: np.ndarray, predict: PredictConfig, graphs: Graphs | None = None
    ) -> Found:
        """See `CpuRuntime`; off the CPU there are no graphs to look on."""
        if self.device.type == "cpu":
            return super().detect(pixels, windows, predict, graphs)
        _, kept, masks = self.stages(pixels, windows, predict)
        values = (kept.boxes, kept.scores, kept.labels, kept.image_index, masks)
        boxes, scores, labels, image_index, grids = (t.cpu().numpy() for t in values)
        return Found(boxes, scores, labels, image_index, grids)

    @torch.no_grad()
    def trunk(self, pixels: np.ndarray, windows: np.ndarray) -> Trunk:
        """See `regions.Graphs`."""
        features = self.model.extract(self._images(pixels, torch.from_numpy(windows)))
        rpn = self.model.rpn(features)
        return self.trunk_of(
            [channels_last(f) for f in features[:POOLED_LEVELS]],
            torch.cat(rpn.objectness_logits, 1).numpy(),
            torch.cat(rpn.anchor_deltas, 1).numpy(),
            (pixels.shape[1], pixels.shape[2]),
        )

    @torch.no_grad()
    def box_head(self, pooled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `regions.Graphs`."""
        logits, deltas = self.model.box_head(torch.from_numpy(pooled).permute(0, 3, 1, 2))
        return logits.numpy(), deltas.numpy()

    @torch.no_grad()
    def mask_head(self, pooled: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """See `regions.Graphs`."""
        return self.model.mask_head(torch.from_numpy(pooled).permute(0, 3, 1, 2), torch.from_numpy(labels)).numpy()

    @torch.no_grad()
    def stages(self, pixels: np.ndarray, windows: np.ndarray, predict: PredictConfig) -> tuple[Stages, Kept, Tensor]:
        """Every step in torch: up to the box head, the boxes kept, their masks (N, M, M) in [0, 1]."""
        places = torch.from_numpy(windows).to(self.device)
        stages = self.model(self._images(pixels, places), places)
        kept = select_detections(
            stages,
            self.model.to_units(places.float(), stages.input_hw),
            predict,
            self.conventions,
        )
        logits = self.model.segment(stages.features, kept.boxes, kept.image_index, kept.labels)
        return stages, kept, logits.sigmoid()

    def _images(self, pixels: np.ndarray, windows: Tensor) -> Tensor:
        images = self.model.normalize(torch.from_numpy(pixels).to(self.device), windows)
        return images.contiguous() if self.conventions.planar else images


@torch.no_grad()
def select_detections(stages: Stages, windows: Tensor, predict: PredictConfig, conventions: Conventions) -> Kept:
    """`regions.select` in torch: classes above the threshold -> class-wise suppression -> the best -> votes on boxes.

    `windows` (B, 4) are the pictures in the inputs; like all boxes here they are in the network's units.
    """
    probabilities = stages.class_logits.softmax(-1)  # (B, R, K + 1)
    enough = torch.ge if conventions.best_class_only else torch.gt
    wanted = enough(probabilities, least_candidate(predict))
    if conventions.best_class_only:
        likeliest = torch.zeros_like(wanted)
        likeliest.scatter_(-1, probabilities.argmax(-1, keepdim=True), True)
        wanted &= likeliest
    wanted, probabilities = wanted[..., 1:] & stages.proposals.valid[..., None], probabilities[..., 1:]
    parts = []
    for b in range(len(windows)):
        row, label = wanted[b].nonzero(as_tuple=True)
        boxes = decode_boxes(
            stages.box_deltas[b, row, label + 1],
            stages.proposals.boxes[b, row],
            conventions.box_delta_weights,
            conventions.delta_clip,
        )
        boxes = clip_boxes(boxes[None], windows[b : b + 1])[0]
        scores, label = probabilities[b, row, label], label + 1
        large = ((boxes[:, 2:] - boxes[:, :2]) > conventions.smallest_detection).all(1)
        rows = (large & enough(scores, predict.score_threshold)).nonzero()[:, 0]
        keep = batched_nms(boxes[rows], scores[rows], label[rows], predict.nms_threshold)
        keep = rows[keep[: predict.detections or DETECTIONS]]
        found = vote_boxes(boxes, scores, label, keep, VOTING_IOU) if predict.box_voting else boxes[keep]
        parts.append((found, scores[keep], label[keep], torch.full_like(keep, b)))
    return Kept(*(torch.cat(column) for column in zip(*parts, strict=True)))
