"""Folders of mask files, one file an object: the layouts, the Data Science Bowl's and those made from it."""

import numpy as np
import pytest
from PIL import Image

from maskrcnn import RLE, UserError, open_dataset
from maskrcnn.data.convert import convert
from maskrcnn.data.formats import recognized
from maskrcnn.data.formats.source import Source
from maskrcnn.files import write_image
from samples import disc

HW = (30, 44)


def blobs(rng, n):
    return [disc(HW, rng.uniform(6, 24), rng.uniform(6, 38), rng.uniform(2, 5)) for _ in range(n)]


def write_picture(path, rng):
    write_image(Image.fromarray(rng.integers(0, 255, (*HW, 3), dtype=np.uint8)), path)


def write_mask(path, mask):
    write_image(Image.fromarray(mask.astype(np.uint8) * 255), path)


def opened(folder, **options):
    lines = []
    return open_dataset(folder, say=lines.append, **options), "\n".join(lines)


LAYOUTS = {
    "Data Science Bowl": ("{0}/images/{0}.png", "{0}/masks/{1}.png"),
    "Data Science Bowl, below a part": ("stage1_train/{0}/images/{0}.png", "stage1_train/{0}/masks/{1}.png"),
    "one picture in a folder each": ("{0}/image/photo.png", "{0}/mask/{1}.png"),
    "a folder for each picture": ("images/{0}.png", "masks/{0}/{1}.png"),
    "numbers": ("images/{0}.png", "masks/{0}_{1}.png"),
    "words and numbers": ("images/{0}.png", "masks/{0}_mask_{1}.png"),
    "beside": ("{0}.png", "{0}_mask_{1}.png"),
    "beside, no separator": ("{0}.jpg", "{0}_mask{1}.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, rng, layout):
    picture, mask = LAYOUTS[layout]
    expected = {name: blobs(rng, n) for name, n in (("a1b2", 1), ("größe", 4), ("x_7", 3))}
    for name, masks in expected.items():
        write_picture(tmp_path / picture.format(name), rng)
        for k, pixels in enumerate(masks):
            write_mask(tmp_path / mask.format(name, k), pixels)
    data, said = opened(tmp_path)
    assert recognized(Source(tmp_path)) == "mask-folders"
    assert [str(f.relative_to(tmp_path)) for f in data.files] == [picture.format(name) for name in expected]
    for i, masks in enumerate(expected.values()):
        assert data.rles(i) == [RLE.from_mask(pixels) for pixels in masks]
    assert (data.class_names, data.parts, data.problems) == (["object"], None, [])
    assert "folders of mask files" in said
    assert "left out" not in said


def test_folders_name_classes(tmp_path, rng):
    write_picture(tmp_path / "images" / "a.png", rng)
    for k, pixels in enumerate(blobs(rng, 2)):
        write_mask(tmp_path / "masks" / "a" / ("dog", "cat")[k] / f"{k}.png", pixels)
    data, _ = opened(tmp_path)
    assert [data.class_names[label - 1] for label in data.labels] == ["dog", "cat"]


def test_a_second_mask_with_a_number_makes_files_of_one_object(tmp_path, rng):
    masks = blobs(rng, 4)
    for name, files in {"a": ["a_mask"], "b (1)": ["b (1)_mask", "b (1)_mask_1"], "c": ["c_mask"]}.items():
        write_picture(tmp_path / f"{name}.png", rng)
        for file in files:
            write_mask(tmp_path / f"{file}.png", masks.pop())
    data, _ = opened(tmp_path)
    assert data.counts.tolist() == [1, 2, 1]
    assert recognized(Source(tmp_path)) == "mask-folders"


def test_label_pictures_stay_such_beside_a_file_that_seems_numbered(tmp_path, rng):
    first, second = blobs(rng, 2)
    for name in "ab":
        write_picture(tmp_path / "images" / f"{name}.png", rng)
        labels = first + 2 * (second & ~first)
        write_image(Image.fromarray(labels.astype(np.uint8)), tmp_path / "masks" / f"{name}.png")
    write_mask(tmp_path / "masks" / "a_1.png", first)
    assert recognized(Source(tmp_path)) == "label-images"


def test_an_image_with_an_empty_folder_has_no_objects_and_one_without_is_unlisted(tmp_path, rng):
    for name in "abc":
        write_picture(tmp_path / name / "images" / f"{name}.png", rng)
    write_mask(tmp_path / "a" / "masks" / "0.png", blobs(rng, 1)[0])
    (tmp_path / "b" / "masks").mkdir()
    data, said = opened(tmp_path)
    assert (data.names, data.counts.tolist()) == (["a.png", "b.png"], [1, 0])
    assert "do not list (1) are left out" in said


def test_damaged_files_and_other_sizes_are_named(tmp_path, rng):
    write_picture(tmp_path / "images" / "a.png", rng)
    for k in range(3):
        write_mask(tmp_path / "masks" / "a" / f"{k}.png", blobs(rng, 1)[0])
    write_mask(tmp_path / "masks" / "a" / "3.png", np.ones((9, 9), bool))
    (tmp_path / "masks" / "a" / "4.png").write_bytes(b"\x89PNG cut")
    with pytest.raises(UserError) as error:
        opened(tmp_path)
    assert "mask file 4: image a.png: 3.png: the mask is 9 x 9 (height x width), its picture 30 x 44" in str(
        error.value
    )
    assert "4.png: " in str(error.value)
    assert opened(tmp_path, bad="skip")[0].n_instances == 3


def test_one_class_without_a_name_is_written_as_the_data_science_bowl_has_it(tmp_path, rng):
    for name, n in (("0a", 2), ("1b", 0)):
        write_picture(tmp_path / "in" / name / "images" / f"{name}.png", rng)
        (tmp_path / "in" / name / "masks").mkdir()
        for k, pixels in enumerate(blobs(rng, n), 1):
            write_mask(tmp_path / "in" / name / "masks" / f"{k:04d}.png", pixels)
    convert(opened(tmp_path / "in")[0], tmp_path / "out", "mask-folders")
    tree = {str(path.relative_to(tmp_path / "in")) for path in (tmp_path / "in").rglob("*")}
    assert {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")} == tree
    for file in (tmp_path / "in").rglob("*.png"):
        with Image.open(file) as first, Image.open(tmp_path / "out" / file.relative_to(tmp_path / "in")) as again:
            assert np.array_equal(np.asarray(again), np.asarray(first))
            assert again.mode == first.mode


@pytest.mark.shared
def test_the_data_science_bowls_own_folders(shared):
    folder = shared / "cases" / "nested-ids" / "stage1_train"
    data, _ = opened(folder)
    table = open_dataset(folder.with_name("stage1_train_labels.csv"), images=folder, say=lambda _: None)
    assert len(data) == len(table)
    for i, file in enumerate(data.files):
        k = table.files.index(file)
        assert set(data.rles(i)) == set(table.rles(k))
