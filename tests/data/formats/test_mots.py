"""MOTS: values of a class and an object, regions to ignore, names of classes, and other label pictures."""

import numpy as np
import pytest
from PIL import Image

from labelled import opened
from maskrcnn import UserError
from maskrcnn.data.formats import mots as mots_format
from maskrcnn.data.formats import recognized
from maskrcnn.data.formats.source import Source
from samples import disc

HW = (30, 44)
DISCS = {1001: disc(HW, 9, 9, 5), 2003: disc(HW, 20, 30, 6) & ~disc(HW, 20, 30, 2), 10_000: disc(HW, 5, 38, 4)}


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def label_picture(discs=DISCS):
    return sum((mask * np.uint16(value) for value, mask in discs.items()), np.zeros(HW, np.uint16)).astype(np.uint16)


def mots(folder, names=None, pictures="images"):
    """Two parts with a picture of the same name, in a sequence of each."""
    for part in ("train", "val"):
        save(folder / part / pictures / "0002" / "000000.png", np.zeros((*HW, 3), np.uint8))
        save(folder / part / "instances" / "0002" / "000000.png", label_picture())
        if names:
            (folder / part / "instances" / "labels.txt").write_text(names)
    return folder


@pytest.mark.parametrize(
    ("names", "classes"), [("Auto\nMensch\nx\n", ["Auto", "Mensch", "x"]), (None, ["car", "pedestrian"])]
)
def test_classes_and_objects_are_read(tmp_path, names, classes):
    data, said = opened(mots(tmp_path, names))
    assert recognized(Source(tmp_path)) == "mots"
    assert data.part_sizes == {"train": 1, "val": 1}
    assert data.files == [tmp_path / part / "images" / "0002" / "000000.png" for part in ("train", "val")]
    assert data.class_names == classes
    assert data.labels.tolist() == [1, 2] * 2
    assert data.rows.tolist() == [1001, 2003] * 2
    for i in range(2):
        assert np.array_equal([mask.to_mask() for mask in data.rles(i)], [DISCS[1001], DISCS[2003]])
    assert "regions to ignore (value 10000) of 2 pictures are left out" in said
    assert "do not list" not in said


@pytest.mark.parametrize("pictures", ["images", "image_02"])
def test_one_part_is_read_alone(tmp_path, pictures):
    data, _ = opened(mots(tmp_path, pictures=pictures) / "val")
    assert data.n_instances == 2
    assert data.files == [tmp_path / "val" / pictures / "0002" / "000000.png"]


def test_a_class_without_a_name_and_a_damaged_file_are_named(tmp_path):
    mots(tmp_path, "car\n")
    save(tmp_path / "val" / "images" / "0003" / "000001.png", np.zeros((*HW, 3), np.uint8))
    (tmp_path / "val" / "instances" / "0003").mkdir()
    (tmp_path / "val" / "instances" / "0003" / "000001.png").write_bytes(b"no picture")
    with pytest.raises(UserError) as caught:
        opened(tmp_path)
    assert "object 2003: image train/images/0002/000000: the class 2 is not among those" in str(caught.value)
    assert "000001.png: " in str(caught.value)
    assert opened(tmp_path, bad="skip")[0].n_instances == 2


def test_parts_with_other_classes_are_refused(tmp_path):
    mots(tmp_path, "car\n")
    (tmp_path / "val" / "instances" / "labels.txt").write_text("van\n")
    with pytest.raises(UserError, match="list different classes"):
        opened(tmp_path)


@pytest.mark.parametrize("values", [{1: DISCS[1001], 2: DISCS[2003]}, {1001: DISCS[1001], 20_003: DISCS[2003]}])
def test_other_label_pictures_are_not_taken(tmp_path, values):
    mots(tmp_path)
    for part in ("train", "val"):
        save(tmp_path / part / "instances" / "0002" / "000000.png", label_picture(values))
    assert not mots_format.recognizes(Source(tmp_path))
