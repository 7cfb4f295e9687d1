"""What implementations of Mask R-CNN do differently with the same weights, in one object stored with each model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pydantic import ConfigDict

from maskrcnn.config import validated


@dataclass(frozen=True)
class Conventions:
    """The defaults are those of `NATIVE`. An imported checkpoint brings the values of its program."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str = "native"

    resize: Literal["longer", "shorter", "shorter-pillow", "square", "pad64", "none"] = "longer"
    """How a picture becomes network input; `detection/fit.py` explains each rule."""
    shorter_side: int = 800
    """Length that `resize` scales the shorter side to, if it does; ``image_size`` limits the longer side."""
    smallest_scale: float = 0.0
    """Minimum factor by which "square" and "pad64" enlarge a picture."""
    black_padding: bool = False
    """Pad with black before the mean is subtracted, instead of with zeros after."""

    planar: bool = False
    """Predict on contiguous (B, C, M, N) maps, to sum and round in the source's order, at some cost in time."""
    stride_in_1x1: bool = False
    """Bottlenecks stride in their first 1x1 convolution instead of the 3x3 one."""
    pool_after: bool = False
    """Pad the stem's max pooling at right and bottom only."""
    norm_eps: float | None = None
    """Epsilon of batch norm. None: the library's 1e-5."""

    normalized_boxes: bool = False
    """Boxes in the network run from 0, the first pixel, to 1, the last. Detected boxes are rounded to whole pixels."""
    anchor_offset: float = 0.5
    """Where an anchor's centre lies in its cell, in strides."""
    anchors_rounded: bool = False
    """Round cell anchors to whole pixels."""
    stride_from_shape: bool = False
    """Space anchors by ``input size // map size`` instead of the level's stride."""
    rpn_delta_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    box_delta_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    delta_clip: float = math.log(1000.0 / 16)
    """Largest log scale of a delta (Detectron's constant)."""
    groups_shifted: bool = False
    """Move the boxes of levels and classes apart before suppression, as torchvision's `batched_nms` does with up to
    1,000 boxes on a CPU. That rounds corners, which decides IoUs near the threshold."""
    proposals_jointly: bool = False
    """Rank and suppress proposals over all levels at once, by probability, instead of level by level."""
    proposal_bounds: Literal["picture", "input"] = "picture"
    """What proposals are clipped to: the picture, or the padded input."""
    objectness_floor: float = -math.inf
    """Minimum logit of an anchor that becomes a proposal."""
    smallest_proposal: float = 1e-3
    smallest_detection: float = 1e-2
    """Boxes are dropped if a side is no longer than this, in the network's units."""

    pooling: Literal["aligned", "shifted", "corners"] = "aligned"
    """RoIAlign in which pixel i spans [i, i + 1); without that half-pixel shift; or `tensors.crop_and_resize`."""
    roi_samples: int = 2
    """Bilinear samples along each side of a bin. 0: one for each map cell that the bin spans."""
    level_rule: Literal["floor", "floor-tight", "round"] = "floor"
    """How a box's level is rounded: down with a margin of 1e-6, down with 1e-8 in the logarithm, or to the nearest."""

    best_class_only: bool = False
    """Consider only the best class of a proposal, and accept a score equal to the threshold."""
    paste: Literal["exact", "integer", "fading"] = "exact"
    """Beyond a mask's outermost cells: their values; zeros, with a truncated box; or zeros (`finish.paste_masks`)."""

    def changed(self, **values: Any) -> Conventions:
        """Return a copy with some values replaced."""
        return replace(self, **values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a file's header."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any, source: str) -> Conventions:
        """The inverse of `to_dict`. A value that an older file lacks is that of its program.

        Raise `UserError` that names `source` for an unknown convention or value.
        """
        read = validated(cls, values, source)
        return replace(PROGRAMS.get(read.name, NATIVE), **{name: getattr(read, name) for name in values})


NATIVE = Conventions()

# torchvision 0.24's detection/transform.py, anchor_utils.py, _utils.py and roi_heads.py.
TORCHVISION = Conventions(
    name="torchvision",
    resize="shorter",
    planar=True,
    anchor_offset=0.0,
    anchors_rounded=True,
    stride_from_shape=True,
    groups_shifted=True,
    pooling="shifted",
    paste="integer",
)

# Detectron2 0.6: its default configuration for R50-FPN and R101-FPN.
DETECTRON2 = Conventions(
    name="detectron2",
    resize="shorter-pillow",
    planar=True,
    stride_in_1x1=True,
    anchor_offset=0.0,
    groups_shifted=True,
    smallest_proposal=0.0,
    smallest_detection=-1.0,
    roi_samples=0,
    level_rule="floor-tight",
    paste="fading",
)

# matterport/Mask_RCNN 2.1: config.py, utils.py and model.py.
MATTERPORT = Conventions(
    name="matterport",
    resize="square",
    black_padding=True,
    stride_in_1x1=True,
    pool_after=True,
    norm_eps=1e-3,
    normalized_boxes=True,
    anchor_offset=0.0,
    rpn_delta_weights=(10.0, 10.0, 5.0, 5.0),
    delta_clip=math.inf,
    proposals_jointly=True,
    proposal_bounds="input",
    smallest_proposal=-1.0,
    smallest_detection=-1.0,
    pooling="corners",
    roi_samples=1,
    level_rule="round",
    best_class_only=True,
    paste="fading",
)

PROGRAMS = {program.name: program for program in (NATIVE, TORCHVISION, DETECTRON2, MATTERPORT)}
