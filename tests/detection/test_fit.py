"""Fitting images to the network input. tests/parity compares the resize rules with other implementations."""

import numpy as np
import pytest

from maskrcnn.config import AugmentConfig, ModelConfig
from maskrcnn.data.augment import draw_placement
from maskrcnn.detection.conventions import DETECTRON2, MATTERPORT, NATIVE, TORCHVISION
from maskrcnn.detection.fit import fit_picture


@pytest.mark.parametrize("rule", ["longer", "shorter", "shorter-pillow", "square", "pad64"])
@pytest.mark.parametrize("hw", [(1, 2000), (2000, 1)])
def test_thin_images_keep_at_least_one_pixel(rule, hw):
    image = np.full((*hw, 3), 200, np.uint8)
    conventions = NATIVE.changed(resize=rule, shorter_side=64, smallest_scale=0)
    fitted = fit_picture(image, conventions, ModelConfig(image_size=256))
    x1, y1, x2, y2 = fitted.window
    assert min(x2 - x1, y2 - y1) == (64 if rule == "pad64" else 1)
    assert fitted.pixels[y1:y2, x1:x2].any()


@pytest.mark.parametrize(
    ("hw", "min_scale", "shape"),
    [
        ((300, 400), 0, (192, 256)),
        ((300, 400), 1, (300, 400)),
        ((60, 80), 2, (192, 256)),
        ((301, 401), 1.5, (452, 602)),
        ((900, 1800), 1, (768, 1536)),
    ],
)
def test_min_scale_enlarges_the_input(hw, min_scale, shape):
    image = np.zeros((*hw, 3), np.uint8)
    fitted = fit_picture(image, NATIVE, ModelConfig(image_size=256, min_scale=min_scale))
    assert fitted.pixels.shape[:2] == shape


@pytest.mark.parametrize("conventions", [NATIVE, TORCHVISION, DETECTRON2, MATTERPORT], ids=lambda c: c.name)
@pytest.mark.parametrize("hw", [(480, 640), (700, 700), (90, 2000)])
def test_training_scales_images_like_prediction(conventions, hw):
    """Without scale jitter, every resize rule gives training images the size that prediction uses."""
    config, augment = ModelConfig(image_size=1333), AugmentConfig(scale=(1, 1), crop=4000, rotate=False)
    placement = draw_placement(hw, config, augment, np.random.default_rng(0), conventions)
    x1, y1, x2, y2 = fit_picture(np.zeros((*hw, 3), np.uint8), conventions, config).window
    assert placement.window == (0, 0, hw[1], hw[0])
    assert np.abs(np.array(placement.hw) - (y2 - y1, x2 - x1)).max() <= 1
