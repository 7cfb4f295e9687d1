"""Label and colour pictures against dense masks."""

import numpy as np
import pytest

from maskrcnn import RLE, RLEError
from maskrcnn.labels import label_masks, pack_colors, paint_labels
from maskrcnn.rle import RunTable


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, ">u2"])
@pytest.mark.parametrize("background", [0, 1, None])
def test_every_label_has_its_mask(rng, dtype, background):
    for hw in ((1, 1), (7, 200), (150, 3), (64, 128), (65, 129)):
        for n_labels in (1, 2, 200):
            labels = rng.integers(0, n_labels, hw).astype(dtype)
            labels[:, hw[1] // 2 :] = labels[:1, :1]  # runs of several columns
            values, masks = label_masks(labels, background)
            assert values.tolist() == [v for v in np.unique(labels).tolist() if v != background]
            for i, value in enumerate(values):
                assert RLE(masks[i], hw) == RLE.from_mask(labels == value)


@pytest.mark.parametrize("layout", ["F", "every second", "read-only"])
def test_any_memory_layout_is_read(rng, layout):
    labels = rng.integers(0, 5, (90, 70), np.uint8)
    same = {"F": np.asfortranarray(labels), "every second": np.repeat(labels, 2, 1)[:, ::2], "read-only": labels.copy()}
    same[layout].setflags(write=layout != "read-only")
    for found, expected in zip(label_masks(same[layout])[1].runs, label_masks(labels)[1].runs, strict=True):
        assert np.array_equal(found, expected)


def test_the_highest_label_of_32_bits_stays_itself():
    values, masks = label_masks(np.array([[0, 2**32 - 1]], np.uint32))
    assert values.tolist() == [2**32 - 1]
    assert masks[0].tolist() == [[1, 1]]


def test_a_picture_of_background_has_no_labels():
    values, masks = label_masks(np.zeros((4, 5), np.uint8))
    assert len(values) == len(masks) == 0
    assert len(label_masks(np.zeros((0, 5), np.uint8))[0]) == 0


@pytest.mark.parametrize("labels", [np.zeros((2, 2)), np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint64)])
def test_other_arrays_are_refused(labels):
    with pytest.raises(RLEError, match="a label picture is a"):
        label_masks(labels)


def test_colours_are_labels():
    picture = np.zeros((2, 3, 4), np.uint8)
    picture[0, 1, :3], picture[1, 2, :3], picture[..., 3] = (1, 2, 3), (255, 0, 128), 77
    values, masks = label_masks(pack_colors(picture))
    assert [hex(v) for v in values] == ["0x10203", "0xff0080"]
    assert masks[0].tolist() == [[2, 1]]
    assert masks[1].tolist() == [[5, 1]]
    with pytest.raises(RLEError, match="a colour picture is a"):
        pack_colors(np.zeros((2, 3), np.uint8))


def test_the_first_mask_in_order_takes_a_pixel(rng):
    for _ in range(50):
        hw = tuple(rng.integers(1, 40, 2).tolist())
        dense = rng.random((4, *hw)) < 0.4
        table = RunTable.of(RLE.from_mask(mask).runs for mask in dense)
        values, order = np.array([9, 4, 300, 7], np.uint16), rng.permutation(4)
        expected = np.zeros(hw, np.uint16)
        for i in order[::-1]:
            expected[dense[i]] = values[i]
        picture = paint_labels(table, values, hw, order)
        assert picture.dtype == np.uint16
        assert np.array_equal(picture, expected)
        first = paint_labels(table, values, hw)
        assert np.array_equal(first[dense[0]], np.full(dense[0].sum(), 9))
        assert not paint_labels(table, values, hw, [])[0].any()


def test_labels_survive_masks(rng):
    labels = rng.integers(0, 9, (50, 130), np.uint16)
    values, masks = label_masks(labels)
    assert np.array_equal(paint_labels(masks, values.astype(np.uint16), (50, 130)), labels)
