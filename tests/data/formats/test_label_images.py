"""Label pictures in every layout, kind of file and mistake that programs make."""

import json

import numpy as np
import pytest
from PIL import Image

from maskrcnn import RLE, UserError, open_dataset
from maskrcnn.data.formats import recognized, write_dataset
from maskrcnn.data.formats.source import Source
from maskrcnn.data.problem import Kind
from maskrcnn.files import write_image
from samples import disc, write_sample

HW = (40, 52)


def labels_of(rng, values, hw=HW):
    """A label picture (H, W) with a disc for each value, side by side."""
    labels = np.zeros(hw, np.int64)
    for k, value in enumerate(values):
        labels[disc(hw, 8 + 12 * (k // 4), 7 + 12 * (k % 4), rng.uniform(2, 5))] = value
    return labels


def write_picture(path, rng, hw=HW):
    write_image(Image.fromarray(rng.integers(0, 255, (*hw, 3), dtype=np.uint8)), path)


def opened(folder, **options):
    lines = []
    return open_dataset(folder, say=lines.append, **options), "\n".join(lines)


def as_labels(data, i):
    """The label picture of image i by the rows of its instances."""
    labels = np.zeros(data.hw(i), np.int64)
    for row, mask in zip(data.rows[data.instances(i)], data.rles(i), strict=True):
        labels[mask.to_mask()] = row
    return labels


LAYOUTS = {
    "two folders": ("images/{}.png", "masks/{}.png"),
    "StarDist": ("images/{}.tif", "labels/{}.tif"),
    "other suffixes": ("images/{}.jpg", "labels/{}.tif"),
    "Cellpose, beside": ("{}.png", "{}_cp_masks.png"),
    "Cellpose's own data": ("{}_img.png", "{}_masks.png"),
    "endings in a folder": ("images/{}.png", "masks/{}_mask.png"),
    "words before the folder": ("train/{}.jpg", "train_masks/{}_mask.png"),
    "capitals": ("Images/{}.PNG", "Masks/{}.png"),
    "subfolders": ("images/2020/{}.png", "labels/2020/{}.png"),
    "pictures above": ("{}.png", "labels/{}.png"),
    "suffix kept": ("images/{}.jpg", "masks/{}.jpg.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, rng, layout):
    picture, mask = LAYOUTS[layout]
    expected = {}
    for name in ("a", "b_1", "größe 3"):
        write_picture(tmp_path / picture.format(name), rng)
        expected[name] = labels_of(rng, [1, 2, 5, 200])
        write_image(Image.fromarray(expected[name].astype(np.uint8)), tmp_path / mask.format(name))
    data, said = opened(tmp_path)
    assert recognized(Source(tmp_path)) == "label-images"
    assert [str(f.relative_to(tmp_path)) for f in data.files] == [picture.format(name) for name in expected]
    for i, labels in enumerate(expected.values()):
        assert np.array_equal(as_labels(data, i), labels)
    assert (data.class_ids, data.class_names, data.parts, data.problems) == ([1], ["object"], None, [])
    assert "label pictures" in said
    assert "left out" not in said, "masks are no pictures without annotations"
    assert data.place(3) == f"{tmp_path / mask.format('a')}, label 200"


def palette(labels):
    image = Image.fromarray(labels.astype(np.uint8), mode="L").convert("P")
    image.putdata(labels.astype(np.uint8).ravel().tolist())
    return image


def colours(labels):
    table = np.array([[0, 0, 0], [220, 20, 60], [0, 255, 1], [1, 0, 0], [0, 0, 1], [255, 255, 255]], np.uint8)
    return Image.fromarray(table[labels])


KINDS = {
    "8 bits": (".png", lambda labels: Image.fromarray(labels.astype(np.uint8))),
    "16 bits": (".png", lambda labels: Image.fromarray((labels * 1000).astype(np.uint16))),
    "16-bit TIFF": (".tif", lambda labels: Image.fromarray((labels * 1000).astype(np.uint16))),
    "32-bit TIFF": (".tif", lambda labels: Image.fromarray((labels * 100_000).astype(np.int32))),
    "floats that are integers": (".tif", lambda labels: Image.fromarray(labels.astype(np.float32))),
    "palette": (".png", palette),
    "colours": (".png", colours),
    "colours with alpha": (".png", lambda labels: colours(labels).convert("RGBA")),
    "gray as colours": (".png", lambda labels: Image.fromarray(labels.astype(np.uint8)).convert("RGB")),
    "GIF": (".gif", lambda labels: Image.fromarray(labels.astype(np.uint8))),
    "BMP": (".bmp", lambda labels: Image.fromarray(labels.astype(np.uint8))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_files(tmp_path, rng, kind):
    suffix, saved = KINDS[kind]
    labels = labels_of(rng, [1, 2, 3, 4, 5])
    write_picture(tmp_path / "images" / "a.png", rng)
    write_image(saved(labels), tmp_path / "masks" / f"a{suffix}")
    data, _ = opened(tmp_path)
    masks = {mask for mask in data.rles(0)}
    assert masks == {RLE.from_mask(labels == value) for value in range(1, 6)}


def test_a_binary_jpeg_is_one_object_and_others_are_an_error(tmp_path, rng):
    write_picture(tmp_path / "images" / "a.png", rng)
    mask = disc(HW, 20, 24, 11)
    file = tmp_path / "masks" / "a.jpg"
    file.parent.mkdir()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, quality=95)
    data, _ = opened(tmp_path)
    assert data.rles(0) == [RLE.from_mask(mask)]
    Image.fromarray((labels_of(rng, [90, 140, 255, 140, 100]) + mask * 20).clip(0, 255).astype(np.uint8)).save(file)
    with pytest.raises(UserError, match=r"a\.jpg: \.jpg blurs values"):
        opened(tmp_path, format="label-images")


def test_folders_name_classes_and_a_class_file_their_ids(tmp_path, rng):
    expected = {"cell": labels_of(rng, [1, 2]), "größe (m²)": labels_of(rng, [4])}
    write_picture(tmp_path / "images" / "a.png", rng)
    for name, labels in expected.items():
        write_image(Image.fromarray(labels.astype(np.uint8)), tmp_path / "masks" / name / "a.png")
    data, _ = opened(tmp_path)
    assert (data.class_ids, data.labels.tolist()) == (["cell", "größe (m²)"], [1, 1, 2])
    (tmp_path / "classes.json").write_text(json.dumps({"7": "größe (m²)", "3": "cell", "9": "none"}))
    data, _ = opened(tmp_path)
    assert (data.class_ids, data.class_names) == ([7, 3, 9], ["größe (m²)", "cell", "none"])
    assert data.labels.tolist() == [2, 2, 1]
    (tmp_path / "classes.json").write_text('["cell"]')
    with pytest.raises(UserError, match=r"classes\.json must be JSON like"):
        opened(tmp_path)


@pytest.mark.parametrize("layout", ["{}/images/{}.png {}/masks/{}.png", "images/{}/{}.png masks/{}/{}.png"])
def test_folders_divide_the_data(tmp_path, rng, layout):
    picture, mask = layout.split()
    for part in ("train", "validation"):
        write_picture(tmp_path / picture.format(part, "a"), rng)
        write_image(Image.fromarray(labels_of(rng, [1]).astype(np.uint8)), tmp_path / mask.format(part, "a"))
    data, _ = opened(tmp_path)
    assert data.parts == ["train", "val"]
    assert data.names == ["train/a.png", "validation/a.png"]


def test_pictures_without_a_label_picture_are_unlisted(tmp_path, rng):
    for name in "abc":
        write_picture(tmp_path / "images" / f"{name}.png", rng)
    write_image(Image.fromarray(labels_of(rng, [1]).astype(np.uint8)), tmp_path / "masks" / "a.png")
    write_image(Image.fromarray(labels_of(rng, []).astype(np.uint8)), tmp_path / "masks" / "b.png")
    data, said = opened(tmp_path)
    assert data.names == ["a.png", "b.png"]
    assert data.counts.tolist() == [1, 0]
    assert "images that the annotations do not list (1) are left out" in said
    assert opened(tmp_path, unlisted="empty")[0].counts.tolist() == [1, 0, 0]


def test_a_label_picture_without_its_picture_or_of_another_size_is_named(tmp_path, rng):
    for name, hw in (("a", HW), ("b", (40, 50)), ("d", HW)):
        write_picture(tmp_path / "images" / f"{name}.png", rng, hw)
    for name in "abcd":
        write_image(Image.fromarray(labels_of(rng, [1]).astype(np.uint8)), tmp_path / "masks" / f"{name}.png")
    (tmp_path / "masks" / "a.png").write_bytes(b"\x89PNG cut")
    with pytest.raises(UserError) as error:
        opened(tmp_path)
    message = str(error.value)
    assert "masks/a.png: " in message
    assert "height, width are 40, 52, but the image" in message
    assert "image 'c' is not in the folder" in message


def test_pictures_may_lie_elsewhere(tmp_path, rng):
    write_picture(tmp_path / "photos" / "a.png", rng)
    write_image(Image.fromarray(labels_of(rng, [1, 2]).astype(np.uint8)), tmp_path / "d" / "labels" / "a.png")
    data, _ = opened(tmp_path / "d", format="label-images", images=tmp_path / "photos")
    assert data.n_instances == 2


def test_values_that_seem_to_be_classes_are_warned_of(tmp_path, rng):
    write_picture(tmp_path / "images" / "a.png", rng)
    labels = np.minimum(labels_of(rng, range(1, 9)), 1)
    write_image(Image.fromarray(labels.astype(np.uint8) * 255), tmp_path / "masks" / "a.png")
    data, said = opened(tmp_path)
    assert [p.kind for p in data.problems] == [Kind.CLASSES_AS_OBJECTS]
    assert "1 label in 8 pieces" in said


def test_photographs_are_no_label_pictures(tmp_path, rng):
    for name in ("a.png", "a_mask.png"):
        write_picture(tmp_path / name, rng)
    with pytest.raises(UserError, match="pictures without annotations"):
        opened(tmp_path)


def test_many_objects_get_32_bits_and_overlaps_go_to_the_smaller(tmp_path):
    data = write_sample(tmp_path / "sample")
    write_dataset(data, tmp_path / "out", "label-images")
    with Image.open(tmp_path / "out" / "train" / "labels" / "cell" / "first.png") as image:
        picture = np.asarray(image)
    assert picture.dtype == np.uint16
    cells = [k for k in range(7) if data.labels[k] == 1 and not data.crowd[k]]
    smallest = min(cells, key=lambda k: data.masks.areas[k])
    numbers = picture[RLE(data.masks[smallest], data.hw(0)).to_mask()]
    assert set(numbers.tolist()) == {cells.index(smallest) + 1}
