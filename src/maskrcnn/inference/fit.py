"""A picture of any size -> the network's input, by the rule of `Conventions.resize`.

"longer"          the longer side to the input's (`data.augment.input_side`), averaging where it shrinks (ours)
"shorter"         the shorter side to a length, the longer one limited; plain bilinear on floats (torchvision)
"shorter-pillow"  the same lengths, rounded, by Pillow's averaging filter on bytes (Detectron2)
"square"          enlarged at most to the shorter side's length, centred on a black square (Matterport)
"pad64"           enlarged likewise, centred on black that fills up to multiples of 64 (Matterport)
"none"            as it is (Matterport)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskrcnn.config import ModelConfig
from maskrcnn.data.augment import fit
from maskrcnn.data.dataset import place
from maskrcnn.data.images import ImageError, resize
from maskrcnn.kernels.resize import resize_bilinear
from maskrcnn.model.conventions import Conventions

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Fitted:
    """pixels (H, W, 3) of the input and the `window` (x1, y1, x2, y2) of it that is picture."""

    pixels: np.ndarray
    window: Window


def fit_picture(image: np.ndarray, conventions: Conventions, model: ModelConfig) -> Fitted:
    """Bring an image (H, W, 3) uint8 into the network's input."""
    hw = (image.shape[0], image.shape[1])
    rule, size = conventions.resize, model.image_size
    if rule == "longer":
        return _whole(place(image, fit(hw, model)))
    if rule == "shorter":
        return _whole(_resize_floats(image, min(conventions.shorter_side / min(hw), size / max(hw))))
    if rule == "shorter-pillow":
        return _whole(resize(image, _rounded_sides(hw, conventions.shorter_side, size)))
    if rule == "none":
        if hw[0] % 64 or hw[1] % 64:
            raise ImageError(
                f"a picture of {hw[1]} x {hw[0]} pixels does not fit: this model takes pictures as they are, with "
                "sides that are multiples of 64"
            )
        return _whole(image)
    scale = max(1.0, conventions.shorter_side / min(hw), conventions.smallest_scale)
    if rule == "square" and round(max(hw) * scale) > size:
        scale = size / max(hw)
    if scale != 1:
        image = resize_fading(image, (max(round(hw[0] * scale), 1), max(round(hw[1] * scale), 1)))
    canvas_hw = (size, size) if rule == "square" else tuple(-(-side // 64) * 64 for side in image.shape[:2])
    return _centred(image, canvas_hw)


def _whole(pixels: np.ndarray) -> Fitted:
    return Fitted(pixels, (0, 0, pixels.shape[1], pixels.shape[0]))


def _centred(image: np.ndarray, canvas_hw: tuple[int, ...]) -> Fitted:
    h, w = image.shape[:2]
    top, left = (canvas_hw[0] - h) // 2, (canvas_hw[1] - w) // 2
    canvas = np.zeros((canvas_hw[0], canvas_hw[1], 3), np.uint8)
    canvas[top : top + h, left : left + w] = image
    return Fitted(canvas, (left, top, left + w, top + h))


def _resize_floats(image: np.ndarray, scale: float) -> np.ndarray:
    """torchvision's rule: one factor for both sides, sizes rounded down, though not to nothing; float32 (h, w, 3)."""
    h, w = image.shape[:2]
    return resize_bilinear(image, max(int(h * scale), 1), max(int(w * scale), 1))


def _rounded_sides(hw: tuple[int, int], shorter: int, longest: int) -> tuple[int, int]:
    """Detectron2's ResizeShortestEdge: the shorter side exact, both cut down to the limit, then rounded, at least 1."""
    scale = shorter / min(hw)
    sides = [float(shorter) if side == min(hw) else scale * side for side in hw]
    if max(sides) > longest:
        shrink = longest / max(sides)
        sides = [side * shrink for side in sides]
    return max(int(sides[0] + 0.5), 1), max(int(sides[1] + 0.5), 1)


def resize_fading(image: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """scikit-image's ``resize`` of order 1 as Matterport calls it: (H, W, C) uint8 -> (h, w, C) uint8.

    Plain bilinear sampling, in float64 and cut to bytes at the end; beyond the border lies black, so that borders fade.
    The sums are taken in SciPy's order, as cutting shows the last bit of the areas of one colour.
    """
    (y0, wy0), (y1, wy1) = _two_taps(image.shape[0], hw[0])
    (x0, wx0), (x1, wx1) = _two_taps(image.shape[1], hw[1])
    source = image.astype(np.float64)
    total = np.zeros((*hw, image.shape[2]))
    for y, wy in ((y0, wy0), (y1, wy1)):
        for x, wx in ((x0, wx0), (x1, wx1)):
            total += source[y[:, None], x] * wy[:, None, None] * wx[None, :, None]
    return total.astype(np.uint8)


def _two_taps(length: int, out: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Indices and weights of the two source pixels of each of `out` pixels; one off the border weighs nothing."""
    position = (np.arange(out) + 0.5) * (length / out) - 0.5
    first = np.floor(position).astype(np.int64)
    low = 1.0 - (position - first)
    taps = []
    for index, weight in ((first, low), (first + 1, 1.0 - low)):
        inside = (index >= 0) & (index < length)
        taps.append((index.clip(0, length - 1), weight * inside))
    return taps[0], taps[1]
