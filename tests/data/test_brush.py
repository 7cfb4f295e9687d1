"""Label Studio's brush masks against label-studio-converter, and malformed ones."""

import numpy as np
import pytest

from maskrcnn import RLE, RLEError
from maskrcnn.data.formats.brush import decode_brush, encode_brush

DISC = np.hypot(*(np.mgrid[:9, :11] - 4.5)) < 3
DISC_BYTES = [
    0, 0, 1, 140, 57, 27, 254, 99, 0, 191, 255, 133, 192, 48, 191, 254, 19, 0, 194, 255, 248, 76, 3, 11, 255,
    225, 48, 12, 47, 255, 133, 192, 47, 255, 227, 176, 0,
]  # fmt: skip
"""`mask2rle` of label-studio-converter 0.0.59 for ``255 * DISC``."""


def random_masks(rng, n):
    """Return noise, stretches of rows, nothing and everything, of small and large pictures."""
    for k in range(n):
        hw = tuple(rng.integers(1, 60, 2).tolist()) if k % 10 else (300, 400)
        mask = rng.random(hw) < rng.choice([0, 0.02, 0.5, 0.95, 1])
        if k % 2:
            mask = np.zeros(hw, bool)
            start, end = sorted(rng.integers(0, mask.size + 1, 2))
            mask.ravel()[start:end] = True
        yield mask


def test_bytes_are_those_of_label_studio():
    assert encode_brush(RLE.from_mask(DISC)) == DISC_BYTES
    assert decode_brush(DISC_BYTES, DISC.shape) == RLE.from_mask(DISC)
    assert decode_brush(bytes(DISC_BYTES), DISC.shape) == RLE.from_mask(DISC)


def test_masks_round_trip(rng):
    for mask in random_masks(rng, 100):
        rle = RLE.from_mask(mask)
        assert decode_brush(encode_brush(rle), mask.shape) == rle


def test_label_studio_converter_agrees(rng):
    brush = pytest.importorskip("label_studio_converter.brush")
    for mask in random_masks(rng, 100):
        data = brush.mask2rle(255 * mask.astype(np.uint8))
        assert encode_brush(RLE.from_mask(mask)) == data
        assert decode_brush(data, mask.shape) == RLE.from_mask(mask)
    for _ in range(50):
        h, w = rng.integers(1, 30, 2).tolist()
        values = rng.integers(0, 2, 4 * h * w) * rng.integers(0, 256, 4 * h * w)  # four different channels
        data = brush.encode_rle(values)
        alpha = brush.decode_rle(data).reshape(h, w, 4)[:, :, 3]
        assert decode_brush(data, (h, w)) == RLE.from_mask(alpha)


def pack(*fields):
    """Return the bytes of (number, bits) pairs."""
    bits = "".join(f"{number:0{n}b}" for number, n in fields)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


HEADER = ((16, 32), (7, 5), (2, 4), (3, 4), (7, 4), (15, 4))
"""Of a picture of 2 x 2: values of 8 bits, lengths of 3, 4, 8 and 16."""


def test_unrepeated_values_and_other_sizes_are_read():
    literal = pack((8, 32), (3, 5), (4, 4), (0, 4), (0, 4), (0, 4), (0, 1), (0, 2), (7, 5), *[(v, 4) for v in range(8)])
    assert decode_brush(literal, (1, 2)).area == 2
    values = [1, 1, 1, 0, 1, 1, 1, 1]
    literal = pack((8, 32), (0, 5), (2, 4), (0, 4), (0, 4), (0, 4), (0, 1), (0, 2), (7, 3), *[(v, 1) for v in values])
    assert decode_brush(literal, (1, 2)).to_mask().tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "its 0 bytes end at value 1 of 16"),
        (pack(*HEADER), "its 7 bytes end at value 1 of 16"),
        (pack(*HEADER, (1, 1), (0, 2), (7, 3), (255, 8)), "end at value 9 of 16"),
        (pack((20, 32), *HEADER[1:]), "it has 20 values; a picture of 2x2 .* needs 16"),
        (pack((2**32 - 1, 32), *HEADER[1:]), "it has 4,294,967,295 values"),
        (pack(*HEADER, (1, 1), (3, 2), (65535, 16), (255, 8)), "the packet at value 1 ends beyond the last of 16"),
        (pack(*HEADER, (0, 1), (3, 2), (15, 16), (255, 8)), "end at value 1 of 16"),
        ([1, 300], "expected a list of bytes"),
        ([-1], "expected a list of bytes"),
        ([1.5], "expected a list of bytes"),
        (["a"], "expected a list of bytes"),
        ([[1, 2], [3]], "expected a list of bytes"),
        (None, "expected a list of bytes"),
        ([2**80], "expected a list of bytes"),
    ],
)
def test_malformed_bytes_are_named(data, message):
    with pytest.raises(RLEError, match=message):
        decode_brush(data, (2, 2))


def test_every_truncation_is_noticed(rng):
    mask = rng.random((13, 8)) < 0.5
    data = encode_brush(RLE.from_mask(mask))
    for length in range(len(data) - 1):
        with pytest.raises(RLEError, match="brush mask"):
            decode_brush(data[:length], mask.shape)


def test_random_bytes_end_in_a_mask_or_an_error(rng):
    header = pack(*HEADER)[:4]
    for _ in range(3000):
        try:
            mask = decode_brush(header + rng.integers(0, 256, 12).tolist(), (2, 2))
        except RLEError:
            continue
        assert RLE.from_mask(mask.to_mask()) == mask


def test_a_picture_of_more_than_32_bits_of_values_is_refused():
    with pytest.raises(RLEError, match="exceed the format's limit of 1,073,741,823"):
        encode_brush(RLE.empty((2**15, 2**15)))
