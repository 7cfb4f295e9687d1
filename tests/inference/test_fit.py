"""Bringing pictures into the network's input: the rules themselves are held to other programs in tests/parity."""

import numpy as np
import pytest

from maskrcnn.inference.fit import fit_picture
from maskrcnn.model.conventions import NATIVE


@pytest.mark.parametrize("rule", ["longer", "shorter", "shorter-pillow", "square", "pad64"])
@pytest.mark.parametrize("hw", [(1, 2000), (2000, 1)])
def test_a_hair_thin_picture_keeps_a_pixel(rule, hw):
    image = np.full((*hw, 3), 200, np.uint8)
    fitted = fit_picture(image, NATIVE.changed(resize=rule, shorter_side=64, smallest_scale=0), 256)
    x1, y1, x2, y2 = fitted.window
    assert min(x2 - x1, y2 - y1) == (64 if rule == "pad64" else 1)
    assert fitted.pixels[y1:y2, x1:x2].any()
