"""What implementations of Mask R-CNN do differently at the same weights, in one object that travels with a model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Conventions:
    """The choices of `NATIVE` are the defaults; a foreign checkpoint brings its own."""

    name: str = "native"

    resize: Literal["longer", "shorter", "shorter-pillow", "square", "pad64", "none"] = "longer"
    """How a picture becomes the input; `inference/fit.py` explains each."""
    shorter_side: int = 800
    """Length of the shorter side where `resize` scales it; the longer is limited to the model's image size."""
    smallest_scale: float = 0.0
    """Under "square" and "pad64", pictures are enlarged at least so much."""
    black_padding: bool = False
    """Pad with black before the mean is taken off, not with zeros after."""

    planar: bool = False
    """Predict with maps that lie plane by plane in memory, as the source does, at some cost in time: convolutions then
    add up in the same order and round alike."""
    stride_in_1x1: bool = False
    """Bottlenecks step in their first 1x1 convolution, not in the 3x3 one."""
    pool_after: bool = False
    """Pad the stem's max pooling at right and bottom only, not all around."""
    norm_eps: float | None = None
    """What batch norm adds to the variance; None: the library's 1e-5."""

    normalized_boxes: bool = False
    """Boxes inside the network run from 0, the centre of the first pixel, to 1, that of the last, as do the boxes
    found: they are led back to whole pixels."""
    anchor_offset: float = 0.5
    """Where in a cell, in strides, its anchors are centred."""
    anchors_rounded: bool = False
    """Round cell anchors to whole pixels."""
    stride_from_shape: bool = False
    """Space anchors by ``input size // map size`` in place of the level's own stride."""
    rpn_delta_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    box_delta_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    delta_clip: float = math.log(1000.0 / 16)
    """Largest log scale that a delta may ask for (Detectron's constant)."""
    proposals_jointly: bool = False
    """Choose and suppress proposals over all levels at once, by probability, not level by level."""
    proposal_bounds: Literal["picture", "input"] = "picture"
    """What proposals are cut to: the picture, or the input with its padding."""
    objectness_floor: float = -math.inf
    """Anchors of a lower logit are no proposals."""
    smallest_proposal: float = 1e-3
    smallest_detection: float = 1e-2
    """Boxes with a side no longer than this, in the network's units, are dropped."""

    pooling: Literal["aligned", "shifted", "corners"] = "aligned"
    """RoIAlign with pixel i spanning [i, i + 1); without that half pixel; or TensorFlow's ``crop_and_resize``: one
    sample a bin, the first and last on the box's corners."""
    roi_samples: int = 2
    """Bilinear samples along each side of a bin; 0: as many as the bin has cells."""
    level_rule: Literal["floor", "floor-tight", "round"] = "floor"
    """How the level of a box is rounded: down with 1e-6 to spare, with 1e-8 inside the logarithm, or to the nearest."""

    best_class_only: bool = False
    """Only the likeliest class of a proposal counts, from the threshold on, not every class above it."""
    paste: Literal["exact", "integer", "fading"] = "exact"
    """Beyond the outermost cells a mask stays as it is; or it fades to zero over one cell, the box so grown being cut
    to integers ("integer") or not ("fading")."""

    def changed(self, **values: Any) -> Conventions:
        """A copy with some choices replaced."""
        return replace(self, **values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a file's header."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Conventions:
        """The inverse of `to_dict`."""
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**settings)


NATIVE = Conventions()

# torchvision 0.24's detection/transform.py, anchor_utils.py, _utils.py and roi_heads.py.
TORCHVISION = Conventions(
    name="torchvision",
    resize="shorter",
    planar=True,
    anchor_offset=0.0,
    anchors_rounded=True,
    stride_from_shape=True,
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
