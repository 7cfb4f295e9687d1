"""Detections and their files: shapes, overlaps, formats."""

import os
import threading
from functools import partial
from pathlib import Path, PurePath

import numpy as np
import pytest
from PIL import Image

from maskrcnn import RLE, Detections
from maskrcnn.errors import UserError
from maskrcnn.evaluation import kaggle
from maskrcnn.files import write_text
from maskrcnn.inference import outputs
from maskrcnn.inference.outputs import MAX_PENDING, Writer, label_picture

HW = (6, 8)


def detections() -> Detections:
    masks = np.zeros((3, *HW), bool)
    masks[0, 1:4, 1:5] = True
    masks[1, 2:5, 3:7] = True
    masks[2, 2:4, 3:5] = True  # inside the second
    return Detections(
        boxes=np.array([[1, 1, 5, 4], [3, 2, 7, 5], [3, 2, 5, 4]], np.float32),
        scores=np.array([0.6, 0.9, 0.5], np.float32),
        class_ids=np.array([4, 4, 9]),
        class_names=["cell", "cell", "speck"],
        rles=[RLE.from_mask(m) for m in masks],
        hw=HW,
        pixels=np.full((*HW, 3), 90, np.uint8),
    )


def test_a_shared_pixel_goes_to_the_highest_score():
    dets = detections()
    texts = dets.encoded_pixels()
    decoded = [RLE.from_encoded_pixels(t, HW).to_mask() for t in texts]
    masks = dets.masks
    assert np.array_equal(decoded[1], masks[1])
    assert np.array_equal(decoded[0], masks[0] & ~masks[1])
    assert texts[2] == ""
    assert dets.encoded_pixels(overlap=None)[2] != ""
    without_overlaps = dets.without_overlaps()
    assert len(without_overlaps) == 2
    assert without_overlaps.masks.sum(0).max() == 1


def columns(*ranges: tuple[int, int]) -> Detections:
    """Detections in an image of 4 x 20, best first, each of the columns from the first number to before the second."""
    masks = np.zeros((len(ranges), 4, 20), bool)
    for mask, (left, right) in zip(masks, ranges, strict=True):
        mask[:, left:right] = True
    return Detections(
        boxes=np.array([(left, 0, right, 4) for left, right in ranges], np.float32),
        scores=np.linspace(0.9, 0.5, len(ranges), dtype=np.float32),
        class_ids=np.ones(len(ranges), int),
        class_names=["a"] * len(ranges),
        rles=[RLE.from_mask(m) for m in masks],
        hw=(4, 20),
    )


def test_a_detection_that_keeps_less_than_half_of_its_mask_is_dropped():
    # The second would keep 2 of its 8 columns. It leaves them to the third, which keeps 8 of 12.
    dets = columns((0, 10), (4, 12), (6, 18))
    assert [r.area for r in dets.without_overlaps().rles] == [40, 32]
    assert [bool(text) for text in dets.encoded_pixels()] == [True, False, True]
    # With 7 of 14 columns, the second stays, and the third loses 4 of its 8 columns to it.
    dets = columns((0, 10), (3, 17), (13, 20))
    assert [r.area for r in dets.without_overlaps().rles] == [40, 28]


def test_a_dropped_detection_takes_no_pixel_from_any_output(tmp_path):
    dets = columns((0, 10), (4, 12), (10, 14))  # without the dropped second, the third is whole
    labels = np.asarray(label_picture(dets.without_overlaps()))
    assert np.array_equal(labels == 2, dets.masks[2])
    with Writer(tmp_path, overlays=False, labels=False, with_class=False).open(submission=True, coco=False) as writer:
        writer.add(PurePath("a.png"), "a.png", dets)
    rows = (tmp_path / "submission.csv").read_text().splitlines()[1:]
    assert rows == [f"a.png,{dets.rles[i].to_encoded_pixels()}" for i in (0, 2)]
    assert kaggle.image_scores([dets.rles[0], dets.rles[2]], [1, 1], dets.without_overlaps()).tolist() == [1.0] * 10


def test_a_submission_of_masks_that_share_pixels_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Detections, "without_overlaps", lambda self: self)
    with (
        pytest.raises(RuntimeError, match=r"masks of a\.png share pixels"),
        Writer(tmp_path, overlays=False, labels=False, with_class=False).open(submission=True, coco=False) as writer,
    ):
        writer.add(PurePath("a.png"), "a.png", columns((0, 10), (9, 12)))
    assert list(tmp_path.iterdir()) == []


def test_coco_results():
    entry = detections().to_coco(7)[0]
    assert entry["image_id"] == 7
    assert entry["category_id"] == 4
    assert entry["bbox"] == [1.0, 1.0, 4.0, 3.0]
    assert RLE.from_coco(entry["segmentation"]).area == 12


def test_a_wrong_shape_is_reported():
    with pytest.raises(ValueError, match="boxes has the shape"):
        Detections(np.zeros((2, 3)), np.zeros(2), np.zeros(2), ["a", "b"], [RLE.empty(HW)] * 2, HW)


def test_the_overlay_marks_detections(tmp_path):
    detections().save_overlay(tmp_path / "deep" / "a.png")
    picture = np.asarray(Image.open(tmp_path / "deep" / "a.png"))
    assert picture.shape == (HW[0] * 4, HW[1] * 4, 3)
    assert (picture != 90).any()


def test_label_pictures_hold_instance_numbers():
    labels = np.asarray(label_picture(detections().without_overlaps()))
    assert labels.dtype == np.uint16
    assert sorted(np.unique(labels).tolist()) == [0, 1, 2]


def test_the_writer_leaves_no_file_when_it_fails(tmp_path):
    writer = Writer(tmp_path, overlays=False, labels=False, with_class=True)
    with pytest.raises(KeyError), writer.open(submission=True, coco=True):
        writer.add(PurePath("a.png"), "a.png", detections())
        raise KeyError("stop")
    assert list(tmp_path.iterdir()) == []
    with Writer(tmp_path, overlays=False, labels=False, with_class=True).open(submission=True, coco=True) as writer:
        writer.add(PurePath("a.png"), "a.png", detections())
        writer.add(PurePath("b.png"), "b.png", detections()[:0])
    rows = (tmp_path / "submission.csv").read_text().splitlines()
    assert rows[0] == "ImageId,EncodedPixels,ClassId"
    assert len(rows) == 4
    assert rows[3] == "b.png,,"


def test_the_writer_reports_a_picture_that_cannot_be_written(tmp_path):
    (tmp_path / "overlays").write_text("a file where the folder should be")
    with (
        pytest.raises(UserError, match=r"overlays.*a\.png"),
        Writer(tmp_path, overlays=True, labels=False, with_class=False).open(submission=True, coco=False) as writer,
    ):
        writer.add(PurePath("a.png"), "a.png", detections())
    assert not (tmp_path / "submission.csv").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full of Linux")
@pytest.mark.parametrize("many", [False, True], ids=["when closing", "while writing"])
@pytest.mark.parametrize("kind", ["submission", "coco"])
def test_the_writer_reports_a_full_disk(tmp_path, monkeypatch, kind, many):
    open_full = partial(open, "/dev/full")
    monkeypatch.setattr(outputs, "open", lambda _, *args, **options: open_full(*args, **options), raising=False)
    files = {"submission": kind == "submission", "coco": kind == "coco"}
    writer = Writer(tmp_path, overlays=False, labels=False, with_class=False)
    with pytest.raises(UserError, match=rf"cannot write .*{kind}"), writer.open(**files) as writer:
        for k in range(400 if many else 1):
            writer.add(PurePath(f"{k}.png"), f"{k}.png", detections())


def test_the_writer_keeps_the_order_and_limits_pending_images(tmp_path, monkeypatch):
    started, may_write = [], threading.Event()
    write = Writer._write

    def slow(self, name, image_id, dets):
        started.append(image_id)
        assert may_write.wait(10)
        write(self, name, image_id, dets)

    monkeypatch.setattr(Writer, "_write", slow)
    added = []

    def add_all(writer):
        for i in range(20):
            writer.add(PurePath(f"{i}.png"), f"{i}.png", detections()[:1])
            added.append(i)

    with Writer(tmp_path, overlays=False, labels=False, with_class=False).open(submission=True, coco=False) as writer:
        adding = threading.Thread(target=add_all, args=[writer])
        adding.start()
        adding.join(0.5)
        assert len(started) == 1
        assert len(added) == MAX_PENDING
        may_write.set()
        adding.join(10)
    rows = (tmp_path / "submission.csv").read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == [f"{i}.png" for i in range(20)]


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
def test_a_new_file_follows_the_umask_and_a_replaced_one_keeps_its_permissions(tmp_path):
    path = tmp_path / "a.txt"
    umask = os.umask(0o027)
    try:
        write_text("new", path)
        assert path.stat().st_mode & 0o777 == 0o640
        path.chmod(0o604)
        write_text("replaced", path)
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o604
    assert path.read_text() == "replaced"
