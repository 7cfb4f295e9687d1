"""RLE against pycocotools and against dense masks, on any mask that hypothesis thinks of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as oracle

from maskrcnn import RLE, iou_matrix
from maskrcnn.rle import intersection_matrix, remove_overlaps

masks = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24).flatmap(lambda hw: arrays(bool, hw))
pairs = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24).flatmap(
    lambda hw: st.tuples(arrays(bool, hw), arrays(bool, hw))
)
windows = st.tuples(*[st.integers(-6, 20)] * 2, *[st.integers(0, 20)] * 2).map(
    lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3])
)

relaxed = settings(max_examples=150, deadline=None)


def encode(mask: np.ndarray) -> dict:
    return oracle.encode(np.asfortranarray(mask.astype(np.uint8)))


def dense_window(mask: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    x1, y1, x2, y2 = window
    canvas = np.zeros((mask.shape[0] + 80, mask.shape[1] + 80), bool)
    canvas[40 : 40 + mask.shape[0], 40 : 40 + mask.shape[1]] = mask
    return canvas[40 + y1 : 40 + y2, 40 + x1 : 40 + x2]


@relaxed
@given(masks)
def test_coco_form_is_that_of_pycocotools(mask):
    rle = RLE.from_mask(mask)
    theirs = encode(mask)
    assert rle.to_coco() == {"size": list(theirs["size"]), "counts": theirs["counts"].decode()}
    assert RLE.from_coco(theirs) == rle
    assert RLE.from_coco({"size": list(mask.shape), "counts": rle.counts()}) == rle
    assert rle.area == oracle.area(theirs)
    x, y, w, h = oracle.toBbox(theirs)
    assert rle.box == (x, y, x + w, y + h)
    assert np.array_equal(rle.to_mask(), mask)


@relaxed
@given(masks, st.sampled_from([0, 1]), st.sampled_from(["column", "row"]), st.booleans())
def test_every_kind_of_encoded_pixels_comes_back(mask, origin, order, relative):
    rle = RLE.from_mask(mask)
    text = rle.to_encoded_pixels(origin=origin, order=order, relative=relative)
    assert RLE.from_encoded_pixels(text, mask.shape, origin=origin, order=order, relative=relative) == rle


@relaxed
@given(masks)
def test_encoded_pixels_count_as_kaggle_does(mask):
    flat = np.concatenate([[0], mask.T.ravel(), [0]])
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, ends = changes[::2], changes[1::2]
    expected = " ".join(f"{s} {e - s}" for s, e in zip(starts, ends, strict=True))
    assert RLE.from_mask(mask).to_encoded_pixels() == expected


@relaxed
@given(pairs)
def test_set_operations_and_overlap(pair):
    a, b = pair
    ra, rb = RLE.from_mask(a), RLE.from_mask(b)
    assert ra.union(rb) == RLE.from_mask(a | b)
    assert ra.intersection(rb) == RLE.from_mask(a & b)
    assert ra.difference(rb) == RLE.from_mask(a & ~b)
    assert intersection_matrix([ra], [rb])[0, 0] == (a & b).sum()
    expected = oracle.iou([encode(a)], [encode(b)], [0])[0, 0] if a.any() or b.any() else 0.0
    assert iou_matrix([ra], [rb])[0, 0] == pytest.approx(expected, abs=1e-12)


@relaxed
@given(masks, windows)
def test_crop_shift_and_window(mask, window):
    rle, expected = RLE.from_mask(mask), dense_window(mask, window)
    if expected.size:
        assert rle.crop(window) == RLE.from_mask(expected)
    assert np.array_equal(rle.to_mask(window), expected)
    dx, dy = window[:2]
    h, w = mask.shape
    assert rle.shift(dx, dy) == RLE.from_mask(dense_window(mask, (-dx, -dy, w - dx, h - dy)))


@relaxed
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=20))
def test_compressed_counts_of_any_size_come_back(lengths):
    total = sum(lengths)
    if total == 0:
        return
    rle = RLE.from_coco({"size": [1, total], "counts": lengths})
    assert RLE.from_coco(rle.to_coco()) == rle


@relaxed
@given(pairs)
def test_overlaps_go_to_the_first_in_order(pair):
    a, b = (RLE.from_mask(m) for m in pair)
    first, second = remove_overlaps([a, b], [1, 0])
    assert second == b
    assert first == a.difference(b)
