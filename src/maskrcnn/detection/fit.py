"""Fit: a picture of any size -> network input, by the rule of ``Conventions.resize``, and inputs -> one padded batch.

"longer"          scale the longer side to `longer_side`, averaging where it shrinks (ours)
"shorter"         scale the shorter side to a length and limit the longer; plain bilinear on floats (torchvision)
"shorter-pillow"  the same lengths, rounded, with Pillow's averaging filter on bytes (Detectron2)
"square"          enlarge at most to the shorter side's length and centre on a black square (Matterport)
"pad64"           enlarge likewise and centre on black, padded to multiples of 64 (Matterport)
"none"            leave the picture as it is (Matterport)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from maskrcnn.config import ModelConfig
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.stages import Fitted, Window
from maskrcnn.errors import ImageError
from maskrcnn.kernels.resize import resize_bilinear
from maskrcnn.structures import Placement

LARGEST_INPUT = 1536
"""Longer side up to which ``min_scale`` enlarges the input; time grows with its square."""

STRIDE = 32
"""Inputs are padded at right and bottom to a multiple of the backbone's largest stride."""


def longer_side(hw: tuple[int, int], config: ModelConfig) -> int:
    """Longer side of the input for a picture of height and width `hw`: ``image_size``, or more under ``min_scale``."""
    return max(config.image_size, round(min(config.min_scale * max(hw), LARGEST_INPUT)))


def whole_picture(hw: tuple[int, int], config: ModelConfig) -> Placement:
    """The placement of an uncropped picture under the rule "longer"."""
    scale = longer_side(hw, config) / max(hw)
    return Placement((0, 0, hw[1], hw[0]), (max(round(hw[0] * scale), 1), max(round(hw[1] * scale), 1)))


def place(image: np.ndarray, placement: Placement) -> np.ndarray:
    """Crop, scale, mirror and turn an image (H, W, 3) as `placement` says."""
    pixels = resize(image, placement.hw, placement.window)
    if placement.mirrored:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(np.rot90(pixels, placement.turns))


def fit_picture(image: np.ndarray, conventions: Conventions, config: ModelConfig) -> Fitted:
    """Turn an image (H, W, 3) uint8 into network input. Raises `ImageError` if rule "none" does not allow its size."""
    hw = (image.shape[0], image.shape[1])
    rule, size = conventions.resize, config.image_size
    if rule == "longer":
        return _unpadded(place(image, whole_picture(hw, config)))
    if rule == "shorter":
        return _unpadded(_resize_floats(image, min(conventions.shorter_side / min(hw), size / max(hw))))
    if rule == "shorter-pillow":
        return _unpadded(resize(image, _rounded_sides(hw, conventions.shorter_side, size)))
    if rule == "none":
        if hw[0] % 64 or hw[1] % 64:
            raise ImageError(
                f"a picture of {hw[1]} x {hw[0]} pixels does not fit: this model does not resize pictures, and both "
                "sides must be multiples of 64"
            )
        return _unpadded(image)
    scale = max(1.0, conventions.shorter_side / min(hw), conventions.smallest_scale)
    if rule == "square" and round(max(hw) * scale) > size:
        scale = size / max(hw)
    if scale != 1:
        image = resize_fading(image, (max(round(hw[0] * scale), 1), max(round(hw[1] * scale), 1)))
    canvas_hw = (size, size) if rule == "square" else tuple(-(-side // 64) * 64 for side in image.shape[:2])
    return _centred(image, canvas_hw)


def padded_hw(pixels: np.ndarray) -> tuple[int, int]:
    """Height and width of an input (h, w, 3) once `stack` has padded it."""
    return -(-pixels.shape[0] // STRIDE) * STRIDE, -(-pixels.shape[1] // STRIDE) * STRIDE


def stack(images: Sequence[np.ndarray], min_hw: tuple[int, int] = (STRIDE, STRIDE)) -> tuple[np.ndarray, np.ndarray]:
    """Pad images (h, w, 3) of any sizes into one batch (B, H, W, 3) of their type, with windows (B, 4) int64 xyxy.

    H and W are multiples of `STRIDE` and at least `min_hw`.
    """
    image_hw = np.array([im.shape[:2] for im in images], np.int64).reshape(-1, 2)
    h, w = (int(-(-side // STRIDE) * STRIDE) for side in np.vstack([image_hw, [min_hw]]).max(0))
    pixels = np.zeros((len(images), h, w, 3), images[0].dtype if len(images) else np.uint8)
    for canvas, image in zip(pixels, images, strict=True):
        canvas[: image.shape[0], : image.shape[1]] = image
    return pixels, np.concatenate([np.zeros_like(image_hw), image_hw[:, ::-1]], 1)


def resize(image: np.ndarray, hw: tuple[int, int], window: Window | None = None) -> np.ndarray:
    """Scale `image` (H, W, 3) uint8, or its `window`, to `hw`: bilinear, averaging where it shrinks.

    Along x first, then y: Pillow 13 alone reverses that for some tall pictures, which changes a tenth of the bytes.
    """
    x1, y1, x2, y2 = window or (0, 0, image.shape[1], image.shape[0])
    if (y2 - y1, x2 - x1) == tuple(hw):
        return image[y1:y2, x1:x2]
    rule = Image.Resampling.BILINEAR
    rows = Image.fromarray(image).resize((hw[1], y2 - y1), rule, (x1, y1, x2, y2))
    return np.asarray(rows.resize((hw[1], hw[0]), rule))


def _unpadded(pixels: np.ndarray) -> Fitted:
    return Fitted(pixels, (0, 0, pixels.shape[1], pixels.shape[0]))


def _centred(image: np.ndarray, canvas_hw: tuple[int, ...]) -> Fitted:
    h, w = image.shape[:2]
    top, left = (canvas_hw[0] - h) // 2, (canvas_hw[1] - w) // 2
    canvas = np.zeros((canvas_hw[0], canvas_hw[1], 3), np.uint8)
    canvas[top : top + h, left : left + w] = image
    return Fitted(canvas, (left, top, left + w, top + h))


def _resize_floats(image: np.ndarray, scale: float) -> np.ndarray:
    """torchvision's rule: one factor for both sides, sizes rounded down but at least 1; float32 (h, w, 3)."""
    h, w = image.shape[:2]
    return resize_bilinear(image, max(int(h * scale), 1), max(int(w * scale), 1))


def _rounded_sides(hw: tuple[int, int], shorter_side: int, longest: int) -> tuple[int, int]:
    """Detectron2's ResizeShortestEdge: the shorter side exact, both cut to the limit, then rounded, at least 1."""
    scale = shorter_side / min(hw)
    sides = [float(shorter_side) if side == min(hw) else scale * side for side in hw]
    if max(sides) > longest:
        shrink = longest / max(sides)
        sides = [side * shrink for side in sides]
    return max(int(sides[0] + 0.5), 1), max(int(sides[1] + 0.5), 1)


def resize_fading(image: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """scikit-image's ``resize`` of order 1 as Matterport calls it: (H, W, C) uint8 -> (h, w, C) uint8.

    Plain bilinear sampling in float64, truncated to bytes at the end. Black lies beyond the border, so borders fade.
    The sums run in SciPy's order, because truncation reveals the last bit in areas of one colour.
    """
    y_taps, x_taps = _two_taps(image.shape[0], hw[0]), _two_taps(image.shape[1], hw[1])
    source = image.astype(np.float64)
    total = np.zeros((*hw, image.shape[2]))
    for y, wy in y_taps:
        for x, wx in x_taps:
            total += source[y[:, None], x] * wy[:, None, None] * wx[None, :, None]
    return total.astype(np.uint8)


def _two_taps(length: int, out: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Indices and weights of the two source pixels of each of `out` pixels; a pixel off the border weighs nothing."""
    position = (np.arange(out) + 0.5) * (length / out) - 0.5
    first = np.floor(position).astype(np.int64)
    low = 1.0 - (position - first)
    taps = []
    for index, weight in ((first, low), (first + 1, 1.0 - low)):
        inside = (index >= 0) & (index < length)
        taps.append((index.clip(0, length - 1), weight * inside))
    return taps
