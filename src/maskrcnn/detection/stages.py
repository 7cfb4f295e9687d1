"""The types that pass between the steps.

An `Array` is a NumPy array on a CPU, a torch tensor on a GPU: the steps use the array API standard and take either.

B images, L levels, K anchors of all levels and the T best, R proposals, P class candidates and N detections of all
images, C channels, M x N cells of a map, M x M of a mask
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = Any

Window = tuple[int, int, int, int]

Observe = Callable[[str, Any], None]
"""Is handed the name and the result of each step. An array may be overwritten by the next step: copy what you keep."""


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

    `maps`: the maps that RoIAlign reads, (B, M, N, C) each, finest first. `objectness`: logits (B, K). `deltas`:
    (B, K, 4). `maps_hw`: height and width of the L maps that have anchors. `input_hw`: those of the padded input.
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
