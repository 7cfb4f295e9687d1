"""The types that enter training and leave prediction: `Targets` with their `Placement`, and `Detections`.

Boxes are ``(x1, y1, x2, y2)`` in pixels of the array they belong to. Coordinates are continuous and pixel ``i`` spans
``[i, i + 1)``. Boxes are half-open: ``x2`` of a mask's box is its last column + 1, and one pixel has a 1 x 1 box.

N instances, H x W pixels, M mask cells along a side
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskrcnn.errors import UserError, counted
from maskrcnn.reading import BY_ITSELF, Reading
from maskrcnn.rle import RLE, RunTable, remove_overlaps

if TYPE_CHECKING:
    import supervision
    from matplotlib.figure import Figure
    from PIL import Image

UNNAMED_CLASS = "object"
"""Name of the one class of data without classes."""

MIN_VISIBLE_FRACTION = 0.5
"""Minimum fraction of its mask that a detection keeps when overlaps are removed. Below it, the detection is dropped."""


@dataclass(frozen=True)
class Placement:
    """How a source image was transformed into the network's input: cropped, scaled, mirrored, then rotated.

    `window` (x1, y1, x2, y2) is the crop in source pixels, `hw` its height and width after scaling. `mirrored` swaps
    left and right. `turns` counts quarter turns counter-clockwise.
    """

    window: tuple[int, int, int, int]
    hw: tuple[int, int]
    mirrored: bool = False
    turns: int = 0

    @property
    def scale_wh(self) -> np.ndarray:
        """Factors (2,) from source pixels to pixels of the scaled window."""
        x1, y1, x2, y2 = self.window
        return np.array([self.hw[1] / (x2 - x1), self.hw[0] / (y2 - y1)])

    @property
    def input_hw(self) -> tuple[int, int]:
        """Height and width after the rotation."""
        return self.hw if self.turns % 2 == 0 else (self.hw[1], self.hw[0])

    def boxes_to_input(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) xyxy in source pixels -> float64 in pixels of the network's input."""
        boxes = (np.asarray(boxes, np.float64) - np.tile(self.window[:2], 2)) * np.tile(self.scale_wh, 2)
        h, w = self.hw
        if self.mirrored:
            boxes = np.stack([w - boxes[:, 2], boxes[:, 1], w - boxes[:, 0], boxes[:, 3]], 1)
        for _ in range(self.turns % 4):
            boxes = np.stack([boxes[:, 1], w - boxes[:, 2], boxes[:, 3], w - boxes[:, 0]], 1)
            h, w = w, h
        return boxes

    def boxes_to_source(self, boxes: np.ndarray) -> np.ndarray:
        """Invert `boxes_to_input`."""
        boxes = np.asarray(boxes, np.float64)
        h, w = self.input_hw
        for _ in range(self.turns % 4):
            boxes = np.stack([h - boxes[:, 3], boxes[:, 0], h - boxes[:, 1], boxes[:, 2]], 1)
            h, w = w, h
        if self.mirrored:
            boxes = np.stack([w - boxes[:, 2], boxes[:, 1], w - boxes[:, 0], boxes[:, 3]], 1)
        return boxes / np.tile(self.scale_wh, 2) + np.tile(self.window[:2], 2)

    def grid_to_input(self, grid: np.ndarray) -> np.ndarray:
        """Mirror and rotate arrays (..., M, M) that span boxes of the source, as the image was."""
        if self.mirrored:
            grid = grid[..., ::-1]
        return np.rot90(grid, self.turns, (-2, -1))


@dataclass(frozen=True)
class Targets:
    """The instances of one training image.

    boxes (N, 4) are float32 xyxy in pixels of the network's input, labels (N,) int64 and 1-based. The N masks are in
    pixels of the source, `source_hw`, which `placement` maps to the input, so they stay exact under augmentation.
    `crowd_boxes` (C, 4) are those of the crowd regions, which are no targets.
    """

    boxes: np.ndarray
    labels: np.ndarray
    masks: RunTable
    source_hw: tuple[int, int]
    placement: Placement
    crowd_boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(repr=False)
class Detections:
    """The instances found in one image, best first, in pixels of that image.

    boxes (N, 4) float32 xyxy, scores (N,) float32, class_ids (N,) as in the training data, N class_names and N rles.
    `hw` is the image's height and width, `image` its path if it came from a file, `reading` how it was read, `pixels`
    the image if it was kept, and `vocabulary` all class names of the model in its order. `weakest_of_limit` holds the
    class score of the weakest detection and the objectness of the weakest proposal, each None if their number is below
    its limit.
    """

    boxes: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray
    class_names: list[str]
    rles: list[RLE]
    hw: tuple[int, int]
    image: str | None = None
    pixels: np.ndarray | None = None
    vocabulary: tuple[str, ...] = ()
    weakest_of_limit: tuple[float | None, float | None] = (None, None)
    reading: Reading = BY_ITSELF

    def __post_init__(self) -> None:
        n = len(self.scores)
        lengths = {name: (len(getattr(self, name)),) for name in ("class_ids", "class_names", "rles")}
        for name, shape in {"boxes": self.boxes.shape, **lengths}.items():
            expected = (n, 4) if name == "boxes" else (n,)
            if shape != expected:
                raise ValueError(f"{name} has the shape {shape}; expected {expected} for {n} scores")

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: np.ndarray | slice) -> Detections:
        """Select detections by a boolean mask, an index array or a slice."""
        selected = np.arange(len(self))[index]
        return replace(
            self,
            boxes=self.boxes[selected],
            scores=self.scores[selected],
            class_ids=self.class_ids[selected],
            class_names=[self.class_names[i] for i in selected],
            rles=[self.rles[i] for i in selected],
        )

    @property
    def masks(self) -> np.ndarray:
        """Dense masks (N, H, W) bool, decoded on every access."""
        masks = np.zeros((len(self), *self.hw), bool)
        for mask, rle in zip(masks, self.rles, strict=True):
            mask[:] = rle.to_mask()
        return masks

    def without_overlaps(self) -> Detections:
        """Give each pixel to the detection of the highest score. Drop detections that keep less than half of a mask.

        A dropped detection takes no pixels from the others.
        """
        rles = self._rles_without_overlaps()
        return replace(self, rles=rles)[np.array([r.area > 0 for r in rles], bool)]

    def _rles_without_overlaps(self) -> list[RLE]:
        """Return N masks that share no pixel. Dropped ones are empty."""
        return remove_overlaps(self.rles, np.argsort(-self.scores, kind="stable"), MIN_VISIBLE_FRACTION)

    def encoded_pixels(self, overlap: str | None = "score") -> list[str]:
        """Return one Kaggle EncodedPixels string per detection; with overlap=None, masks may share pixels.

        With "score", a pixel belongs to the highest score, and what keeps less than half of its pixels is empty.
        """
        if overlap not in ("score", None):
            raise ValueError(f'overlap must be "score" or None, not {overlap!r}')
        rles = self._rles_without_overlaps() if overlap == "score" else self.rles
        return [r.to_encoded_pixels() for r in rles]

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """Return COCO results: image_id, category_id, bbox (x, y, width, height), score and segmentation.

        The bbox is the detection's box, not that of its mask. Numbers are exact: rounded scores would tie, and ties
        change what an evaluation matches. The segmentation is RLE with text counts. There is no area: pycocotools sets
        it, to the bbox's where an entry has one.
        """
        return [
            {
                "image_id": image_id,
                "category_id": _plain(self.class_ids[i]),
                "bbox": [_decimal(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
                "score": _decimal(self.scores[i]),
                "segmentation": self.rles[i].to_coco(),
            }
            for i, box in enumerate(self.boxes)
        ]

    def to_supervision(self) -> supervision.Detections:
        """Convert to the package supervision, for its annotators, trackers and metrics. No mask becomes dense.

        `xyxy`, `confidence`, `class_id` and ``data["class_name"]`` are the fields here, `mask` is a `CompactMask`.
        supervision's ids are integers: where those of the data are texts, ``data["original_class_id"]`` holds them, and
        `class_id` counts the classes of the model from 0. Raise `UserError` if the package is missing.
        """
        from maskrcnn.compact_masks import import_supervision, to_compact_mask

        data = {"class_name": np.array(self.class_names, str)}
        class_ids = np.asarray(self.class_ids)
        if len(self) and class_ids.dtype.kind not in "iu":
            data["original_class_id"] = class_ids
            order = self.vocabulary or sorted(set(self.class_names))
            class_ids = np.array([order.index(name) for name in self.class_names])
        return import_supervision().Detections(
            xyxy=self.boxes.copy(),
            mask=to_compact_mask(self.rles, self.hw),
            confidence=self.scores.copy(),
            class_id=class_ids.astype(np.int64),
            data=data,
        )

    @classmethod
    def from_supervision(
        cls,
        detections: supervision.Detections,
        hw: tuple[int, int] | None = None,
        class_names: Mapping[int, str] | Sequence[str] | None = None,
    ) -> Detections:
        """Convert from the package supervision, in the same order. `CompactMask` stays runs; dense masks are encoded.

        `hw` is needed where there are neither detections nor masks, which have it. `class_names` gives the name of
        each class id, by default ``data["class_name"]``, else the id as text. Without class ids, all are of one class;
        without confidences, scores are 1. Raise `UserError` for boxes without masks, masks of another size than `hw`,
        and a class id without a name.
        """
        from maskrcnn.compact_masks import from_masks

        n = len(detections)
        rles, hw = from_masks(detections.mask, n, hw)
        ids = np.ones(n, np.int64) if detections.class_id is None else detections.class_id
        if class_names is not None:
            names = [_name_of(c, class_names) for c in ids.tolist()]
        elif "class_name" in detections.data:
            names = [str(name) for name in detections.data["class_name"]]
        else:
            names = [UNNAMED_CLASS] * n if detections.class_id is None else [str(c) for c in ids]
        scores = np.ones(n) if detections.confidence is None else detections.confidence
        return cls(
            boxes=np.array(detections.xyxy, np.float32).reshape(n, 4),
            scores=np.array(scores, np.float32),
            class_ids=np.array(detections.data.get("original_class_id", ids)),
            class_names=names,
            rles=rles,
            hw=hw,
        )

    @property
    def has_several_classes(self) -> bool:
        """Whether the model has several classes, or, if that is not known, whether the detections are of several."""
        return len(self.vocabulary or set(self.class_names)) > 1

    @property
    def colors(self) -> np.ndarray:
        """Index into `drawing.PALETTE` of each detection, (N,): colours mark classes, or instances of one."""
        if not self.has_several_classes:
            return np.arange(len(self))
        order = self.vocabulary or sorted(set(self.class_names))
        return np.array([order.index(name) for name in self.class_names], int)

    def overlay(self, max_side: int | None = None, *, names: bool = True) -> Image.Image:
        """Return the image with outlines, boxes, scores and, with `names`, class names; it may be shrunk before.

        `max_side` is the largest length of its longer side, in pixels. Small images are enlarged. An id in brackets
        stands for a class name whose letters no font on this machine has. Raise `ValueError` without `pixels`.
        """
        from maskrcnn.drawing import draw_instances, shrink_to
        from maskrcnn.fonts import legible

        if self.pixels is None:
            raise ValueError("these detections do not include their image; predict with keep_pixels=True")
        labels = [f"{score:.2f}" for score in self.scores]
        if names:
            classes = zip(self.class_names, self.class_ids, labels, strict=True)
            labels = [f"{legible(name, class_id)} {label}" for name, class_id, label in classes]
        pixels, rles, boxes = shrink_to(self.pixels, self.rles, self.boxes, max_side or max(self.hw))
        return draw_instances(pixels, rles, boxes, labels, self.colors)

    def save_overlay(self, path: str | Path) -> None:
        """Write the picture that `overlay` returns, in full size."""
        from maskrcnn.files import write_image

        write_image(self.overlay(), path)

    def plot(self) -> Figure:
        """Return the overlay as a figure of matplotlib, with the number of objects of each class.

        Raise `UserError` without matplotlib or without the image, and `ImageError` if its file is unreadable.
        """
        from maskrcnn.inspection.plots import plot_detections

        return plot_detections(self)

    def _repr_html_(self) -> str:
        from maskrcnn.inspection.notebook import detections_view

        return detections_view(self)

    def __repr__(self) -> str:
        picture = f" in {Path(self.image).name}" if self.image is not None else ""
        return f"<Detections: {counted(len(self), 'object')}{picture}, {self.hw[1]} x {self.hw[0]} px>"


def _name_of(class_id: int, names: Mapping[int, str] | Sequence[str]) -> str:
    try:
        if class_id >= 0 or isinstance(names, Mapping):
            return str(names[class_id])
    except LookupError:
        pass
    raise UserError(f"class_names has no name for the class id {class_id}")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _decimal(value: Any) -> float:
    """Return the shortest decimal number that float32 reads as `value`."""
    return float(str(np.float32(value)))
