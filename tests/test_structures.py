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


def test_a_detection_that_keeps_less_than_half_of_its_mask_is_dropped():
    masks = np.zeros((3, 4, 20), bool)
    masks[0, :, :10] = masks[1, :, 4:12] = masks[2, :, 6:18] = True
    dets = Detections(
        boxes=np.array([[0, 0, 10, 4], [4, 0, 12, 4], [6, 0, 18, 4]], np.float32),
        scores=np.array([0.9, 0.8, 0.7], np.float32),
        class_ids=np.array([1, 1, 1]),
        class_names=["a"] * 3,
        rles=[RLE.from_mask(m) for m in masks],
        hw=(4, 20),
    )
    # The second keeps 2 of its 8 columns, the third 6 of 12.
    assert [r.area for r in dets.without_overlaps().rles] == [40, 24]
    assert [bool(text) for text in dets.encoded_pixels()] == [True, False, True]


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
