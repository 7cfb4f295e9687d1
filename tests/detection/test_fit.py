"""Bringing pictures into the network's input: the rules themselves are held to other programs in tests/parity."""

import numpy as np
import pytest

from maskrcnn.config import AugmentConfig, ModelConfig
from maskrcnn.data.augment import draw_placement
from maskrcnn.detection.conventions import DETECTRON2, MATTERPORT, NATIVE, TORCHVISION
from maskrcnn.detection.fit import fit_picture


@pytest.mark.parametrize("rule", ["longer", "shorter", "shorter-pillow", "square", "pad64"])
@pytest.mark.parametrize("hw", [(1, 2000), (2000, 1)])
def test_a_hair_thin_picture_keeps_a_pixel(rule, hw):
    image = np.full((*hw, 3), 200, np.uint8)
    conventions = NATIVE.changed(resize=rule, shorter_side=64, smallest_scale=0)
    fitted = fit_picture(image, conventions, ModelConfig(image_size=256))
    x1, y1, x2, y2 = fitted.window
    assert min(x2 - x1, y2 - y1) == (64 if rule == "pad64" else 1)
    assert fitted.pixels[y1:y2, x1:x2].any()


@pytest.mark.parametrize(
    ("hw", "least", "shape"),
    [
        ((300, 400), 0, (192, 256)),
        ((300, 400), 1, (300, 400)),
        ((60, 80), 2, (192, 256)),
        ((301, 401), 1.5, (452, 602)),
        ((900, 1800), 1, (768, 1536)),
    ],
)
def test_large_pictures_keep_their_scale_where_asked(hw, least, shape):
    image = np.zeros((*hw, 3), np.uint8)
    fitted = fit_picture(image, NATIVE, ModelConfig(image_size=256, min_scale=least))
    assert fitted.pixels.shape[:2] == shape


@pytest.mark.parametrize("conventions", [NATIVE, TORCHVISION, DETECTRON2, MATTERPORT], ids=lambda c: c.name)
@pytest.mark.parametrize("hw", [(480, 640), (700, 700), (90, 2000)])
def test_training_shows_pictures_at_the_scale_of_prediction(conventions, hw):
    """Whatever rule the model brings: without jitter the scaled picture is as large as prediction makes it."""
    config, whole = ModelConfig(image_size=1333), AugmentConfig(scale=(1, 1), crop=4000, rotate=False)
    placement = draw_placement(hw, config, whole, np.random.default_rng(0), conventions)
    x1, y1, x2, y2 = fit_picture(np.zeros((*hw, 3), np.uint8), conventions, config).window
    assert placement.window == (0, 0, hw[1], hw[0])
    assert np.abs(np.array(placement.hw) - (y2 - y1, x2 - x1)).max() <= 1
