"""The types that pass between the steps.

An `Array` is a NumPy array on a CPU, a torch tensor on a GPU: the steps use the array API standard and take either.

B images, L levels, K anchors of all levels and the T best, R proposals, P class candidates and N detections of all
images, C channels, M x N cells of a map, M x M of a mask
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maskrcnn.kernels.formats import cut_to_bfloat16, to_float32

Array = Any

Window = tuple[int, int, int, int]

Observe = Callable[[str, Any], None]
"""Is handed the name and the result of each step. An array may be overwritten by the next step: copy what you keep."""


@dataclass(frozen=True)
class RegionFormat:
    """How a head takes NumPy regions: as float32, bfloat16 (uint16), or uint8 n, which means ``low + n * step``."""

    dtype: type[np.generic] = np.float32
    low: float = 0.0
    step: float = 1.0

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Values of float32 in this format; bfloat16 is rounded towards zero."""
        if self.dtype == np.uint8:
            return np.clip(np.rint((values - self.low) / self.step), 0, 255).astype(np.uint8)
        return cut_to_bfloat16(values) if self.dtype == np.uint16 else values

    def decode(self, regions: np.ndarray) -> np.ndarray:
        """The float32 values of regions in this format. Tensors stay as they are."""
        if self.dtype == np.uint8:
            return np.float32(self.low) + np.float32(self.step) * regions
        return to_float32(regions) if self.dtype == np.uint16 else regions


FLOAT32 = RegionFormat()

FLOAT_REGIONS: Mapping[str, RegionFormat] = {"box_head": FLOAT32, "mask_head": FLOAT32}
"""Formats of a network whose heads take float32."""


def ignore(name: str, result: Any) -> None:
    """Observe nothing."""


@dataclass(frozen=True)
class Fitted:
    """A picture as network input: pixels (H, W, 3), of which `window` (x1, y1, x2, y2) is the picture."""

    pixels: np.ndarray
    window: Window


@dataclass(frozen=True)
class Trunk:
    """Output of backbone, pyramid and region proposal network for a batch.

    `maps`: the maps that RoIAlign reads, (B, M, N, C) each, finest first; in NumPy float32, or bfloat16 as uint16.
    `objectness`: logits (B, K). `deltas`: (B, K, 4). `maps_hw`: height and width of the L maps that have anchors.
    `input_hw`: those of the padded input.
    """

    maps: list[Array]
    objectness: Array
    deltas: Array
    maps_hw: tuple[tuple[int, int], ...]
    input_hw: tuple[int, int]


@dataclass(frozen=True)
class Candidates:
    """The best anchors of each level, decoded and clipped: boxes (B, T, 4), logits (B, T) and levels (T,).

    `anchor_index` (B, T) counts over the anchors of all levels. The exported graph has none.
    """

    boxes: Array
    logits: Array
    levels: Array
    anchor_index: Array | None = None


@dataclass(frozen=True)
class Proposals:
    """Boxes (R, 4) that may hold an object, their logits (R,) and images (R,): image by image, best first.

    `columns` (R,) are those of `Candidates`. Boxes from elsewhere have none.
    """

    boxes: Array
    logits: Array
    image_index: Array
    columns: Array | None = None


@dataclass(frozen=True)
class ClassCandidates:
    """Proposals as a class each: refined boxes (P, 4), scores, labels, images and rows of `Proposals`, (P,) each.

    `competes` (P,) says which may become detections. The others are too small, or below the score threshold and vote.
    """

    boxes: Array
    scores: Array
    labels: Array
    image_index: Array
    proposal_index: Array
    competes: Array


@dataclass(frozen=True)
class Selection:
    """Detections without masks: boxes (N, 4), scores (N,), labels (N,) and images (N,), image by image, best first.

    Boxes are in the network's units (`boxes.to_units`). Label 0 would be the background and does not occur.
    `candidate_index` (N,) are the rows of `ClassCandidates`. Detections from elsewhere have none.
    """

    boxes: Array
    scores: Array
    labels: Array
    image_index: Array
    candidate_index: Array | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class RawDetections(Selection):
    """A `Selection` with mask probabilities (N, M, M) in [0, 1], laid over each box.

    `weakest_proposals` (B,): objectness of the weakest proposal of images that have as many as allowed, else NaN.
    """

    masks: Array
    weakest_proposals: Array | None = None
