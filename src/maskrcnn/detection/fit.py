"""Fit: a picture of any size -> network input, by the rule of ``Conventions.resize``, and inputs -> one padded batch.

"longer"          scale the longer side to ``image_size`` or by ``min_scale``, averaging where it shrinks (ours)
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


def fitted_hw(hw: tuple[int, int], conventions: Conventions, config: ModelConfig) -> tuple[int, int]:
    """Height and width that a picture of `hw` is scaled to, before padding, in prediction and in training."""
    rule, size, shorter_side = conventions.resize, config.image_size, conventions.shorter_side
    if rule == "longer":
        scale = max(size, round(min(config.min_scale * max(hw), LARGEST_INPUT))) / max(hw)
    elif rule == "shorter":
        scale = min(shorter_side / min(hw), size / max(hw))
        return max(int(hw[0] * scale), 1), max(int(hw[1] * scale), 1)
    elif rule == "shorter-pillow":
        return _resize_shortest_edge(hw, shorter_side, size)
    elif rule == "none":
        return hw
    else:
        scale = max(1.0, shorter_side / min(hw), conventions.smallest_scale)
        if rule == "square" and round(max(hw) * scale) > size:
            scale = size / max(hw)
    return max(round(hw[0] * scale), 1), max(round(hw[1] * scale), 1)


def fit_picture(image: np.ndarray, conventions: Conventions, config: ModelConfig) -> Fitted:
    """Turn an image (H, W, 3) uint8 into network input. Raises `ImageError` if rule "none" does not allow its size."""
    h, w = fitted_hw((image.shape[0], image.shape[1]), conventions, config)
    if conventions.resize == "none" and (h % 64 or w % 64):
        raise ImageError(
            f"a picture of {w} x {h} pixels does not fit: this model does not resize pictures, and both sides must be "
            "multiples of 64"
        )
    if conventions.resize in ("square", "pad64"):
        scaled = image if image.shape[:2] == (h, w) else resize_fading(image, (h, w))
        square = conventions.resize == "square"
        return _centred(scaled, (config.image_size,) * 2 if square else (round_up(h, 64), round_up(w, 64)))
    pixels = resize_bilinear(image, h, w) if conventions.resize == "shorter" else resize(image, (h, w))
    return Fitted(np.ascontiguousarray(pixels), (0, 0, w, h))


def place(image: np.ndarray, placement: Placement) -> np.ndarray:
    """Crop, scale, mirror and turn an image (H, W, 3) as `placement` says."""
    pixels = resize(image, placement.hw, placement.window)
    if placement.mirrored:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(np.rot90(pixels, placement.turns))


def round_up(length: int, step: int) -> int:
    """The smallest multiple of `step` that is at least `length`."""
    return -(-length // step) * step


def padded_hw(pixels: np.ndarray) -> tuple[int, int]:
    """Height and width of an input (h, w, 3) once `stack` has padded it."""
    return round_up(pixels.shape[0], STRIDE), round_up(pixels.shape[1], STRIDE)


def stack(images: Sequence[np.ndarray], min_hw: tuple[int, int] = (STRIDE, STRIDE)) -> tuple[np.ndarray, np.ndarray]:
    """Pad images (h, w, 3) of any sizes into one batch (B, H, W, 3) of their type, with windows (B, 4) int64 xyxy.

    H and W are multiples of `STRIDE` and at least `min_hw`.
    """
    image_hw = np.array([im.shape[:2] for im in images], np.int64).reshape(-1, 2)
    h, w = (round_up(int(side), STRIDE) for side in np.vstack([image_hw, [min_hw]]).max(0))
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


def _centred(image: np.ndarray, canvas_hw: tuple[int, ...]) -> Fitted:
    h, w = image.shape[:2]
    top, left = (canvas_hw[0] - h) // 2, (canvas_hw[1] - w) // 2
    canvas = np.zeros((canvas_hw[0], canvas_hw[1], 3), np.uint8)
    canvas[top : top + h, left : left + w] = image
    return Fitted(canvas, (left, top, left + w, top + h))


def _resize_shortest_edge(hw: tuple[int, int], shorter_side: int, longest: int) -> tuple[int, int]:
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
