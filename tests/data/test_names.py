"""Names of images: which file a text means, and which image a name in a list means."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from maskrcnn import UserError, open_dataset
from maskrcnn.data.names import PathIndex

FOUND = {
    "the path, though another folder has the name": (["1.png", "b/1.png"], "1.png", "1.png"),
    "the path, though it is the stem of another": (["1.png", "1.png.tif"], "1.png", "1.png"),
    "the path in a folder, though the root has it too": (["1.png", "b/1.png"], "b/1.png", "b/1.png"),
    "the path without suffix before a stem elsewhere": (["1.png", "b/1.jpg"], "1", "1.png"),
    "a folder and a stem": (["a/1.png", "b/1.png"], "b/1", "b/1.png"),
    "a name with its suffix, beside the same stem": (["a/1.jpg", "a/1.png"], "1.jpg", "a/1.jpg"),
    "a name before a stem": (["a/1.png", "b/1.png.png"], "1.png", "a/1.png"),
    "the longest common ending": (["x/a/1.png", "x/b/1.png"], "a/1.png", "x/a/1.png"),
    "more folders than there are": (["a/1.png", "b/1.png"], "/home/me/data/b/1.png", "b/1.png"),
    "more folders and no suffix": (["a/1.png", "b/1.png"], "data/b/1", "b/1.png"),
    "backslashes": (["a/1.png", "b/1.png"], "C:\\data\\a\\1.png", "a/1.png"),
    "a dot for the folder itself": (["1.png", "b/1.png"], "./1.png", "1.png"),
}
LOOSE = {
    "suffix in capitals": (["1.jpg"], "1.JPG", "1.jpg"),
    "file in capitals": (["IMG_7.PNG"], "img_7.png", "IMG_7.PNG"),
    "folder in capitals": (["Left/1.png", "right/1.png"], "LEFT/1.png", "Left/1.png"),
    "stem in capitals": (["ABC.png"], "abc", "ABC.png"),
    "another suffix": (["1.png", "2.png"], "1.tif", "1.png"),
    "another suffix in a folder": (["a/1.png", "b/1.png"], "data/b/1.tiff", "b/1.png"),
    "another suffix in capitals": (["Img1.PNG"], "IMG1.jpeg", "Img1.PNG"),
    "the same suffix in capitals before another": (["1.PNG", "1.jpg"], "1.png", "1.PNG"),
    "percent signs": (["a b+é.png"], "a%20b%2B%C3%A9.png", "a b+é.png"),
    "percent signs and another suffix": (["a b.png"], "a%20b.tif", "a b.png"),
    "a percent sign that is one": (["a%20b.png", "a b.png"], "a%20B.png", "a%20b.png"),
}
AMBIGUOUS = {
    "two cases": (["IMG.png", "Img.png"], "img.png"),
    "two other suffixes": (["1.png", "1.jpg"], "1.tif"),
    "two folders": (["a/1.png", "b/1.png"], "1.png"),
    "two suffixes": (["1.png", "1.jpg"], "1"),
    "a folder that neither has": (["a/1.png", "b/1.png"], "c/1.png"),
}


def open_with(folder, files, rows, say=lambda _: None):
    for name in files:
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 10), np.uint8)).save(path)
    csv = folder / "train.csv"
    csv.write_text("ImageId,EncodedPixels\n" + "".join(f"{row},1 3\n" for row in rows))
    return open_dataset(csv, say=say)


@pytest.mark.parametrize("case", FOUND)
def test_the_best_match_is_the_file_of_a_row(tmp_path, case):
    files, text, expected = FOUND[case]
    data = open_with(tmp_path, files, [text])
    assert [f.relative_to(tmp_path / "images").as_posix() for f in data.files] == [expected]


@pytest.mark.parametrize("case", LOOSE)
def test_a_near_file_is_found_and_said(tmp_path, case):
    files, text, expected = LOOSE[case]
    said = []
    data = open_with(tmp_path, files, [text], said.append)
    assert [f.relative_to(tmp_path / "images").as_posix() for f in data.files] == [expected]
    [line] = [line for line in said if "in case, suffix or quoting" in line]
    assert f"{text!r} for {expected}" in line


def test_an_exact_name_gets_its_file_before_a_near_one(tmp_path):
    with pytest.raises(
        UserError, match=r"row 2: image 'IMG\.png' is the file img\.png, which 'img\.png' names too .*row 3"
    ):
        open_with(tmp_path, ["img.png"], ["IMG.png", "img.png"])


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_equal_matches_are_an_error_that_names_them(tmp_path, case):
    files, text = AMBIGUOUS[case]
    with pytest.raises(UserError) as caught:
        open_with(tmp_path, files, [text])
    assert "row 2" in str(caught.value)
    assert all(name in str(caught.value) for name in files)


@pytest.mark.parametrize("ambiguous_first", [True, False])
def test_an_ambiguous_row_takes_no_file_from_an_exact_one(tmp_path, ambiguous_first):
    rows = ["1.png", "a/1.png", "b/1.png"]
    with pytest.raises(UserError) as caught:
        open_with(tmp_path, ["a/1.png", "b/1.png"], rows if ambiguous_first else rows[::-1])
    assert "has 1 problem:" in str(caught.value)
    assert "'1.png' matches several files" in str(caught.value)


def test_an_exact_row_gets_its_file_before_a_loose_one(tmp_path):
    with pytest.raises(UserError, match=r"row 2: image '1' is the file 1\.png, which '1\.png' names too .*row 3"):
        open_with(tmp_path, ["1.png"], ["1", "1.png"])


def test_lists_of_names_follow_the_same_order(tmp_path):
    data = open_with(tmp_path, ["a/1.png", "b/1.png", "1.png", "b/2.png"], ["a/1.png", "b/1.png", "1.png", "b/2.png"])
    for text, expected in (
        ("a/1", "a/1.png"),
        ("1", "1.png"),
        ("b/1.png", "b/1.png"),
        ("2", "b/2.png"),
        ("data/b/1", "b/1.png"),
    ):
        assert data.named([text]).names == [expected]
    without_root = data.take([0, 1, 3])
    with pytest.raises(UserError, match=r"matches several images: a/1\.png, b/1\.png"):
        without_root.named(["1"])
    stems = dataclasses.replace(without_root, names=["a/1", "b/1", "b/2"])
    assert stems.named(["b/1.png", "2.png"]).names == ["b/1", "b/2"]


def test_many_equal_names_are_told_apart_by_their_folders():
    """The work does not grow with the square of the files, which all have one name."""
    paths = [f"{k:05d}/image.png" for k in range(20_000)]
    index = PathIndex(paths)
    found = [index.find(f"stage1/train/{path}").indices for path in paths]
    assert found == [[k] for k in range(len(paths))]
