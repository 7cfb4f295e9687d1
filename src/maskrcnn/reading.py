"""`Reading`: how pictures of a data set become 8 bits, and which way up they stand. A model keeps that of its data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field

from maskrcnn.config import Exif
from maskrcnn.errors import ImageError

FinitePositive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

BIT_DEPTHS = (8, 10, 12, 14, 16)
"""Usual depths of sensors."""

MAX_DEPTH = 32


@dataclass(frozen=True)
class Reading:
    """How to read pictures.

    `white` is the value that becomes 255 in integer pictures of more than 8 bits, `float_white` the one in float
    pictures; 0 stays 0. None scales each picture by its own maximum. With `exif` "turn", a picture is turned upright by
    its EXIF orientation; with "ignore", its pixels stay as they are stored.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    white: FinitePositive | None = None
    float_white: FinitePositive | None = None
    exif: Exif = "turn"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values for a model file or a bundle."""
        return asdict(self)

    def to_eight_bits(self, array: np.ndarray) -> np.ndarray:
        """Scale bools, integers or finite floats of any shape to uint8. Raise `ImageError` for anything else."""
        if array.dtype == np.uint8:
            return array
        if array.dtype == bool:
            return array.astype(np.uint8) * 255
        if array.dtype.kind not in "iuf":
            raise ImageError(f"an image array holds integers or floats, not {array.dtype}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ImageError("an image array holds NaN or infinity")
        maximum = float(array.max())
        if array.dtype.kind == "f":
            white = self.float_white or max(maximum, 1.0)
        elif self.white is not None and array.dtype.itemsize > 1:
            white = self.white
        else:
            white = next(full_scale(bits) for bits in (*BIT_DEPTHS, 24, 32, 64) if maximum <= full_scale(bits))
        return np.clip(np.round(array.astype(np.float64) * (255.0 / white)), 0, 255).astype(np.uint8)


BY_ITSELF = Reading()
"""How a picture is read without a data set or a model: upright, scaled by its own maximum."""


def full_scale(bits: int) -> float:
    """Return the largest value of a depth."""
    return float(2**bits - 1)


def range_text(white: float | None) -> str:
    """Describe the range of pictures in which `white` becomes 255."""
    if white is None:
        return "0 to each picture's own maximum"
    bits = next((bits for bits in range(1, MAX_DEPTH + 1) if white == full_scale(bits)), None)
    return f"0 to {white:,.6g}" + (f" ({bits} bits)" if bits else "")
