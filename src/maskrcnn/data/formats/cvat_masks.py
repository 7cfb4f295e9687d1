"""CVAT's masks: counts along the rows of a box, background first <-> RLE of the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskrcnn.rle import RLE, RLEError, shortened


@dataclass(frozen=True)
class CvatMask:
    """The attributes of CVAT's ``<mask>``: `rle` is a text such as "3, 5, 2", the others are pixels of the picture."""

    rle: str
    left: int
    top: int
    width: int
    height: int


def decode_cvat_mask(mask: CvatMask, hw: tuple[int, int]) -> RLE:
    """Return the mask in a picture of size `hw`. Raise `RLEError` if the box leaves it or the counts miss the box."""
    h, w = int(hw[0]), int(hw[1])
    box = (mask.left, mask.top, mask.left + mask.width, mask.top + mask.height)
    if not (0 <= box[0] <= box[2] <= w and 0 <= box[1] <= box[3] <= h):
        raise RLEError(
            f"CVAT mask: left {mask.left}, top {mask.top}, width {mask.width}, height {mask.height} leave the "
            f"{h}x{w} (height x width) picture"
        )
    try:
        counts = np.array(mask.rle.split(","), np.int64) if mask.rle.strip() else np.empty(0, np.int64)
    except (ValueError, OverflowError):
        raise RLEError(f'CVAT mask: expected counts such as "3, 5, 2", not {shortened(mask.rle)!r}') from None
    try:
        return RLE.from_counts(counts, (mask.height, mask.width), order="row").shift(mask.left, mask.top, (h, w))
    except RLEError as error:
        raise RLEError(f"CVAT mask: {error}") from None


def encode_cvat_mask(mask: RLE) -> CvatMask:
    """Return the counts of the mask in its box. An empty mask has an empty box at the origin, which CVAT refuses."""
    x1, y1, x2, y2 = mask.box
    counts = mask.crop((x1, y1, x2, y2)).counts(order="row") if mask.area else []
    return CvatMask(", ".join(map(str, counts)), x1, y1, x2 - x1, y2 - y1)
