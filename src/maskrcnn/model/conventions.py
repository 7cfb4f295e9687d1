"""What implementations of Mask R-CNN do differently at the same weights, in one object that travels with a model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Conventions:
    """The choices of `NATIVE` are the defaults; a foreign checkpoint brings its own."""

    name: str = "native"
    resize: Literal["longer", "shorter"] = "longer"
    """Scale the longer side to the input size with averaging, or the shorter one by plain bilinear sampling."""
    shorter_side: int = 800
    """Length of the shorter side under ``resize="shorter"``; the longer is limited to the model's image size."""
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
    smallest_proposal: float = 1e-3
    smallest_detection: float = 1e-2
    """Boxes with a shorter side, in input pixels, are dropped."""
    roi_aligned: bool = True
    """Shift samples by half a pixel, so that pixel i spans [i, i + 1)."""
    roi_samples: int = 2
    """Bilinear samples along each side of a bin."""
    paste: Literal["exact", "integer"] = "exact"
    """Masks fill the box as it is, or the box grown by one cell and cut to integers."""

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
    anchor_offset=0.0,
    anchors_rounded=True,
    stride_from_shape=True,
    roi_aligned=False,
    paste="integer",
)
