"""What passes between the steps: `Targets` (with their `Placement`) into training, `Proposals`, `Detections` out.

Boxes are ``(x1, y1, x2, y2)`` in pixels of the array they belong to. Coordinates are continuous and pixel ``i`` spans
``[i, i + 1)``: a box is half-open, ``x2`` of a mask's box is its last column + 1, and one pixel has a 1 x 1 box.

    B images, R proposals of an image, N detections, H x W pixels
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskrcnn.rle import RLE, RunTable, remove_overlaps

if TYPE_CHECKING:
    import torch

LEAST_LEFT = 0.5
"""Part of a mask that a detection must keep where masks may not overlap: a sliver beside a better one is no object."""


@dataclass(frozen=True)
class Placement:
    """How a picture came into the network's input: a window of it was scaled, mirrored and turned, in that order.

    `window` (x1, y1, x2, y2) is in source pixels; the window became `hw` pixels high and wide, was then mirrored left
    to right if `mirrored`, and turned counter-clockwise by `turns` quarters.
    """

    window: tuple[int, int, int, int]
    hw: tuple[int, int]
    mirrored: bool = False
    turns: int = 0

    @property
    def scale_wh(self) -> np.ndarray:
        """(2,) factors from source pixels to the scaled window."""
        x1, y1, x2, y2 = self.window
        return np.array([self.hw[1] / (x2 - x1), self.hw[0] / (y2 - y1)])

    @property
    def input_hw(self) -> tuple[int, int]:
        """Height and width of what comes out, after the turns."""
        return self.hw if self.turns % 2 == 0 else (self.hw[1], self.hw[0])

    def boxes_to_input(self, boxes: np.ndarray) -> np.ndarray:
        """(N, 4) xyxy in source pixels -> float64 in pixels of the network's input."""
        factor = np.tile(self.scale_wh, 2)
        boxes = (np.asarray(boxes, np.float64) - np.tile(self.window[:2], 2)) * factor
        h, w = self.hw
        if self.mirrored:
            boxes = np.stack([w - boxes[:, 2], boxes[:, 1], w - boxes[:, 0], boxes[:, 3]], 1)
        for _ in range(self.turns % 4):
            boxes = np.stack([boxes[:, 1], w - boxes[:, 2], boxes[:, 3], w - boxes[:, 0]], 1)
            h, w = w, h
        return boxes

    def boxes_to_source(self, boxes: np.ndarray) -> np.ndarray:
        """The inverse of `boxes_to_input`."""
        boxes = np.asarray(boxes, np.float64)
        h, w = self.input_hw
        for _ in range(self.turns % 4):
            boxes = np.stack([h - boxes[:, 3], boxes[:, 0], h - boxes[:, 1], boxes[:, 2]], 1)
            h, w = w, h
        if self.mirrored:
            boxes = np.stack([w - boxes[:, 2], boxes[:, 1], w - boxes[:, 0], boxes[:, 3]], 1)
        return boxes / np.tile(self.scale_wh, 2) + np.tile(self.window[:2], 2)

    def grid_to_input(self, grid: np.ndarray) -> np.ndarray:
        """(..., M, M) arrays that lie over source boxes, mirrored and turned as the picture was."""
        if self.mirrored:
            grid = grid[..., ::-1]
        return np.rot90(grid, self.turns, (-2, -1))


@dataclass(frozen=True)
class Targets:
    """The instances of one training image.

    boxes (N, 4) float32 xyxy in pixels of the network's input; labels (N,) int64, 1-based. The masks stay in the
    pixels of the source, N run lists over `source_hw`; `placement` leads from there to the input. So a mask target is
    sampled from the original mask, whatever scale, crop, mirror and turn the picture went through.
    """

    boxes: np.ndarray
    labels: np.ndarray
    masks: RunTable
    source_hw: tuple[int, int]
    placement: Placement

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Proposals:
    """Boxes that may hold an object, padded to one length: boxes (B, R, 4), logits (B, R), valid (B, R) bool."""

    boxes: torch.Tensor
    logits: torch.Tensor
    valid: torch.Tensor


@dataclass
class Detections:
    """The instances found in one image, best first, in pixels of that image.

    boxes (N, 4) float32 xyxy, scores (N,) float32, class_ids (N,) of the data's own ids, class_names and rles: N each.
    `hw` is the image's height and width, `image` its path where it came from a file, `vocabulary` all class names of
    the model, in its order.
    """

    boxes: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray
    class_names: list[str]
    rles: list[RLE]
    hw: tuple[int, int]
    image: str | None = None
    pixels: np.ndarray | None = field(default=None, repr=False)
    vocabulary: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        n = len(self.scores)
        sizes = {
            "boxes": (len(self.boxes), *self.boxes.shape[1:]),
            "class_ids": (len(self.class_ids),),
            "class_names": (len(self.class_names),),
            "rles": (len(self.rles),),
        }
        for name, size in sizes.items():
            expected = (n, 4) if name == "boxes" else (n,)
            if size != expected:
                raise ValueError(f"{name} has the shape {size}; {n} scores need {expected}")

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: np.ndarray | slice) -> Detections:
        """The detections of a boolean mask, an index array or a slice."""
        chosen = np.arange(len(self))[index]
        return Detections(
            self.boxes[chosen],
            self.scores[chosen],
            self.class_ids[chosen],
            [self.class_names[i] for i in chosen],
            [self.rles[i] for i in chosen],
            self.hw,
            self.image,
            self.pixels,
            self.vocabulary,
        )

    @property
    def masks(self) -> np.ndarray:
        """Dense (N, H, W) bool, made anew at every call."""
        masks = np.zeros((len(self), *self.hw), bool)
        for mask, rle in zip(masks, self.rles, strict=True):
            mask[:] = rle.to_mask()
        return masks

    def without_overlaps(self) -> Detections:
        """Every pixel goes to the detection of the highest score; what keeps less than half of its mask is dropped."""
        rles = self._rles_apart()
        kept = replace(self, rles=rles)
        return kept[np.array([r.area > 0 for r in rles], bool)]

    def _rles_apart(self) -> list[RLE]:
        parts = remove_overlaps(self.rles, np.argsort(-self.scores, kind="stable"))
        whole = (part.area and part.area >= LEAST_LEFT * mask.area for part, mask in zip(parts, self.rles, strict=True))
        return [part if kept else RLE.empty(self.hw) for part, kept in zip(parts, whole, strict=True)]

    def encoded_pixels(self, overlap: str | None = "score") -> list[str]:
        """Kaggle EncodedPixels, one a detection.

        With ``overlap="score"`` a pixel belongs to the detection of the highest score alone, and a detection that
        keeps less than half of its pixels gives the empty text; with None masks may share pixels.
        """
        if overlap not in ("score", None):
            raise ValueError(f'overlap is "score" or None, not {overlap!r}')
        rles = self._rles_apart() if overlap == "score" else self.rles
        return [r.to_encoded_pixels() for r in rles]

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """COCO results: image_id, category_id, bbox (x, y, width, height), score and segmentation of each."""
        return [
            {
                "image_id": image_id,
                "category_id": _plain(self.class_ids[i]),
                "bbox": [round(float(v), 3) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
                "score": round(float(self.scores[i]), 6),
                "segmentation": self.rles[i].to_coco(),
            }
            for i, box in enumerate(self.boxes)
        ]

    def save_overlay(self, path: str | Path) -> None:
        """Write the image with outlines, boxes, class names and scores; colours tell classes, or instances of one."""
        from maskrcnn.drawing import draw_instances
        from maskrcnn.files import write_image

        if self.pixels is None:
            raise ValueError("these detections do not hold their image; predict with keep_pixels=True")
        labels = [f"{name} {score:.2f}" for name, score in zip(self.class_names, self.scores, strict=True)]
        order = self.vocabulary or sorted(set(self.class_names))
        colors = np.array([order.index(name) for name in self.class_names], int) if len(order) > 1 else None
        write_image(draw_instances(self.pixels, self.rles, self.boxes, labels, colors), path)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
