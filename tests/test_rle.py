"""RLE cases beyond the property tests: errors, many rows at once."""

import subprocess
import sys

import numpy as np
import pytest

from maskrcnn import RLE, RLEError
from maskrcnn.rle import parse_column


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1", "value 1 ('1') is a start without a length"),
        ("1 2 5", "value 3 ('5') is a start without a length"),
        ("1 0", "value 2 ('0') is a length below 1"),
        ("4 -2", "value 2 ('-2') is a length below 1"),
        ("0 3", "value 1 ('0') is a start below 1"),
        ("-3 3", "value 1 ('-3') is a start below 1"),
        ("5 2 3 1", "value 3 ('3') is smaller than the previous start"),
        ("5 4 7 1", "value 3 ('7') starts inside the previous run"),
        ("99 3", "value 2 ('3') makes the run end past the image's last pixel (100 pixels)"),
        ("1 x", "value 2 ('x') is not an integer"),
        ("1 2 1.5 3", "value 3 ('1.5') is not an integer"),
        ("1 99999999999999999999", "is not an integer"),
    ],
)
def test_malformed_runs_are_named(text, message):
    with pytest.raises(RLEError) as caught:
        RLE.from_encoded_pixels(text, (10, 10))
    assert message in str(caught.value)


def test_touching_runs_are_joined():
    assert RLE.from_encoded_pixels("1 3 4 2", (10, 10)) == RLE.from_encoded_pixels("1 5", (10, 10))


def test_the_last_pixel_is_inside():
    rle = RLE.from_encoded_pixels("100 1", (10, 10))
    assert rle.box == (9, 9, 10, 10)


def test_a_one_pixel_mask_has_a_box_of_one_pixel():
    assert RLE.from_encoded_pixels("12 1", (10, 10)).box == (1, 1, 2, 2)


@pytest.mark.parametrize(
    ("coco", "message"),
    [
        ({"size": [2, 2], "counts": [1, 2]}, "add up to 3"),
        ({"size": [2, 2], "counts": [5, -1]}, "count 2 is -1"),
        ({"size": [2, 2], "counts": "\x01"}, "character 1"),
        ({"size": [2, 2], "counts": [2**62, 2**62, 2**62, 2**62, 4]}, "count 1 is 4611686018427387904, more than all"),
    ],
)
def test_malformed_coco_counts_are_named(coco, message):
    with pytest.raises(RLEError, match=message):
        RLE.from_coco(coco)


def test_masks_of_different_sizes_do_not_mix():
    with pytest.raises(RLEError, match="different sizes"):
        RLE.empty((3, 4)).union(RLE.empty((4, 3)))


def test_a_column_reports_every_malformed_text_and_keeps_the_others():
    texts = ["1 2", "0 5", "", "7 2 1 1", "10 1"]
    raw = np.frombuffer("".join(texts).encode(), np.uint8)
    offsets = np.concatenate([[0], np.cumsum([len(t) for t in texts])])
    table, bad = parse_column(raw, offsets, np.full(5, 100))
    assert [b.index for b in bad] == [1, 3]
    assert [table[i].tolist() for i in range(5)] == [[[0, 2]], [], [], [], [[9, 1]]]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_million_rows_fit_in_two_gigabytes():
    """Peak memory only: benchmarks/rle.py measures time."""
    code = (
        "import numpy as np\n"
        "from maskrcnn.rle import parse_column\n"
        "row = ' '.join(f'{1 + 40 * k} 20' for k in range(20)).encode()\n"
        "n = 1_000_000\n"
        "text = np.frombuffer(row * n, np.uint8)\n"
        "table, bad = parse_column(text, np.arange(n + 1) * len(row), np.full(n, 512 * 512))\n"
        "assert not bad and len(table.runs) == 20 * n\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"  # peak memory of the process, in kB
    )
    peak = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert peak * 1024 < 2e9
