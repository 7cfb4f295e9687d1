"""Projects and tables of the VGG Image Annotator as its versions write them; which attribute is the class; writing."""

import csv
import io
import json
import math

import numpy as np
import pytest
from PIL import Image

from drawn import contents, disc, write_drawn
from maskrcnn import RLE, UserError
from maskrcnn.data.formats import open_dataset, via, write_dataset
from maskrcnn.data.formats.source import Source

HW = (30, 40)
TRIANGLE = ([2, 20, 8], [3, 5, 25])
TRIANGLE_MASK = RLE.from_polygons([[2, 3, 20, 5, 8, 25]], HW)


def polygon(points=TRIANGLE):
    return {"name": "polygon", "all_points_x": list(points[0]), "all_points_y": list(points[1])}


def region(shape=None, **attributes):
    return {"shape_attributes": shape or polygon(), "region_attributes": attributes}


def image(*regions, name="a.png", size=1234, **more):
    return {"filename": name, "size": size, "regions": list(regions), "file_attributes": {}, **more}


def project(*images, attributes=None):
    return {
        "_via_settings": {"ui": {}, "core": {}, "project": {"name": "nuts"}},
        "_via_img_metadata": {f"{i['filename']}{i['size']}": i for i in images},
        "_via_attributes": {"region": attributes or {}, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": [f"{i['filename']}{i['size']}" for i in images],
    }


def table(*rows, header="filename,file_size,file_attributes,region_count,region_id", separator=","):
    columns = [*header.split(","), "region_shape_attributes", "region_attributes"]
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator)
    writer.writerow(columns)
    for name, n_regions, number, shape, attributes in rows:
        writer.writerow([name, 1234, "{}", n_regions, number, json.dumps(shape), json.dumps(attributes)])
    return file.getvalue()


def write_pictures(folder, *names, hw=HW):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (*hw, 3), np.uint8)).save(folder / name)


def opened(source, **options):
    notes: list[str] = []
    data = open_dataset(source, say=notes.append, **options)
    return data, "\n".join(notes)


def read(tmp_path, content, pictures=("a.png",), name="via.json", **options):
    write_pictures(tmp_path, *pictures)
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / name).write_text(text, "utf-8")
    return opened(tmp_path / name, **options)


def classes(data):
    return [data.class_names[label - 1] for label in data.labels]


# ---- versions -----------------------------------------------------------------------------------------------------


def test_project_of_version_2(tmp_path):
    data, notes = read(tmp_path, project(image(region()), image(name="b.png")), ("a.png", "b.png"))
    assert data.names == ["a.png", "b.png"]
    assert data.counts.tolist() == [1, 0]
    assert data.rles(0) == [TRIANGLE_MASK]
    assert data.class_names == ["object"]
    assert "all are of one" in notes
    assert data.place(0).endswith("via.json, region 1")


def test_annotations_of_version_2_without_their_project(tmp_path):
    data, _ = read(tmp_path, {"a.png1234": image(region(), region())})
    assert data.rows.tolist() == [1, 2]


def test_annotations_of_version_1(tmp_path):
    first = image() | {"regions": {"0": region(), "1": region()}, "fileref": "", "base64_img_data": ""}
    data, _ = read(
        tmp_path, {"a.png1234": first, "b.png1234": image(name="b.png") | {"regions": {}}}, ("a.png", "b.png")
    )
    assert data.counts.tolist() == [2, 0]
    assert data.rles(0) == [TRIANGLE_MASK] * 2


def test_table(tmp_path):
    rows = [("a.png", 2, 0, polygon(), {"type": "nut"}), ("a.png", 2, 1, polygon(), {"type": "fig"})]
    data, notes = read(tmp_path, table(*rows, ("b.png", 0, 0, {}, {})), ("a.png", "b.png"), "via.csv")
    assert data.counts.tolist() == [2, 0]
    assert classes(data) == ["nut", "fig"]
    assert data.place(1).endswith("via.csv, row 3")
    assert "VGG Image Annotator" in notes


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\r\n", "\n"),
        lambda text: text.replace("filename", "#filename", 1),
    ],
)
def test_tables_in_other_spellings(tmp_path, change):
    data, _ = read(tmp_path, change(table(("a.png", 1, 0, polygon(), {}))), name="via.csv")
    assert data.rles(0) == [TRIANGLE_MASK]


def test_table_of_a_spreadsheet(tmp_path):
    write_pictures(tmp_path, "größe.png")
    text = table(("größe.png", 1, 0, polygon(), {"type": "Nuß"}), separator=";")
    (tmp_path / "via.csv").write_bytes(text.encode("utf-16"))
    data, _ = opened(tmp_path / "via.csv")
    assert data.class_names == ["Nuß"]


def project_of_version_3(*regions, attributes=None, files=None):
    return {
        "project": {"pid": "x", "data_format_version": "3.1.1", "vid_list": ["1", "2"]},
        "config": {},
        "attribute": attributes or {},
        "file": files
        or {str(k): {"fid": k, "fname": f"{n}.png", "type": 2, "loc": 1, "src": ""} for k, n in ((1, "a"), (2, "b"))},
        "view": {"1": {"fid_list": [1]}, "2": {"fid_list": ["2"]}},
        "metadata": {
            f"1_{k}": {"vid": "1", "flg": 0, "z": [], "xy": xy, "av": av} for k, (xy, av) in enumerate(regions)
        },
    }


def test_project_of_version_3(tmp_path):
    attributes = {
        "1": {"aname": "class", "anchor_id": "FILE1_Z0_XY1", "type": 4, "options": {"0": "nut", "1": "fig"}},
        "2": {"aname": "state", "anchor_id": "FILE1_Z0_XY1", "type": 2, "options": {"0": "ripe", "1": "cut"}},
    }
    regions = [
        ([7, 2, 3, 20, 5, 8, 25], {"1": "0", "2": "0,1"}),
        ([2, 5, 6, 10, 12], {"1": "1"}),
        ([3, 20, 15, 9], {"1": "1"}),
        ([4, 20, 15, 9, 5], {"1": "0", "2": ""}),
        ([1, 20, 15], {"1": "0"}),
        ([], {"1": "0"}),
    ]
    data, notes = read(tmp_path, project_of_version_3(*regions, attributes=attributes), ("a.png", "b.png"))
    assert data.counts.tolist() == [4, 0]
    assert classes(data) == ["nut", "fig", "fig", "nut"]
    assert data.attributes.tolist() == ["state=ripe,cut", "", "", ""]
    assert data.rles(0)[0] == TRIANGLE_MASK
    assert data.rles(0)[1].box == (5, 6, 15, 18)
    assert np.array_equal(data.rles(0)[2].to_mask(), disc(HW, (20, 15), 9))
    assert "points (1)" in notes


def test_what_version_3_has_beside_pictures_is_named(tmp_path):
    files = {"1": {"fid": 1, "fname": "a.mp4", "type": 4}, "2": {"fid": 2, "fname": "b.png", "type": 2}}
    bad = project_of_version_3(([7, 2, 3, 20, 5, 8, 25], {}), files=files)
    bad["metadata"]["2_x"] = {"vid": "2", "xy": [12, 1, 1], "av": {}}
    with pytest.raises(UserError) as error:
        read(tmp_path, bad, ("b.png",))
    assert "view 1: only views of one picture are read" in str(error.value)
    assert "metadata 2_x: the shape 12 is unknown" in str(error.value)


# ---- shapes -------------------------------------------------------------------------------------------------------


def test_shapes(tmp_path):
    ellipse = {"name": "ellipse", "cx": 20, "cy": 15, "rx": 12, "ry": 4, "theta": math.pi / 2}
    shapes = [
        {"name": "rect", "x": 4, "y": 6, "width": 26, "height": 14},
        {"name": "circle", "cx": 20, "cy": 15, "r": 10},
        ellipse,
        {key: value for key, value in ellipse.items() if key != "theta"},
        {"name": "point", "cx": 1, "cy": 2},
        polygon() | {"name": "polyline"},
    ]
    data, notes = read(tmp_path, project(image(*map(region, shapes))))
    rectangle, circle, upright, flat = (rle.to_mask() for rle in data.rles(0))
    assert np.argwhere(rectangle).min(0).tolist() == [6, 4]
    assert rectangle.sum() == 26 * 14
    assert np.array_equal(circle, disc(HW, (20, 15), 10))
    assert data.boxes[2].tolist() == [16, 3, 24, 27]
    assert data.boxes[3].tolist() == [8, 11, 32, 19]
    assert upright.sum() == flat.sum()
    assert data.rows.tolist() == [1, 2, 3, 4]
    assert "what has no mask is left out: points (1), polylines (1)" in notes
    assert "rectangles (1) become masks" in notes


BAD_REGIONS = {
    "two points": (region(polygon(([1, 2], [3, 4]))), "needs at least 3"),
    "unequal lists": (region(polygon(([1, 2, 9], [3, 4]))), "3 numbers in all_points_x and 2 in all_points_y"),
    "no points": (region({"name": "polygon"}), "needs at least 3"),
    "a rectangle without a side": (region({"name": "rect", "x": 1, "y": 1, "width": 3}), "height is missing"),
    "a negative radius": (region({"name": "circle", "cx": 1, "cy": 1, "r": -3}), "-3"),
    "an unknown shape": (region({"name": "star"}), "'star' is unknown"),
    "no shape": (region({"id": 1}), "'' is unknown"),
    "text for a number": (region({"name": "circle", "cx": "1", "cy": 1, "r": 3}), "cx"),
    "no attributes of a shape": ({"region_attributes": {}}, "shape_attributes"),
    "a number for a region": (7, "object"),
}


@pytest.mark.parametrize("case", BAD_REGIONS)
def test_malformed_region_is_named_and_costs_itself_alone(tmp_path, case):
    bad, fault = BAD_REGIONS[case]
    content = project(image(region(), bad))
    with pytest.raises(UserError) as error:
        read(tmp_path, content)
    assert "region 2" in str(error.value)
    assert "a.png" in str(error.value)
    assert fault in str(error.value)
    assert read(tmp_path, content, bad="skip")[0].n_instances == 1


@pytest.mark.parametrize("bad", [{"size": 5}, {"filename": 7, "regions": []}, [1], {"filename": "x.png", "regions": 5}])
def test_malformed_image_is_named_and_costs_itself_alone(tmp_path, bad):
    content = project(image(region()))
    content["_via_img_metadata"]["x.png99"] = bad
    with pytest.raises(UserError, match=r"image x\.png"):
        read(tmp_path, content)
    assert read(tmp_path, content, bad="skip")[0].n_instances == 1


def test_malformed_cell_is_named_with_its_row(tmp_path):
    text = table(("a.png", 2, 0, polygon(), {}), ("a.png", 2, 1, polygon(), {})).replace("all_points_y", "all", 1)
    text = text.replace('""all_points_x"": [2, 20, 8]', '""all_points_x"": [2, 20', 1)
    with pytest.raises(UserError, match="row 2"):
        read(tmp_path, text, name="via.csv")
    assert read(tmp_path, text, name="via.csv", bad="skip")[0].rows.tolist() == [3]


# ---- classes ------------------------------------------------------------------------------------------------------

OPTIONS = {
    "kind of nut": {"type": "dropdown", "description": "", "options": {"1": "hazel", "2": ""}, "default_options": {}}
}


def test_only_attribute_is_the_class(tmp_path):
    regions = [region(**{"kind of nut": value}) for value in ("1", "2", "other")]
    data, notes = read(tmp_path, project(image(*regions), attributes=OPTIONS))
    assert classes(data) == ["hazel", "2", "other"]
    assert "classes from the attribute 'kind of nut', the only one" in notes


@pytest.mark.parametrize("name", ["class", "Class_Name", "category", "LABEL", "name", "object", "type"])
def test_attribute_that_is_named_like_a_class_is_it(tmp_path, name):
    regions = [region(colour="red", **{name: "nut"}, note=""), region(colour="", **{name: "fig"})]
    data, notes = read(tmp_path, project(image(*regions)))
    assert classes(data) == ["nut", "fig"]
    assert data.attributes.tolist() == ["colour=red", ""]
    assert f"classes from the attribute {name!r}" in notes
    assert "'colour'" in notes


def test_user_names_the_attribute(tmp_path):
    content = project(image(region(colour="red", type="nut"), region(colour="blue", type="nut")))
    data, _ = read(tmp_path, content, columns={"class": "colour"})
    assert classes(data) == ["red", "blue"]
    with pytest.raises(UserError, match="'color'; the attributes are 'colour', 'type'"):
        read(tmp_path, content, columns={"class": "color"})
    _, notes = read(tmp_path, content, columns={"class": "colour", "rle": "colour"})
    assert "VGG Image Annotator has no use for --column rle=colour" in notes


def test_several_attributes_without_a_class_are_a_question(tmp_path):
    with pytest.raises(UserError, match="--column class=NAME"):
        read(tmp_path, project(image(region(colour="red", ripe="yes"))))


def test_decision_is_over_all_images(tmp_path):
    first = image(region(colour="red"))
    second = image(region(colour="red", species="fig", **{"class": "b"}), name="b.png")
    with pytest.raises(UserError, match="has no class in the attribute 'class'"):
        read(tmp_path, project(first, second), ("a.png", "b.png"))


def test_check_boxes_are_objects(tmp_path):
    regions = [region(type={"nut": True, "fig": False}), region(type={"fig": True})]
    data, _ = read(tmp_path, project(image(*regions)))
    assert classes(data) == ["nut", "fig"]
    with pytest.raises(UserError, match=r"region 1: .*several classes \(nut, fig\)"):
        read(tmp_path, project(image(region(type={"nut": True, "fig": True}), *regions)))


# ---- pictures and folders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["http://host/pictures/a.png?size=big", "C:\\me\\a.png", "/home/me/a.png", "../a.png", "A.PNG", "a"]
)
def test_picture_is_found(tmp_path, name):
    data, _ = read(tmp_path, project(image(region(), name=name)))
    assert data.files == [tmp_path / "a.png"]


def test_parts_of_balloons(tmp_path):
    for part, n_regions in (("train", 2), ("val", 1)):
        write_pictures(tmp_path / part, "a.png")
        content = {"a.png1234": image() | {"regions": {str(k): region() for k in range(n_regions)}}}
        (tmp_path / part / "via_region_data.json").write_text(json.dumps(content))
        (tmp_path / part / "via_region_data.csv").write_text(table(("a.png", 1, 0, polygon(), {})))
    data, _ = opened(tmp_path)
    assert data.parts == ["train", "val"]
    assert data.counts.tolist() == [2, 1]
    assert data.files == [tmp_path / "train/a.png", tmp_path / "val/a.png"]
    assert data.part("val").place(0) == f"{tmp_path}/val/via_region_data.json, region 1"


def test_two_entries_of_one_picture_are_a_problem(tmp_path):
    with pytest.raises(UserError, match="names too"):
        read(tmp_path, project(image(region()), image(region(), size=99)))


def test_other_files_are_not_taken(tmp_path):
    others = [{"images": [], "annotations": [], "categories": []}, {"a": {"filename": "x"}}, {"shapes": []}, {}, [1]]
    for k, content in enumerate(others):
        (tmp_path / f"{k}.json").write_text(json.dumps(content))
        assert not via.recognizes(Source(tmp_path / f"{k}.json"))
    (tmp_path / "x.csv").write_text("filename,EncodedPixels\na.png,1 3\n")
    (tmp_path / "y.json").write_text('{"a": {')
    assert not via.recognizes(Source(tmp_path / "x.csv"))
    assert not via.recognizes(Source(tmp_path))


# ---- writing ------------------------------------------------------------------------------------------------------


def test_masks_are_the_same_when_written_and_read_again(tmp_path):
    data = write_drawn(tmp_path)
    write_dataset(data, tmp_path / "via.json", "via")
    again, _ = opened(tmp_path / "via.json", images=tmp_path / "images")
    assert contents(again) == contents(data)
    assert again.names == data.names


def test_written_file_has_the_form_of_a_project(tmp_path):
    data = write_drawn(tmp_path)
    write_dataset(data, tmp_path / "via.json", "via")
    content = json.loads((tmp_path / "via.json").read_text("utf-8"))
    assert set(content) == set(project())
    assert content["_via_image_id_list"] == list(content["_via_img_metadata"])
    for key, entry in content["_via_img_metadata"].items():
        assert key == f"{entry['filename']}{entry['size']}"
        assert entry["size"] == (tmp_path / "images" / entry["filename"]).stat().st_size
        for one in entry["regions"]:
            assert one["shape_attributes"]["name"] == "polygon"
            assert one["region_attributes"]["class"] in content["_via_attributes"]["region"]["class"]["options"]
    assert [len(entry["regions"]) for entry in content["_via_img_metadata"].values()] == data.counts.tolist()


def test_attributes_survive(tmp_path):
    first, _ = read(tmp_path, project(image(region(type="nut", note="cut"), region(type="fig"))))
    write_dataset(first, tmp_path / "again.json", "via")
    second, _ = opened(tmp_path / "again.json")
    assert second.attributes.tolist() == first.attributes.tolist() == ["note=cut", ""]
    assert classes(second) == ["nut", "fig"]
