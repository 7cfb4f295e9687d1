"""Supervisely: polygons with holes, bitmaps, tags, parts, hostile bitmaps, and exact round trips."""

import base64
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image

from labelled import by_picture, hard_dataset, opened, written
from maskrcnn import RLE, UserError, open_dataset
from maskrcnn.data.formats import supervisely
from maskrcnn.data.formats.source import Source

HW = (30, 40)
SQUARE = {"exterior": [[2, 3], [20, 3], [20, 25], [2, 25]], "interior": [[[5, 6], [9, 6], [9, 12], [5, 12]]]}
POLYGON = {"classTitle": "cat", "geometryType": "polygon", "points": SQUARE, "tags": []}


def png(mask, how="palette"):
    content = io.BytesIO()
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    if how == "palette":
        picture = Image.fromarray(mask.astype(np.uint8))
        picture.putpalette([0, 0, 0, 255, 255, 255])
        picture.save(content, format="PNG", transparency=0)
    elif how == "RGBA":
        alpha = mask.astype(np.uint8) * 255
        Image.fromarray(np.stack([255 - alpha, alpha * 0, alpha * 0, alpha], 2)).save(content, format="PNG")
    else:
        (picture.convert("1") if how == "one bit" else picture).save(content, format="PNG")
    return content.getvalue()


def bitmap(content, origin=(4, 6), pack=zlib.compress):
    data = base64.b64encode(pack(content)).decode()
    return {"classTitle": "dog", "geometryType": "bitmap", "bitmap": {"data": data, "origin": list(origin)}, "tags": []}


def project(
    folder,
    objects,
    dataset="train",
    classes=(("dog", "bitmap"), ("cat", "polygon"), ("box", "rectangle")),
    name="a.png",
):
    for place in ("img", "ann"):
        (folder / dataset / place).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", HW[::-1]).save(folder / dataset / "img" / name)
    document = {"description": "", "tags": [], "size": {"height": 30, "width": 40}, "objects": objects}
    (folder / dataset / "ann" / f"{name}.json").write_text(json.dumps(document))
    meta = {"classes": [{"title": title, "shape": shape, "color": "#FF0000"} for title, shape in classes], "tags": []}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


@pytest.mark.parametrize("parts", [None, ["train", "val", "", "test", "../a b"]])
def test_a_written_data_set_reads_back_the_same(tmp_path, rng, parts):
    attributes = np.array(["pose=left; note=%3B", "", "20 44"] * 11, object)[:32]
    data = hard_dataset(tmp_path / "in", rng, parts=parts, attributes=attributes)
    target = written(data, tmp_path / "out", "supervisely")
    read, said = opened(target)
    assert by_picture(read) == by_picture(data)
    assert read.class_ids == data.class_ids
    part_of = dict(zip([file.read_bytes() for file in data.files], parts or [""] * 5, strict=True))
    assert (read.parts or [""] * 5) == [part_of[file.read_bytes()] for file in read.files]
    assert sorted(read.attributes) == sorted(attributes)
    assert "Supervisely" in said


def test_a_written_bitmap_is_one_that_supervisely_reads(tmp_path, rng):
    """Its SDK takes the alpha of a decoded bitmap, and origin is x, y."""
    data = hard_dataset(tmp_path / "in", rng)
    target = written(data, tmp_path / "out", "supervisely")
    entry = json.loads((target / "ds0" / "ann" / "a.png.json").read_text())["objects"][0]
    alpha = np.asarray(
        Image.open(io.BytesIO(zlib.decompress(base64.b64decode(entry["bitmap"]["data"])))).convert("RGBA")
    )[..., 3]
    x, y = entry["bitmap"]["origin"]
    mask = data.rles(0)[0].to_mask()
    np.testing.assert_array_equal(mask[y : y + alpha.shape[0], x : x + alpha.shape[1]], alpha > 0)
    assert alpha.astype(bool).sum() == mask.sum()


@pytest.mark.parametrize("how", ["palette", "RGBA", "gray", "one bit"])
def test_bitmaps_of_every_kind(tmp_path, rng, how):
    mask = rng.random((9, 13)) < 0.5
    data, _ = opened(project(tmp_path, [bitmap(png(mask, how))]))
    whole = np.zeros(HW, bool)
    whole[6:15, 4:17] = mask
    assert data.rles(0) == [RLE.from_mask(whole)]


def test_polygons_have_holes_and_tags_are_attributes(tmp_path):
    tags = [{"name": "pose", "value": "left"}, {"name": "seen"}, {"name": "n", "value": 3}, "old"]
    others = [
        {"classTitle": "box", "geometryType": shape}
        for shape in ("rectangle", "rectangle", "graph", "point", "line", "sphere")
    ]
    data, said = opened(project(tmp_path, [POLYGON | {"tags": tags}, *others]))
    mask = np.zeros(HW, bool)
    mask[3:25, 2:20], mask[6:12, 5:9] = True, False
    assert data.rles(0) == [RLE.from_mask(mask)]
    assert data.attributes.tolist() == ["pose=left; seen=; n=3; old="]
    assert data.class_names == ["dog", "cat"]
    assert data.parts == ["train"]
    for text in ("boxes (2)", "key points (1)", "points (1)", "lines (1)", "shapes 'sphere' (1)"):
        assert text in said
    assert data.place(0) == f"{tmp_path / 'train' / 'ann' / 'a.png.json'}, object 1"


def test_old_projects_name_no_geometry(tmp_path):
    old = {"classTitle": "cat", "points": SQUARE, "bitmap": None}
    older = {key: value for key, value in bitmap(png(np.ones((2, 3)))).items() if key != "geometryType"}
    data, _ = opened(project(tmp_path, [old, older]))
    assert [mask.area for mask in data.rles(0)] == [22 * 18 - 24, 6]


def test_one_data_set_of_a_project(tmp_path):
    project(tmp_path, [POLYGON])
    project(tmp_path, [POLYGON, POLYGON], dataset="night", name="b.jpg")
    data, _ = opened(tmp_path)
    assert dict(zip(data.names, data.parts, strict=True)) == {"a.png": "train", "b.jpg": "night"}
    data, _ = opened(tmp_path / "night")
    assert data.n_instances == 2
    assert data.parts is None
    (tmp_path / "meta.json").unlink()
    assert opened(tmp_path / "night")[0].class_names == ["cat"]


def test_boxes_alone_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no masks: all it has is boxes \(1\)"):
        opened(project(tmp_path, [{"classTitle": "box", "geometryType": "rectangle"}]))


def bomb(n):
    return zlib.compress(bytes(n))


MASK = np.ones((3, 3))
BAD_OBJECTS = {
    "not base64": ({"bitmap": {"data": "§", "origin": [0, 0]}}, "are not base64 of zlib"),
    "not zlib": ({"bitmap": {"data": "AAAA", "origin": [0, 0]}}, "are not base64 of zlib"),
    "a bomb": ({"bitmap": {"data": base64.b64encode(bomb(10**7)).decode(), "origin": [0, 0]}}, "unpacks to more than"),
    "not PNG": ({"bitmap": bitmap(b"GIF89a" + bytes(50))["bitmap"]}, "the bitmap is no PNG file"),
    "cut": ({"bitmap": bitmap(png(MASK)[:40])["bitmap"]}, "the bitmap is no PNG file"),
    "larger than the picture": ({"bitmap": bitmap(png(np.ones((31, 3))))["bitmap"]}, "it is 31 x 3, larger than"),
    "half an origin": ({"bitmap": bitmap(png(MASK), (1,))["bitmap"]}, "origin of the bitmap"),
    "an origin between pixels": ({"bitmap": bitmap(png(MASK), (1, 2.5))["bitmap"]}, "origin of the bitmap"),
    "no bitmap": ({}, "the object has no bitmap"),
    "text for a bitmap": ({"bitmap": "AAAA"}, "object | null`, got `str`"),
    "two points": ({"geometryType": "polygon", "points": {"exterior": [[1, 2], [3, 4]]}}, "2 points"),
    "a point of three": ({"geometryType": "polygon", "points": {"exterior": [[1, 2, 3]] * 3}}, "is not x and y"),
    "no points": ({"geometryType": "polygon"}, "the polygon has no points"),
    "a class that meta.json lacks": (POLYGON | {"classTitle": "cow"}, "the class 'cow' is not among"),
}


@pytest.mark.parametrize("entry", BAD_OBJECTS)
def test_a_bad_object_is_named(tmp_path, entry):
    fields, message = BAD_OBJECTS[entry]
    folder = project(tmp_path, [POLYGON, {"classTitle": "dog", "geometryType": "bitmap"} | fields])
    with pytest.raises(UserError) as caught:
        opened(folder)
    assert message in str(caught.value)
    assert "a.png.json, object 2" in str(caught.value)
    assert opened(folder, bad="skip")[0].n_instances == 1


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"objects": 5}', b"\xff\xfe", b"{}"])
def test_a_bad_file_is_named(tmp_path, content):
    folder = project(tmp_path, [POLYGON])
    project(folder, [POLYGON], name="b.png")
    (folder / "train" / "ann" / "b.png.json").write_bytes(content)
    with pytest.raises(UserError, match=r"b\.png\.json"):
        opened(folder, format="supervisely")
    assert opened(folder, bad="skip", format="supervisely")[0].n_instances == 1


def test_a_missing_picture_is_named(tmp_path):
    folder = project(tmp_path, [POLYGON])
    project(folder, [POLYGON], name="b.png")
    (folder / "train" / "img" / "b.png").unlink()
    with pytest.raises(UserError, match=r"image 'b\.png' is not in the folder"):
        opened(folder)


def test_no_other_format_is_taken(tmp_path):
    (tmp_path / "meta.json").write_text('{"classes": []}')
    assert not supervisely.recognizes(Source(tmp_path))
    assert not supervisely.recognizes(Source(tmp_path / "meta.json"))


@pytest.mark.parametrize("place", ["train/ann/a.png.json", "train/ann"])
def test_a_part_of_a_project_is_refused_with_what_to_give(tmp_path, place):
    project(tmp_path, [POLYGON])
    with pytest.raises(UserError, match=r"is no project of Supervisely: give the folder with meta\.json"):
        open_dataset(tmp_path / place, format="supervisely", say=lambda _: None)
