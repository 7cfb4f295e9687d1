"""Every supported layout, and every mistake that the reader must report."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn import RLE, UserError
from maskrcnn.data.formats import encoded_pixels, mask_texts, open_dataset
from maskrcnn.data.problem import Kind

HW = (8, 10)


def write_data(folder: Path, text: str, images=("a.png", "b.png"), hw=HW) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    for name in images:
        Image.fromarray(np.zeros((*hw, 3), np.uint8)).save(folder / "images" / name)
    csv = folder / "train.csv"
    csv.write_text(text)
    return csv


def open_with(folder: Path, text: str, **options):
    notes: list[str] = []
    images = options.pop("images_on_disk", ("a.png", "b.png"))
    data = open_dataset(write_data(folder, text, images), say=notes.append, **options)
    return data, "\n".join(notes)


def summary(data):
    """image name -> [(class id, EncodedPixels)]"""
    return {
        name: [
            (data.class_ids[data.labels[k] - 1], rle.to_encoded_pixels())
            for k, rle in zip(range(*data.instances(i).indices(data.n_instances)), data.rles(i), strict=True)
        ]
        for i, name in enumerate(data.names)
    }


LAYOUTS = {
    "plain": ("ImageId,EncodedPixels\na.png,1 3\nb.png,5 2\na.png,20 4\n", {}),
    "stems": ("ImageId,EncodedPixels\na,1 3\nb,5 2\na,20 4\n", {}),
    "sizes": ("ImageId,EncodedPixels,Height,Width\na,1 3,8,10\nb,5 2,8,10\na,20 4,8,10\n", {}),
    "other names": ("filename,rle\na.png,1 3\nb.png,5 2\na.png,20 4\n", {}),
    "image and mask": ("img,rle_mask\na.png,1 3\nb.png,5 2\na.png,20 4\n", {}),
    "label as runs": ("image,label\na.png,1 3\nb.png,5 2\na.png,20 4\n", {}),
    "header with a blank": ("ImageId, EncodedPixels\na.png,1 3\nb.png,5 2\na.png,20 4\n", {}),
    "given columns": (
        "key,where\na.png,1 3\nb.png,5 2\na.png,20 4\n",
        {"columns": {"image": "key", "rle": "where"}},
    ),
    "from zero": ("ImageId,EncodedPixels\na.png,0 3\nb.png,4 2\na.png,19 4\n", {"origin": 0}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_without_classes(tmp_path, layout):
    text, options = LAYOUTS[layout]
    data, notes = open_with(tmp_path, text, **options)
    first, second = list(summary(data).values())
    assert first == [(1, "1 3"), (1, "20 4")]
    assert second == [(1, "5 2")]
    assert data.class_names == ["object"]
    assert "2 images (0 without objects), 3 instances" in notes


CLASSED = {
    "ClassId": "ImageId,ClassId,EncodedPixels\na.png,3,1 3\nb.png,12,5 2\na.png,12,20 4\n",
    "CategoryId": "ImageId,EncodedPixels,Height,Width,CategoryId\na,1 3,8,10,3\nb,5 2,8,10,12\na,20 4,8,10,12\n",
    "in the image": "ImageId_ClassId,EncodedPixels\na.png_3,1 3\nb.png_12,5 2\na.png_12,20 4\nb.png_3,\n",
    "label beside rle": "image,label,rle\na.png,3,1 3\nb.png,12,5 2\na.png,12,20 4\n",
}


@pytest.mark.parametrize("layout", CLASSED)
def test_layouts_with_classes(tmp_path, layout):
    data, _ = open_with(tmp_path, CLASSED[layout])
    first, second = list(summary(data).values())
    assert first == [(3, "1 3"), (12, "20 4")]
    assert second == [(12, "5 2")]


def test_class_texts_are_names(tmp_path):
    data, _ = open_with(tmp_path, "Image_Label,EncodedPixels\na.png_Fish,1 3\nb.png_Sugar,5 2\na.png_Sugar,\n")
    assert data.class_names == ["Fish", "Sugar"]
    assert summary(data)["b.png"] == [("Sugar", "5 2")]


def test_attributes_behind_the_class(tmp_path):
    data, _ = open_with(tmp_path, "ImageId,EncodedPixels,ClassId\na.png,1 3,6_20_44\nb.png,5 2,7\na.png,20 4,6\n")
    assert data.class_ids == [6, 7]
    assert data.attributes.tolist() == ["20 44", "", ""]


def test_attributes_in_a_column(tmp_path):
    text = 'ImageId,EncodedPixels,ClassId,AttributesIds\na.png,1 3,6,"20,44"\nb.png,5 2,7,\n'
    data, _ = open_with(tmp_path, text)
    assert data.attributes.tolist() == ["20 44", ""]


def test_classes_as_pandas_writes_them(tmp_path):
    text = "ImageId,EncodedPixels,ClassId\na.png,1 3,3.0\nb.png,,\na.png,20 4,12.0\n"
    data, _ = open_with(tmp_path, text, class_names={3: "cat", 12: "dog"})
    assert data.class_ids == [3, 12]
    assert data.class_names == ["cat", "dog"]


def test_a_mask_without_a_class_is_named(tmp_path):
    with pytest.raises(UserError, match=r"row 3: the mask of b\.png has no class"):
        open_with(tmp_path, "ImageId,EncodedPixels,ClassId\na.png,1 3,3\nb.png,5 2,\n")
    with pytest.raises(UserError, match=r"row 2: the mask of a\.png has no class"):
        open_with(tmp_path, "ImageId_ClassId,EncodedPixels\na.png,1 3\nb.png_3,5 2\n")


def test_accents_match_in_either_form(tmp_path):
    import unicodedata

    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "é.png")
        data, _ = open_with(tmp_path, "ImageId,EncodedPixels\né.png,1 3\n", images_on_disk=(name,))
        assert len(data) == 1
        (tmp_path / "images" / name).unlink()


def test_one_picture_under_two_names_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"row 2: image 'a' is the file a\.png, which 'a\.png' names too .*row 3"):
        open_with(tmp_path, "ImageId,EncodedPixels\na,1 3\na.png,9 3\n")


def test_names_with_their_folder_are_found(tmp_path):
    data, _ = open_with(tmp_path, "ImageId,EncodedPixels\nimages/a.png,1 3\n")
    assert data.files[0].name == "a.png"


def test_class_names_from_a_file(tmp_path):
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"categories": [{"id": 3, "name": "cat"}, {"id": 12, "name": "dog"}]}))
    data, _ = open_with(tmp_path, CLASSED["ClassId"], class_names=names)
    assert data.class_names == ["cat", "dog"]
    with pytest.raises(UserError, match="no class name for the id 12"):
        open_with(tmp_path, CLASSED["ClassId"], class_names={3: "cat"})


@pytest.mark.parametrize("cell", ["", "-1", "NaN", "nan", " -1"])
def test_no_object(tmp_path, cell):
    data, _ = open_with(tmp_path, f"ImageId,EncodedPixels\na.png,1 3\nb.png,{cell}\n")
    assert data.counts.tolist() == [1, 0]


def test_relative_starts_are_read_when_asked_and_hinted_at_when_not(tmp_path):
    text = "ImageId,EncodedPixels\na.png,20 10 5 30\nb.png,1 1\n"
    data, _ = open_with(tmp_path, text, relative=True)
    assert data.runs(0)[0].tolist() == [[20, 10], [35, 30]]
    with pytest.raises(UserError, match="every row is valid with --relative"):
        open_with(tmp_path, text)
    with pytest.raises(UserError, match="every row is valid with --origin 0"):
        open_with(tmp_path, LAYOUTS["from zero"][0])


def test_row_major_runs(tmp_path):
    mask = np.zeros(HW, bool)
    mask[2, 3:7] = True
    text = RLE.from_mask(mask).to_encoded_pixels(order="row")
    data, _ = open_with(tmp_path, f"ImageId,EncodedPixels\na.png,{text}\n", order="row")
    assert np.array_equal(data.rles(0)[0].to_mask(), mask)


def test_unlisted_images_are_reported_and_optional(tmp_path):
    text = "ImageId,EncodedPixels\na.png,1 3\n"
    data, notes = open_with(tmp_path, text)
    assert len(data) == 1
    assert "images that the annotations do not list (1) are left out" in notes
    data, notes = open_with(tmp_path, text, unlisted="empty")
    assert data.counts.tolist() == [1, 0]
    assert "kept as images without objects" in notes


MISTAKES = {
    "bad runs": (
        "ImageId,EncodedPixels\na.png,1 3\nb.png,5 2 6 1\n",
        ["train.csv, row 3", "b.png", "value 3 ('6')"],
    ),
    "past the end": ("ImageId,EncodedPixels\na.png,79 3\n", ["row 2", "80 pixels"]),
    "missing image": (
        "ImageId,EncodedPixels\na.png,1 3\nzebra.png,5 2\n",
        ["row 3", "'zebra.png' is not in the folder"],
    ),
    "size": (
        "ImageId,EncodedPixels,Height,Width\na,1 3,10,8\n",
        ["row 2", "'10', '8'", "8 high and 10 wide"],
    ),
    "size text": ("ImageId,EncodedPixels,Height,Width\na,1 3,tall,10\n", ["row 2", "'tall'"]),
    "no rle column": (
        "ImageId,Colour\na.png,red\n",
        ["no column with the run-length mask", "--column rle=NAME"],
    ),
    "no image column": ("thing,EncodedPixels\na.png,1 3\n", ["no column with the image name"]),
    "no rows": ("ImageId,EncodedPixels\n", ["no rows"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_with_their_row(tmp_path, mistake):
    text, fragments = MISTAKES[mistake]
    with pytest.raises(UserError) as caught:
        open_with(tmp_path, text)
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize("wrong", ["9,10", "10,8", "tall,10", "8,0"])
def test_a_wrong_size_in_one_row_costs_that_row_alone(tmp_path, wrong):
    text = f"ImageId,EncodedPixels,Height,Width\na,1 3,8,10\na,20 4,{wrong}\na,40 4,8,10\nb,5 2,8,10\n"
    data, _ = open_with(tmp_path, text, bad="skip")
    assert summary(data) == {"a": [(1, "1 3"), (1, "40 4")], "b": [(1, "5 2")]}
    (problem,) = data.problems
    assert problem.kind == Kind.BAD_ROW
    assert "row 3" in problem.place
    assert "other rows and the image" in problem.message


def test_masks_that_are_lost_with_an_image_of_another_size_are_counted(tmp_path):
    text = "ImageId,EncodedPixels,Height,Width\na,1 3,9,10\na,20 4,9,11\nb,5 2,8,10\n"
    data, _ = open_with(tmp_path, text, bad="skip")
    assert data.names == ["b"]
    assert "The masks of the image (2) are left out with it" in data.problems[0].message


DIALECTS = {
    "brackets": ("[20, 4, 30.5, 2]", "value 1 ('[20,')", "brackets"),
    "decimal points": ("20.0 4.0 30.5 2.0", "value 1 ('20.0')", "decimal points"),
    "decimal commas": ("20,0 4,0 30,0 2,0", "value 1 ('20,0')", "decimal commas"),
    "commas": ("20,4,30,x", "value 1 ('20,4,30,x')", "Commas separate"),
    "commas and blanks": ("20, 4, 30, x", "value 1 ('20,')", "Commas separate"),
    "words": ("masks/a_mask", "value 1 ('masks/a_mask')", ""),
}


@pytest.mark.parametrize(
    ("dialect", "good_rows"),
    [*((dialect, n) for dialect in DIALECTS for n in (1, 9)), ("decimal commas", 0), ("words", 0)],
)
def test_texts_that_are_no_runs_are_named_with_what_was_expected(tmp_path, dialect, good_rows):
    text, value, hint = DIALECTS[dialect]
    with pytest.raises(UserError) as caught:
        open_with(tmp_path, "ImageId,EncodedPixels\n" + "a.png,1 3\n" * good_rows + f'a.png,"{text}"\n')
    message = str(caught.value)
    assert f"train.csv, row {good_rows + 2}: EncodedPixels of a.png: {value} is not an integer" in message
    assert repr(text) in message
    assert 'expected "start length start length ...", integers separated by spaces' in message
    assert hint in message


def test_a_long_text_that_is_no_run_is_cut_short(tmp_path):
    with pytest.raises(UserError) as caught:
        open_with(tmp_path, "ImageId,mask\na.png," + "1.5 " * 5000 + "\n")
    assert "row 2" in str(caught.value)
    assert len(str(caught.value)) < 800


def test_runs_over_several_lines_are_read(tmp_path):
    data, _ = open_with(tmp_path, 'ImageId,EncodedPixels\na.png,"1 3\n10\r\n2"\n')
    assert data.runs(0)[0].tolist() == [[0, 3], [9, 2]]


def test_bad_rows_can_be_left_out(tmp_path):
    data, notes = open_with(tmp_path, MISTAKES["bad runs"][0], bad="skip")
    assert data.counts.tolist() == [1, 0]
    assert len(data.problems) == 1
    assert "skipped 1 problem" in notes


def test_unreadable_images_are_left_out_and_reported(tmp_path):
    csv = write_data(tmp_path, "ImageId,EncodedPixels\na.png,1 3\nb.png,5 2\n")
    (tmp_path / "images" / "b.png").write_bytes(b"not a picture")
    notes: list[str] = []
    data = open_dataset(csv, say=notes.append)
    assert data.names == ["a.png"]
    assert any("b.png" in line and "unreadable" in line for line in notes)


def test_ambiguous_stems_are_an_error(tmp_path):
    with pytest.raises(UserError, match="matches several files"):
        open_with(tmp_path, "ImageId,EncodedPixels\na,1 3\n", images_on_disk=("a.png", "a.jpg"))


def test_the_writer_reads_back(tmp_path):
    data, _ = open_with(tmp_path, "ImageId,EncodedPixels,ClassId\na.png,3 4 20 2,7\nb.png,,\n")
    encoded_pixels.write(data, tmp_path / "out.csv")
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert rows == ["ImageId,EncodedPixels,Height,Width,ClassId", "a.png,3 4 20 2,8,10,7", "b.png,,8,10,"]


@pytest.mark.shared
def test_the_nuclei_of_the_data_science_bowl(shared):
    folder = shared / "data" / "dsb2018"
    data = open_dataset(folder / "train.csv", say=lambda _: None)
    assert (len(data), data.n_instances) == (664, 28986)
    ids = (folder / "val_ids.txt").read_text().split()
    train, val = data.split_by_names(ids)
    assert (len(train), len(val)) == (584, 80)
    assert not set(train.names) & set(val.names)


@pytest.mark.parametrize("order", ["column", "row"])
def test_chunks_of_texts_give_what_all_texts_give(tmp_path, monkeypatch, order):
    """Malformed texts stand in later chunks than the first, so that their rows depend on where a chunk begins."""
    rows = ["a.png,1 3", "b.png,2 2 8 1", "a.png,7 2", "b.png,5 x", "a.png,20 4", "b.png,9 1 3 1", "a.png,33 2"]
    text = "\n".join(["ImageId,EncodedPixels", *rows]) + "\n"
    whole, _ = open_with(tmp_path, text, bad="skip", order=order)
    monkeypatch.setattr(mask_texts, "CHUNK", 2)
    chunked, _ = open_with(tmp_path, text, bad="skip", order=order)
    assert chunked.problems == whole.problems
    assert [problem.place.rpartition(" ")[2] for problem in whole.problems] == ["5", "7"]
    assert chunked.fingerprint() == whole.fingerprint()
