"""Submissions in the columns, ids and order of a sample submission."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from maskrcnn import RLE, Detections, UserError
from maskrcnn.inference.submission import Sample, SampleSubmission
from maskrcnn.structures import UNNAMED_CLASS
from maskrcnn.training.run_folder import _name_style

HW = (8, 40)


def block(x1, x2):
    mask = np.zeros(HW, bool)
    mask[:, x1:x2] = True
    return RLE.from_mask(mask)


def found(masks, classes):
    boxes = np.array([m.box for m in masks], np.float32).reshape(-1, 4)
    names = [f"kind {c}" for c in classes]
    return Detections(
        boxes, np.linspace(0.9, 0.5, len(masks), dtype=np.float32), np.array(classes, int), names, masks, HW
    )


A, B, C = block(0, 5), block(10, 15), block(20, 30)
FOUND = {"q.jpg": found([A, B, C], [2, 1, 2]), "p.jpg": found([], [])}


def submitted(tmp_path, text):
    path = tmp_path / "sample.csv"
    path.write_text(text)
    file = io.StringIO()
    writer = SampleSubmission(file, Sample.read(path).matched([1, 2], ["kind 1", "kind 2"]))
    for image_id, detections in FOUND.items():
        writer.add(image_id, detections)
    writer.finish()
    return list(csv.reader(file.getvalue().splitlines()))


def test_columns_and_order_are_those_of_the_sample(tmp_path):
    rows = submitted(tmp_path, "Note,ClassId,EncodedPixels,ImageId\nfirst,1,1 1,p.jpg\nsecond,1,1 1,q.jpg\n")
    assert rows[0] == ["Note", "ClassId", "EncodedPixels", "ImageId"]
    assert rows[1] == ["first", "", "", "p.jpg"]
    assert rows[2:] == [["second", str(c), m.to_encoded_pixels(), "q.jpg"] for m, c in ((A, 2), (B, 1), (C, 2))]


def test_rows_that_name_image_and_class_get_the_union_of_their_instances(tmp_path):
    rows = submitted(tmp_path, "ImageId_ClassId,EncodedPixels\nq.jpg_2,\np.jpg_1,\nq.jpg_1,\np.jpg_2,\n")
    union = A.union(C).to_encoded_pixels()
    expected = [["q.jpg_2", union], ["p.jpg_1", ""], ["q.jpg_1", B.to_encoded_pixels()], ["p.jpg_2", ""]]
    assert rows[1:] == expected


def test_a_row_for_each_class_of_an_image(tmp_path):
    rows = submitted(tmp_path, "ImageId,ClassId,EncodedPixels\np.jpg,1,\np.jpg,2,\nq.jpg,1,\nq.jpg,2,\n")
    assert [row[:2] for row in rows[1:]] == [["p.jpg", "1"], ["p.jpg", "2"], *([["q.jpg", "1"]] + [["q.jpg", "2"]] * 2)]
    assert [row[2] for row in rows[3:]] == [m.to_encoded_pixels() for m in (B, A, C)]


def test_rows_of_some_classes_only_show_the_format(tmp_path):
    """Images with rows of different classes, as in a sample with placeholders: all instances are written."""
    rows = submitted(tmp_path, "ImageId,EncodedPixels,ClassId\nq.jpg,1 1,1\nq.jpg,1 1,1\np.jpg,1 1,2\n")
    assert rows[1:] == [
        *(["q.jpg", m.to_encoded_pixels(), c] for m, c in ((A, "2"), (B, "1"), (C, "2"))),
        ["p.jpg", "", ""],
    ]


def test_classes_are_written_as_the_sample_writes_them(tmp_path):
    """By name before id, and without the decimals of pandas."""
    named = "ImageId,ClassId,EncodedPixels\n" + "".join(f"{i},kind {c},\n" for i in ("p.jpg", "q.jpg") for c in (1, 2))
    assert [row[1] for row in submitted(tmp_path, named)[1:]] == ["kind 1", "kind 2", "kind 1", "kind 2", "kind 2"]
    numbers = "ImageId,ClassId,EncodedPixels\n" + "".join(f"{i},{c}.0,\n" for i in ("p.jpg", "q.jpg") for c in (1, 2))
    assert len(submitted(tmp_path, numbers)) == 1 + 2 + 3


def test_a_class_without_a_row_is_named(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("Image_Label,EncodedPixels\na_1,\na_2,\nb_1,\n")
    with pytest.raises(UserError, match=r"no row for 'b' and the model's class 2; its classes are 1, 2"):
        Sample.read(path).matched([1, 2], ["1", "2"])
    path.write_text("Image_Label,EncodedPixels\na_nucleus,\nb_nucleus,\n")
    assert Sample.read(path).matched([7], [UNNAMED_CLASS]).text_of_class == {"7": "nucleus"}


def test_a_sample_of_two_columns_or_none(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("id,predicted\na,\n")
    assert Sample.read(path).image_ids == ["a"]
    path.write_text("x,y\n1,2\n")
    with pytest.raises(UserError, match=r"no sample submission .* its columns are x, y"):
        Sample.read(path)


def test_pictures_are_found_by_the_names_of_the_sample(tmp_path):
    (tmp_path / "s.csv").write_text("id,rle\nb,\na,\n")
    sample = Sample.read(tmp_path / "s.csv")
    assert sample.ids_of([Path("t/a/images/a.png"), Path("t/b/images/b.png")]) == ["a", "b"]
    with pytest.raises(UserError, match=r"'a' fits several pictures: x/a\.png, y/a\.png"):
        sample.ids_of([Path("x/a.png"), Path("y/a.png"), Path("b.png")])
    with pytest.raises(UserError, match="'b' is not among the pictures to predict"):
        sample.ids_of([Path("a.png")])
    (tmp_path / "s.csv").write_text("id,rle\na,\nt/a.png,\n")
    with pytest.raises(UserError, match=r"'t/a\.png' and 'a' both name t/a\.png; keep the rows of one"):
        Sample.read(tmp_path / "s.csv").ids_of([Path("t/a.png")])


@pytest.mark.parametrize(("name", "style"), [("a", "stem"), ("a.v2", "stem"), ("x/a", "path"), ("a.PNG", "name")])
def test_a_run_records_how_its_data_names_images(name, style):
    assert _name_style(name) == style
