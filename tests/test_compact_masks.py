"""Detections to and from the package supervision."""

import sys
import tracemalloc

import numpy as np
import pytest
import supervision

from maskrcnn import RLE, Detections, UserError
from maskrcnn.structures import UNNAMED_CLASS

HW = (37, 53)
NAMES = {3: "cell", 7: "speck", 40: "débris"}


def detections_of(masks, rng, ids=tuple(NAMES), names=NAMES, hw=HW):
    """Detections with these masks, unsorted random scores, and boxes that are not those of the masks."""
    chosen = rng.integers(0, len(ids), len(masks))
    return Detections(
        boxes=(rng.random((len(masks), 4)) * 20 + [0, 0, 20, 20]).astype(np.float32),
        scores=rng.random(len(masks)).astype(np.float32),
        class_ids=np.array([ids[k] for k in chosen]) if len(masks) else np.zeros(0, int),
        class_names=[names[ids[k]] for k in chosen],
        rles=[RLE.from_mask(mask) for mask in masks],
        hw=hw,
    )


def one_pixel(row, column):
    mask = np.zeros(HW, bool)
    mask[row, column] = True
    return mask


def noise(rng, share):
    return rng.random(HW) < share


CASES = {
    "none": lambda rng: [],
    "an empty mask": lambda rng: [np.zeros(HW, bool)],
    "the full picture": lambda rng: [np.ones(HW, bool)],
    "the first pixel": lambda rng: [one_pixel(0, 0)],
    "the last pixel": lambda rng: [one_pixel(-1, -1)],
    "noise": lambda rng: [noise(rng, share) for share in (0.003, 0.02, 0.5, 0.99)],
    "all kinds": lambda rng: [noise(rng, 0.1), np.zeros(HW, bool), np.ones(HW, bool), one_pixel(20, 52)],
}


def assert_equal(a: Detections, b: Detections):
    assert a.hw == b.hw
    assert a.rles == b.rles
    assert np.array_equal(a.boxes, b.boxes)
    assert np.array_equal(a.scores, b.scores)
    assert a.class_ids.tolist() == b.class_ids.tolist()
    assert a.class_names == b.class_names


@pytest.mark.parametrize("case", CASES)
def test_supervision_has_the_same_masks_and_returns_them(rng, case):
    dets = detections_of(CASES[case](rng), rng)
    theirs = dets.to_supervision()
    assert isinstance(theirs.mask, supervision.CompactMask)
    assert np.array_equal(theirs.mask.to_dense(), dets.masks)
    assert theirs.mask.area.tolist() == [rle.area for rle in dets.rles]
    assert np.array_equal(theirs.xyxy, dets.boxes)
    assert np.array_equal(theirs.confidence, dets.scores)
    assert theirs.class_id.tolist() == dets.class_ids.tolist()
    assert theirs.data["class_name"].tolist() == dets.class_names
    assert_equal(Detections.from_supervision(theirs), dets)


@pytest.mark.parametrize("case", CASES)
def test_dense_masks_of_supervision_are_read(rng, case):
    dets = detections_of(CASES[case](rng), rng)
    theirs = dets.to_supervision()
    theirs.mask = theirs.mask.to_dense()
    assert_equal(Detections.from_supervision(theirs), dets)


def test_crops_that_supervision_made_are_read(rng):
    """Crops of its boxes, looser than the masks, of filtered and merged detections."""
    masks = np.stack([noise(rng, 0.2), one_pixel(9, 9), np.zeros(HW, bool), np.ones(HW, bool)])
    whole = np.tile([0, 0, HW[1] - 1, HW[0] - 1], (4, 1)).astype(np.float32)
    theirs = supervision.Detections(
        xyxy=whole,
        mask=supervision.CompactMask.from_dense(masks, whole, HW),
        class_id=np.array([0, 1, 1, 0]),
        confidence=np.array([0.1, 0.2, 0.3, 0.4], np.float32),
    )
    merged = supervision.Detections.merge([theirs[theirs.confidence > 0.15], theirs[:1]])
    dets = Detections.from_supervision(merged, class_names=["leaf", "stem"])
    assert np.array_equal(dets.masks, masks[[1, 2, 3, 0]])
    assert dets.class_names == ["stem", "stem", "leaf", "leaf"]
    assert Detections.from_supervision(merged).class_names == ["1", "1", "0", "0"]


def test_ids_that_are_texts_come_back(rng):
    dets = detections_of(CASES["noise"](rng), rng, ids=["b", "a"], names={"b": "boat", "a": "ant"})
    theirs = dets.to_supervision()
    assert theirs.class_id.tolist() == [["ant", "boat"].index(name) for name in dets.class_names]
    assert_equal(Detections.from_supervision(theirs[:2]), dets[:2])


def test_neither_side_changes_with_the_other(rng):
    dets = detections_of(CASES["noise"](rng), rng)
    boxes, theirs = dets.boxes.copy(), dets.to_supervision()
    back = Detections.from_supervision(theirs)
    for array in (theirs.xyxy, theirs.confidence, theirs.class_id):
        array += 1
    assert_equal(back, dets)
    assert np.array_equal(dets.boxes, boxes)


def test_what_supervision_leaves_out_has_a_default(rng):
    masks = np.stack([noise(rng, 0.5)])
    dets = Detections.from_supervision(supervision.Detections(np.array([[0, 0, 5, 5]]), masks), hw=HW)
    assert dets.scores.tolist() == [1.0]
    assert dets.class_names == [UNNAMED_CLASS]
    assert dets.boxes.dtype == np.float32
    assert len(Detections.from_supervision(supervision.Detections.empty(), hw=HW)) == 0


def test_supervision_draws_them(rng):
    dets = detections_of(CASES["noise"](rng), rng)
    picture = np.zeros((*HW, 3), np.uint8)
    drawn = supervision.MaskAnnotator(opacity=1).annotate(picture, dets.to_supervision())
    assert np.array_equal(drawn.any(-1), dets.masks.any(0))


@pytest.mark.parametrize(
    ("theirs", "options", "message"),
    [
        (supervision.Detections(np.zeros((1, 4))), {"hw": HW}, "boxes but no masks"),
        (supervision.Detections(np.zeros((0, 4))), {}, "pass hw="),
        (
            supervision.Detections(np.zeros((1, 4)), np.ones((1, *HW), bool)),
            {"hw": (53, 37)},
            r"\(37, 53\).*\(53, 37\)",
        ),
        *(
            (
                supervision.Detections(np.zeros((1, 4)), np.ones((1, *HW), bool), class_id=np.array([class_id])),
                {"class_names": names},
                rf"no name for the class id {class_id}",
            )
            for class_id, names in ((2, ["a", "b"]), (-1, ["a", "b"]), (5, {1: "a"}))
        ),
    ],
)
def test_what_detections_lack_is_said(theirs, options, message):
    with pytest.raises(UserError, match=message):
        Detections.from_supervision(theirs, **options)


@pytest.mark.parametrize("installed", [None, type(sys)("supervision")], ids=["missing", "before CompactMask"])
def test_a_missing_package_is_named(rng, monkeypatch, installed):
    monkeypatch.setitem(sys.modules, "supervision", installed)
    with pytest.raises(UserError, match=r"0\.30 or newer .*pip install 'maskrcnn\[supervision\]'"):
        detections_of([], rng).to_supervision()


def test_no_dense_mask_is_allocated(rng):
    """500 masks of 4000 x 4000 pixels would take 8 GB, one of them 16 MB."""
    hw, n = (4000, 4000), 500
    disc = RLE.from_mask(np.hypot(*np.ogrid[-9:10, -9:10]) < 9.5)
    corners = rng.integers(0, 4000 - 19, (n, 2))
    dets = Detections(
        boxes=np.tile(np.array([0, 0, 1, 1], np.float32), (n, 1)),
        scores=np.ones(n, np.float32),
        class_ids=np.ones(n, int),
        class_names=["a"] * n,
        rles=[disc.shift(x, y, hw) for x, y in corners.tolist()],
        hw=hw,
    )
    dets[:1].to_supervision()
    tracemalloc.start()
    try:
        theirs = dets.to_supervision()
        back = Detections.from_supervision(theirs)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert back.rles == dets.rles
    assert peak < 3_000_000
