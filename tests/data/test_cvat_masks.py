"""CVAT's masks: their counts, their boxes, and malformed ones."""

from dataclasses import replace

import numpy as np
import pytest

from maskrcnn import RLE, RLEError
from maskrcnn.data.formats.cvat_masks import CvatMask, decode_cvat_mask, encode_cvat_mask

MASK = CvatMask("0, 2, 1, 1, 1, 1", left=3, top=1, width=3, height=2)


def test_counts_go_along_the_rows_of_the_box():
    expected = np.zeros((5, 7), bool)
    expected[1, [3, 4]] = expected[2, [3, 5]] = True
    assert np.array_equal(decode_cvat_mask(MASK, (5, 7)).to_mask(), expected)
    assert encode_cvat_mask(RLE.from_mask(expected)) == MASK
    assert decode_cvat_mask(replace(MASK, rle="0,2,1,1,1,1"), (5, 7)) == RLE.from_mask(expected)


def test_masks_round_trip(rng):
    for _ in range(200):
        hw = tuple(rng.integers(1, 40, 2).tolist())
        rle = RLE.from_mask(rng.random(hw) < rng.choice([0, 0.02, 0.5, 1]))
        mask = encode_cvat_mask(rle)
        assert decode_cvat_mask(mask, hw) == rle
        assert sum(map(int, mask.rle.split(", ") if mask.rle else [])) == mask.width * mask.height


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rle": "0, 2, 1, 1, 1"}, r"the counts add up to 5, not to 2 x 3 = 6 pixels"),
        ({"rle": "0, 7"}, "count 2 is 7, more than all"),
        ({"rle": "-1, 7"}, "count 1 is -1"),
        ({"rle": "0, a"}, "expected counts such as"),
        ({"rle": "0; 6"}, "expected counts such as"),
        ({"rle": "99999999999999999999"}, "expected counts such as"),
        ({"rle": ""}, "the counts add up to 0"),
        ({"left": -1}, r"leave the 5x7 \(height x width\) picture"),
        ({"top": 4}, "leave the 5x7"),
        ({"width": 10**12}, "leave the 5x7"),
        ({"height": -2}, "leave the 5x7"),
    ],
)
def test_malformed_masks_are_named(changes, message):
    with pytest.raises(RLEError, match=message):
        decode_cvat_mask(replace(MASK, **changes), (5, 7))
