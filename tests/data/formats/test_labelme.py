"""LabelMe's files as its versions and people write them; embedded pictures; writing and reading again."""

import base64
import io
import json
import math
import shutil

import numpy as np
import pytest
from PIL import Image

from drawn import contents, disc, write_drawn
from maskrcnn import RLE, UserError
from maskrcnn.data.formats import labelme, open_dataset, write_dataset
from maskrcnn.data.formats.source import Source
from maskrcnn.data.images import ORIENTATION, read_header, read_image
from maskrcnn.errors import ImageError

HW = (30, 40)
TRIANGLE = [[2, 3], [20, 5], [8, 25]]


def png(pixels: np.ndarray, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def shape(kind: str | None, points, label="nut", **more) -> dict:
    return {"label": label, "points": points, **({"shape_type": kind} if kind else {}), **more}


def write_labels(path, shapes, image="a.png", hw=HW, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None}
    content |= {"imageHeight": hw[0], "imageWidth": hw[1]} | more
    path.write_text(json.dumps(content), "utf-8")
    return path


def write_picture(path, hw=HW):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*hw, 3), np.uint8)).save(path)
    return path


def opened(source, **options):
    notes: list[str] = []
    data = open_dataset(source, say=notes.append, **options)
    return data, "\n".join(notes)


def masks(tmp_path, *shapes, **options):
    write_picture(tmp_path / "a.png")
    return opened(write_labels(tmp_path / "a.json", list(shapes)), **options)


# ---- shapes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("points", [[[4, 6], [30, 20]], [[30, 20], [4, 6]], [[4, 20], [30, 6]]])
def test_rectangle_has_two_corners_in_any_order(tmp_path, points):
    data, notes = masks(tmp_path, shape("rectangle", points))
    expected = np.zeros(HW, bool)
    expected[6:20, 4:30] = True
    assert np.array_equal(data.rles(0)[0].to_mask(), expected)
    assert "rectangles (1) become masks of their whole area" in notes


def test_circle_has_a_centre_and_a_point_of_the_rim(tmp_path):
    data, _ = masks(tmp_path, shape("circle", [[20, 15], [20 + 6, 15 - 8]]))
    assert np.array_equal(data.rles(0)[0].to_mask(), disc(HW, (20, 15), 10))


@pytest.mark.parametrize("kind", ["polygon", None, "oriented_rectangle", "rotation", "quadrilateral"])
def test_shapes_of_corners_are_polygons(tmp_path, kind):
    corners = [[10, 2.5], [30, 12], [25, 22], [5, 12.25]]
    data, _ = masks(tmp_path, shape(kind, corners))
    assert data.rles(0) == [RLE.from_polygons([np.ravel(corners)], HW)]


def test_mask_is_a_picture_at_its_first_corner(tmp_path, rng):
    pixels = rng.random((7, 9)) > 0.4
    mask = shape("mask", [[31.0, 4.0], [39.0, 10.0]], mask=text(png(pixels.astype(np.uint8))))
    data, _ = masks(tmp_path, mask)
    expected = np.zeros(HW, bool)
    expected[4:11, 31:40] = pixels
    assert np.array_equal(data.rles(0)[0].to_mask(), expected)


def test_mask_beyond_the_picture_is_cut_off(tmp_path):
    mask = shape("mask", [[-3, 25], [6, 34]], mask=text(png(np.ones((10, 10), bool))))
    data, _ = masks(tmp_path, mask)
    assert data.rles(0)[0].box == (0, 25, 7, 30)


def test_shapes_without_area_are_counted(tmp_path):
    line, strip = shape("line", [[1, 1], [9, 9]]), shape("linestrip", [[1, 1], [9, 9], [3, 4]])
    points = [shape("point", [[1, 1]]), shape("points", [[1, 1], [2, 2]]), shape("point", [[5, 5]])]
    data, notes = masks(tmp_path, line, strip, *points, shape("polygon", TRIANGLE), shape("cuboid", TRIANGLE))
    assert data.n_instances == 1
    for kind in ("lines (1)", "line strips (1)", "points (2)", "sets of points (1)", "the unknown type 'cuboid' (1)"):
        assert kind in notes


def test_data_without_any_outline_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no masks: all it has is points \(2\)"):
        masks(tmp_path, shape("point", [[1, 1]]), shape("point", [[5, 5]]))


def test_shapes_of_a_group_and_a_label_are_one_instance(tmp_path):
    far = [[25, 20], [38, 20], [38, 28]]
    data, notes = masks(
        tmp_path,
        shape("polygon", TRIANGLE, "nut", group_id=0),
        shape("polygon", TRIANGLE, "fig", group_id=0),
        shape("rectangle", [[25, 20], [38, 28]], "nut", group_id=0),
        shape("polygon", far, "nut", group_id=None),
        shape("polygon", far, "nut"),
    )
    assert "1 shape is a further part of an object" in notes
    assert data.class_names == ["fig", "nut"]
    assert data.rows.tolist() == [1, 2, 4, 5]
    assert [data.class_names[label - 1] for label in data.labels] == ["nut", "fig", "nut", "nut"]
    both = RLE.from_polygons([np.ravel(TRIANGLE), [25, 20, 38, 20, 38, 28, 25, 28]], HW)
    assert data.rles(0)[0] == both
    assert data.place(0).endswith("a.json, shape 1")


def test_groups_end_with_their_picture(tmp_path):
    for name in ("a", "b"):
        write_picture(tmp_path / f"{name}.png")
        write_labels(tmp_path / f"{name}.json", [shape("polygon", TRIANGLE, group_id=1)], f"{name}.png")
    data, _ = opened(tmp_path)
    assert data.counts.tolist() == [1, 1]


def test_flags_and_descriptions_are_attributes(tmp_path):
    flags = {"occluded": True, "blurred": False}
    data, _ = masks(
        tmp_path,
        shape("polygon", TRIANGLE, flags=flags, description="left half", score=0.25),
        shape("polygon", TRIANGLE),
    )
    assert data.attributes.tolist() == ["occluded=true; description=left half", ""]
    assert data.scores[0] == 0.25
    assert math.isnan(data.scores[1])


def test_labels_that_mean_no_class_are_left_out(tmp_path):
    ignored = [shape("polygon", TRIANGLE, label) for label in ("__ignore__", "_background_", "_background_")]
    data, notes = masks(tmp_path, *ignored, shape("polygon", TRIANGLE, 7))
    assert data.class_names == ["7"]
    assert "shapes with the label _background_ (2) are left out" in notes


BAD_SHAPES = {
    "a polygon of two points": (shape("polygon", [[1, 1], [5, 5]]), "needs at least 3"),
    "a polygon of no points": (shape("polygon", []), "needs at least 3"),
    "a rectangle of one point": (shape("rectangle", [[1, 1]]), "a rectangle has 2 points, not 1"),
    "a circle of three points": (shape("circle", TRIANGLE), "a circle has 2 points, not 3"),
    "a mask without a picture": (shape("mask", [[1, 1], [4, 4]]), "the mask is not a PNG"),
    "a mask of text": (shape("mask", [[1, 1], [4, 4]], mask="aGVsbG8="), "the mask is not a PNG"),
    "a mask of no base64": (shape("mask", [[1, 1], [4, 4]], mask="a"), "the mask is not a PNG"),
    "a mask nowhere": (shape("mask", [[1e300, 1], [4e301, 4]], mask=text(png(np.ones((2, 2), bool)))), "its corners"),
    "an infinite coordinate": (shape("polygon", [[1, 1], [math.inf, 5], [3, 9]]), "shape 2"),
    "a coordinate that is no number": (shape("polygon", [[1, 1], [math.nan, 5], [3, 9]]), "shape 2"),
    "three coordinates": (shape("polygon", [[1, 1, 1], [5, 5, 1], [3, 9, 1]]), "shape 2"),
    "points that are no list": (shape("polygon", "1 2 3"), "shape 2"),
    "no label": ({"points": TRIANGLE}, "label"),
    "a number": (5, "shape 2"),
}


@pytest.mark.parametrize("case", BAD_SHAPES)
def test_malformed_shape_is_named_and_costs_itself_alone(tmp_path, case):
    bad, fault = BAD_SHAPES[case]
    with pytest.raises(UserError) as error:
        masks(tmp_path, shape("polygon", TRIANGLE), bad)
    assert "a.json, shape 2" in str(error.value)
    assert fault in str(error.value)
    data, _ = opened(tmp_path / "a.json", bad="skip")
    assert data.n_instances == 1


# ---- pictures -----------------------------------------------------------------------------------------------------

IMAGE_PATHS = {
    "plain": "p/a.png",
    "backslashes": "p\\a.png",
    "up and down": "..\\labels\\p\\a.png",
    "absolute, of Windows": "C:\\Users\\me\\a.png",
    "absolute, of Linux": "/home/me/a.png",
    "wrong suffix": "p/a.jpeg",
    "absent": None,
    "empty": "",
    "of another picture": "before renaming.png",
}


@pytest.mark.parametrize("case", IMAGE_PATHS)
def test_picture_is_found(tmp_path, case):
    folder = tmp_path / "labels"
    write_picture(folder / "p/a.png")
    write_labels(folder / "a.json", [shape("polygon", TRIANGLE)], IMAGE_PATHS[case])
    data, _ = opened(folder)
    assert data.files == [folder / "p/a.png"]
    data, _ = opened(folder / "a.json")
    assert data.files == [folder / "p/a.png"]


def test_files_of_one_name_in_several_folders_have_their_pictures(tmp_path):
    for k, part in enumerate(("x", "y")):
        write_picture(tmp_path / part / "a.png", (30, 40 + k))
        write_labels(tmp_path / part / "a.json", [shape("polygon", TRIANGLE)], "/abs/a.png", (30, 40 + k))
    data, _ = opened(tmp_path)
    assert data.files == [tmp_path / "x/a.png", tmp_path / "y/a.png"]


def test_pictures_may_lie_in_a_folder_beside_that_of_the_annotations(tmp_path):
    write_picture(tmp_path / "images/a.png")
    write_labels(tmp_path / "json/a.json", [shape("polygon", TRIANGLE)], "..\\images\\a.png")
    data, _ = opened(tmp_path / "json")
    assert data.files == [tmp_path / "images/a.png"]


def test_pictures_without_annotations_are_unlisted(tmp_path):
    write_picture(tmp_path / "b.png")
    data, notes = masks(tmp_path, shape("polygon", TRIANGLE), unlisted="empty")
    assert data.counts.tolist() == [1, 0]
    assert "do not list (1) are kept as images without objects" in notes


def test_embedded_picture_is_read_where_there_is_no_file(tmp_path, rng):
    pixels = rng.integers(0, 255, (*HW, 3), np.uint8)
    path = write_labels(tmp_path / "a.json", [shape("polygon", TRIANGLE)], imageData=text(png(pixels)))
    data, notes = opened(path)
    assert data.files == [path]
    assert np.array_equal(read_image(data.files[0]), pixels)
    assert "1 picture is read from the annotation files" in notes
    write_picture(tmp_path / "a.png")
    assert opened(path)[0].files == [tmp_path / "a.png"]


def test_embedded_picture_without_a_name_is_named_after_its_file(tmp_path):
    content = png(np.zeros((*HW, 3), np.uint8), "JPEG")
    path = write_labels(tmp_path / "a.json", [], None, imageData=text(content))
    assert opened(tmp_path)[0].names == ["a.jpg"]
    assert opened(path)[0].names == ["a.jpg"]


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_embedded_picture_is_not_turned_again(tmp_path, rng, format):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    pixels = rng.integers(0, 255, (*HW, 3), np.uint8)
    content = png(pixels, format, exif=exif)
    path = write_labels(tmp_path / "a.json", [shape("polygon", TRIANGLE)], imageData=text(content))
    assert read_header(path).upright_hw == HW
    assert not read_header(path).is_turned
    assert np.array_equal(read_image(path), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    assert opened(path)[0].hw(0) == HW


def with_orientation(pixels, kind):
    """A picture file whose EXIF orientation is 6, written in several ways."""
    exif = Image.Exif()
    if kind == "XMP":
        xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
        return png(pixels, "JPEG", xmp=xmp)
    exif[ORIENTATION] = 6
    exif[0x010F] = "maker"
    if kind == "big-endian JPEG":
        exif.endian = ">"
    return png(pixels, kind.rpartition(" ")[2], exif=exif)


@pytest.mark.parametrize("target", ["labelme", "coco"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "big-endian JPEG", "XMP", "WEBP"])
def test_copy_of_an_embedded_picture_fits_its_masks(tmp_path, rng, kind, target):
    pixels = rng.integers(0, 255, (*HW, 3), np.uint8)
    content = with_orientation(pixels, kind)
    (tmp_path / "plain.png").write_bytes(content)
    assert read_header(tmp_path / "plain.png").is_turned
    path = write_labels(tmp_path / "in" / "a.json", [shape("polygon", TRIANGLE)], imageData=text(content))
    data, _ = opened(path)
    out = data.save(tmp_path / "out" / {"labelme": "data", "coco": "data.json"}[target], target, pictures="copy").target
    again, _ = opened(out)
    assert again.files[0].suffix != ".json"
    assert again.hw(0) == HW
    assert np.array_equal(read_image(again.files[0]), read_image(path))
    assert np.array_equal(again.masks[0], data.masks[0])
    if "JPEG" in kind:
        copied = again.files[0].read_bytes()
        assert sum(a != b for a, b in zip(content, copied, strict=True)) == 1, "the picture was coded again"


@pytest.mark.parametrize("spelling", ["data:image/png;base64,{}", "{}\n"])
def test_embedded_picture_may_be_spelt_in_other_ways(tmp_path, spelling):
    content = spelling.format(text(png(np.full((*HW, 3), 9, np.uint8))))
    path = write_labels(tmp_path / "a.json", [], imageData=content)
    assert (read_image(path) == 9).all()


BROKEN = {
    "no base64": ('{"imageData": "%%%A"}', "base64"),
    "no picture": ('{"imageData": "aGVsbG8="}', "not a picture"),
    "a cut picture": (json.dumps({"imageData": text(png(np.zeros((30, 40, 3), np.uint8))[:-60])}), "truncated"),
    "null": ('{"imageData": null}', "has no picture"),
    "no object": ("[1]", "has no picture"),
    "no JSON": ('{"imageData": ', "not a JSON file"),
    "no UTF-8": ('{"imageData": "\udcff"}', "not a JSON file"),
    "deep": ("[" * 100_000, "not a JSON file"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_embedded_picture_is_an_image_error(tmp_path, case):
    path = tmp_path / "a.json"
    content, fault = BROKEN[case]
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ImageError, match=r"a\.json") as error:
        read_image(path)
    assert fault in str(error.value)
    if case != "a cut picture":
        with pytest.raises(ImageError, match=r"a\.json"):
            read_header(path)
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "b.json")


def test_image_with_a_broken_embedded_picture_is_skipped_and_named(tmp_path):
    write_picture(tmp_path / "a.png")
    write_labels(tmp_path / "a.json", [shape("polygon", TRIANGLE)])
    write_labels(tmp_path / "b.json", [shape("polygon", TRIANGLE)], "b.png", imageData="aGVsbG8=")
    data, notes = opened(tmp_path)
    assert data.names == ["a.png"]
    assert "skipped 1 unreadable image" in notes
    assert "b.json" in notes


# ---- files --------------------------------------------------------------------------------------------------------


def test_files_of_version_3_are_read(tmp_path):
    write_picture(tmp_path / "a.png")
    old = {
        "shapes": [{"label": "nut", "line_color": None, "fill_color": None, "points": TRIANGLE}],
        "lineColor": [0, 255, 0, 128],
        "fillColor": [255, 0, 0, 128],
        "imagePath": "a.png",
        "imageData": None,
    }
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(old, indent=2).replace("\n", "\r\n").encode())
    data, _ = opened(tmp_path)
    assert data.rles(0) == [RLE.from_polygons([np.ravel(TRIANGLE)], HW)]


def test_malformed_file_of_a_folder_is_named_and_costs_itself_alone(tmp_path):
    write_picture(tmp_path / "a.png")
    write_labels(tmp_path / "a.json", [shape("polygon", TRIANGLE)])
    (tmp_path / "0.json").write_text('{"shapes": [')
    write_labels(tmp_path / "b.json", [], imageHeight="high")
    (tmp_path / "other.json").write_text('{"shapes": 3}')
    with pytest.raises(UserError) as error:
        opened(tmp_path)
    assert str(error.value).count("b.json") == 1
    assert "0.json" in str(error.value)
    assert "b.json" in str(error.value)
    data, notes = opened(tmp_path, bad="skip")
    assert data.names == ["a.png"]
    assert "JSON files that are not LabelMe's (1) are left out" in notes


def test_folder_of_malformed_files_says_what_is_wrong(tmp_path):
    write_labels(tmp_path / "b.json", [], imageHeight="high")
    with pytest.raises(UserError, match=r"lists no images\n.*imageHeight"):
        opened(tmp_path)


def test_size_that_differs_from_the_picture_is_a_problem(tmp_path):
    write_picture(tmp_path / "a.png")
    write_labels(tmp_path / "a.json", [], hw=(60, 80))
    with pytest.raises(UserError, match="height, width are 60, 80"):
        opened(tmp_path)


def test_other_json_is_not_taken(tmp_path):
    for k, content in enumerate(
        ({"shapes": []}, {"images": [], "annotations": []}, [1], {"imagePath": "a", "shapes": 3})
    ):
        (tmp_path / f"{k}.json").write_text(json.dumps(content))
        assert not labelme.recognizes(Source(tmp_path / f"{k}.json"))
    assert not labelme.recognizes(Source(tmp_path))


# ---- writing ------------------------------------------------------------------------------------------------------


def test_masks_are_the_same_when_written_and_read_again(tmp_path):
    data = write_drawn(tmp_path)
    write_dataset(data, tmp_path / "out", "labelme")
    for i, file in enumerate(data.files):
        (tmp_path / "out" / labelme.picture_path(data, i)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "out" / labelme.picture_path(data, i))
    again, _ = opened(tmp_path / "out")
    assert sorted(contents(again).values(), key=str) == sorted(contents(data).values(), key=str)
    assert sorted(map(str, again.sizes.tolist())) == sorted(map(str, data.sizes.tolist()))


def test_written_files_have_the_form_of_labelme(tmp_path):
    data = write_drawn(tmp_path)
    write_dataset(data, tmp_path / "out", "labelme")
    content = json.loads((tmp_path / "out/größe 1.json").read_text("utf-8"))
    assert {"version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"} == set(content)
    assert content["imagePath"] == "größe 1.png"
    assert content["imageData"] is None
    kinds = [shape["shape_type"] for shape in content["shapes"]]
    assert set(kinds) == {"polygon", "mask"}
    for entry in content["shapes"]:
        assert set(entry) == {"label", "points", "group_id", "description", "shape_type", "flags", "mask"}
        assert all(len(point) == 2 for point in entry["points"])
        if entry["shape_type"] == "mask":
            (x1, y1), (x2, y2) = entry["points"]
            patch = Image.open(io.BytesIO(base64.b64decode(entry["mask"])))
            assert patch.size == (x2 - x1 + 1, y2 - y1 + 1)
    groups = [entry["group_id"] for entry in content["shapes"] if entry["group_id"] is not None]
    assert groups == [1, 1, 2, 2, 2]


def test_attributes_and_scores_survive(tmp_path):
    first, _ = masks(
        tmp_path,
        shape("polygon", TRIANGLE, description="cut", score=0.5),
        shape("polygon", TRIANGLE, flags={"x": True}),
    )
    write_dataset(first, tmp_path / "out", "labelme")
    shutil.copy(tmp_path / "a.png", tmp_path / "out")
    second, _ = opened(tmp_path / "out")
    assert second.attributes.tolist() == first.attributes.tolist() == ["cut", "x=true"]
    assert np.array_equal(second.scores, first.scores, equal_nan=True)


# ---- real files ---------------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_fruits_and_nuts_open_directly(shared):
    data, _ = opened(shared / "data/fruits_nuts/images")
    assert len(data) == 18
    assert data.n_instances == 165
    assert data.class_names == ["date", "fig", "hazelnut"]
    assert all(file.suffix == ".jpg" for file in data.files)


@pytest.mark.shared
def test_fruits_and_nuts_open_without_their_pictures(tmp_path, shared):
    for file in (shared / "data/fruits_nuts/images").glob("1*.json"):
        shutil.copy(file, tmp_path)
    alone, _ = opened(tmp_path)
    beside, _ = opened(shared / "data/fruits_nuts/images")
    beside = beside.named(alone.names)
    assert contents(alone) == contents(beside)
    difference = read_image(alone.files[0]).astype(int) - read_image(beside.files[0])
    assert np.abs(difference).mean() < 3  # the file is the same photo, compressed more


@pytest.mark.shared
def test_blemishes_of_a_real_folder_are_read_and_said(shared):
    folder = shared / "data/formats/sahi_terrain"
    data, notes = opened(folder)
    assert [file.name for file in data.files] == ["terrain1.jpg", "terrain2.png"]
    assert data.n_instances == 12
    assert "'terrain1.png' for terrain1.jpg" in notes
    coco, _ = opened(folder / "terrain2_coco.json")  # the boxes of the same polygons
    assert np.abs(data.boxes[data.instances(1)] - coco.boxes).max() <= 1
