"""Random augmentation of a training image: crop, scale, flip, quarter turns and colours.

A `Placement` is drawn first, so pixels are touched only once. All randomness comes from the generator passed in.
"""

from __future__ import annotations

import numpy as np

from maskrcnn.config import AugmentConfig, ModelConfig
from maskrcnn.detection.conventions import NATIVE, Conventions
from maskrcnn.detection.fit import fitted_hw
from maskrcnn.structures import Placement


def draw_placement(
    hw: tuple[int, int],
    model: ModelConfig,
    config: AugmentConfig,
    rng: np.random.Generator,
    conventions: Conventions = NATIVE,
) -> Placement:
    """Draw a crop at about the scale of prediction, at most `config.crop` pixels a side, by default ``image_size``."""
    h, w = hw
    low, high = np.log(config.scale)
    scale = max(fitted_hw(hw, conventions, model)) / max(h, w) * float(np.exp(rng.uniform(low, high)))
    size = config.crop or model.image_size
    window_h, window_w = min(h, max(int(size / scale), 1)), min(w, max(int(size / scale), 1))
    x1 = int(rng.integers(0, w - window_w + 1))
    y1 = int(rng.integers(0, h - window_h + 1))
    out_h, out_w = (int(np.clip(round(side * scale), 1, size)) for side in (window_h, window_w))
    mirrored = bool(rng.integers(2)) and config.flip
    turns = int(rng.integers(4)) if config.rotate else 0
    return Placement((x1, y1, x1 + window_w, y1 + window_h), (out_h, out_w), mirrored, turns)


def vary_colors(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Vary brightness, contrast and saturation, each by a factor within ``1 +- strength``; (H, W, 3) uint8."""
    brightness, contrast, saturation = 1 + rng.uniform(-strength, strength, 3)
    if strength == 0:
        return image
    pixels = image.astype(np.float32)
    gray = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    pixels = gray[..., None] + (pixels - gray[..., None]) * np.float32(saturation)
    mean = np.float32(gray.mean())
    pixels = (mean + (pixels - mean) * np.float32(contrast)) * np.float32(brightness)
    return np.clip(pixels, 0, 255).astype(np.uint8)
