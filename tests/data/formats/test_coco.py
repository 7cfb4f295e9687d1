"""COCO's JSON: every layout, every way in which programs write it, and files that it must not take."""

import bz2
import contextlib
import gzip
import json
import lzma
import re

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_tools

from coco_files import CATEGORIES, HW, SQUARE, TRIANGLE, annotation, coco, image, opened, save_picture, write_json
from maskrcnn import RLE, UserError, open_dataset
from maskrcnn.data.formats import packed, recognized, write_dataset
from maskrcnn.data.formats.source import Source
from maskrcnn.data.problem import Kind

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools


def one_file(folder, annotations, categories=CATEGORIES, images=None, **more):
    """A JSON file beside the pictures a.png and b.png."""
    for name in ("a.png", "b.png"):
        save_picture(folder / "images" / name)
    images = [image(1, "a.png"), image(2, "b.png")] if images is None else images
    return write_json(folder / "data.json", coco(images, annotations, categories, **more))


def masks(data, i=0):
    return [rle.to_mask() for rle in data.rles(i)]


def drawn(*polygons, hw=HW):
    """What pycocotools draws."""
    rles = mask_tools.frPyObjects(list(polygons), *hw)
    return mask_tools.decode(mask_tools.merge(rles)).astype(bool)


def ring(hw=HW):
    """A disc with a hole, and a part apart from it."""
    y, x = np.mgrid[: hw[0], : hw[1]]
    r = np.hypot(y - 20, x - 25)
    mask = (r < 14) & (r > 6)
    mask[30:34, 50:58] = True
    return mask


# ---- masks ------------------------------------------------------------------------------------------------------


def pairs(polygon):
    return [polygon[k : k + 2] for k in range(0, len(polygon), 2)]


@pytest.mark.parametrize(
    "segmentation",
    [
        [SQUARE, TRIANGLE],
        [pairs(SQUARE), pairs(TRIANGLE)],
        [[SQUARE], [TRIANGLE]],
        [SQUARE, TRIANGLE, [1.0, 2.0], [3.0, 4.0, 8.0, 9.0]],
        [SQUARE, [], TRIANGLE],
    ],
    ids=["polygons", "pairs", "nested", "with a point and a line", "with an empty one"],
)
def test_polygons_are_drawn_by_the_rule_of_coco(tmp_path, segmentation):
    data, _ = opened(one_file(tmp_path, [annotation(1, 1, segmentation)]))
    assert np.array_equal(masks(data)[0], drawn(SQUARE, TRIANGLE))


@pytest.mark.parametrize("segmentation", [SQUARE, pairs(SQUARE), [[int(v) for v in SQUARE]]])
def test_one_polygon_may_lack_its_list(tmp_path, segmentation):
    data, _ = opened(one_file(tmp_path, [annotation(1, 1, segmentation)]))
    assert np.array_equal(masks(data)[0], drawn(SQUARE))


def test_runs_are_read_in_both_forms(tmp_path):
    rle = RLE.from_mask(ring())
    uncompressed = {"size": list(HW), "counts": rle.counts()}
    file = one_file(
        tmp_path,
        [annotation(1, 1, rle.to_coco()), annotation(2, 1, uncompressed, iscrowd=1), annotation(3, 2, [rle.to_coco()])],
    )
    data, said = opened(file)
    assert all(np.array_equal(mask, ring()) for mask in masks(data) + masks(data, 1))
    assert data.crowd.tolist() == [False, True, False]
    assert "2 instances, 1 crowd region" in said


@pytest.mark.parametrize(
    ("segmentation", "fault"),
    [
        ([[1, 2, 3, 4, 5]], "5 numbers"),
        ([[1, 2, 3, 4, 5, None]], "neither polygons nor runs"),
        ("1 3 5 2", "neither polygons nor runs"),
        ([["1", "2", "3", "4", "5", "6"]], "neither polygons nor runs"),
        ([[True] * 6], "neither polygons nor runs"),
        (7, "neither polygons nor runs"),
        ([[[[[[SQUARE]]]]]], "neither polygons nor runs"),
        ({"counts": [0, 4]}, 'needs "size" and "counts"'),
        ({"size": [40, 60], "counts": [5, 10]}, "add up to 15"),
        ({"size": [60, 40], "counts": [2400]}, "60 x 40, not 40 x 60 .*swapped"),
        ({"size": [40, 61], "counts": [2440]}, r"40 x 61, not 40 x 60 \(height x width\)$"),
        ([[0.1, 0.2, 0.5, 0.2, 0.5, 0.7]], "fractions of the picture; COCO's are in pixels"),
        ([[1e300, 2, 3, 4, 5, 6]], "x coordinate 1e"),
    ],
)
def test_a_malformed_mask_is_named_with_its_annotation(tmp_path, segmentation, fault):
    file = one_file(tmp_path, [annotation(41, 1, [SQUARE]), annotation(42, 2, segmentation)])
    with pytest.raises(UserError, match=r"annotation 42: image b\.png: ") as caught:
        opened(file)
    assert len(str(caught.value).splitlines()) == 3
    data, _ = opened(file, bad="skip")
    assert data.n_instances == 1
    [problem] = data.problems
    assert problem.kind == Kind.BAD_ROW
    assert re.search(fault, problem.message)


def test_brush_masks_of_cvat_that_are_called_crowds_are_doubted(tmp_path):
    polygon, whole, pieces = [[1, 1, 9, 1, 9, 9]], np.zeros(HW, bool), np.zeros(HW, bool)
    whole[1:7, 1:5] = pieces[1:3, 1:3] = pieces[5:7, 5:7] = True
    runs, in_pieces = (RLE.from_mask(mask).to_coco() for mask in (whole, pieces))

    def is_doubted(name, *masks):
        entries = [annotation(k, 1, mask, iscrowd=is_crowd) for k, (mask, is_crowd) in enumerate(masks)]
        (tmp_path / name).mkdir()
        return any(
            "CVAT marks every brush mask so" in line for line in opened(one_file(tmp_path / name, entries))[0].notes
        )

    assert is_doubted("brush", (polygon, 0), (runs, 1), (runs, 1))
    assert not is_doubted("objects of runs", (polygon, 0), (runs, 1), (runs, 0))
    assert not is_doubted("crowds", (polygon, 0), (runs, 1), (in_pieces, 1))
    assert not is_doubted("polygons", (polygon, 0), (polygon, 1))


def test_a_small_square_at_the_origin_is_no_fraction(tmp_path):
    data, _ = opened(one_file(tmp_path, [annotation(1, 1, [[0, 0, 1, 0, 1, 1, 0, 1]])]))
    assert data.n_instances == 1


def test_nan_is_an_error_of_its_annotation(tmp_path):
    text = json.dumps(
        coco([image(1, "a.png")], [annotation(5, 1, [[float("nan"), *SQUARE[1:]]]), annotation(6, 1, [SQUARE])])
    )
    one_file(tmp_path, [])
    file = write_json(tmp_path / "data.json", text)
    data, _ = opened(file, bad="skip")
    assert data.rows.tolist() == [6]
    assert "annotation 5" in data.problems[0].place


@pytest.mark.parametrize("nothing", [None, [], [[]], "", {}, "indented"])
def test_annotations_without_a_mask_are_counted(tmp_path, nothing):
    file = one_file(
        tmp_path, [annotation(1, 1, [SQUARE]), annotation(2, 1, nothing), annotation(3, 2, nothing, bbox=[])]
    )
    if nothing == "indented":
        text = json.dumps(json.loads(file.read_text()), indent=8).replace(
            '"indented"', "[\n            [\n        ]\n    ]"
        )
        file.write_text(text)
    data, said = opened(file)
    assert data.n_instances == 1
    assert "what has no mask is left out: boxes (1), annotations without a mask or a box (1)" in said


def test_data_of_boxes_alone_is_refused(tmp_path):
    file = one_file(tmp_path, [annotation(1, 1, []), annotation(2, 2, None)])
    with pytest.raises(UserError, match=r"has no masks: all it has is boxes \(2\)"):
        opened(file)


# ---- ids, names and sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [str, float, int], ids=["text", "float", "integer"])
@pytest.mark.parametrize("referring", [str, float, int], ids=["text", "float", "integer"])
def test_one_id_may_be_written_in_several_ways(tmp_path, form, referring):
    images = [image(form(5), "a.png"), image(form(8), "b.png")]
    categories = [{"id": form(c["id"]), "name": c["name"]} for c in CATEGORIES]
    annotations = [annotation(1, referring(8), [SQUARE], referring(7))]
    data, _ = opened(one_file(tmp_path, annotations, categories, images), bad="skip")
    if str in (form, referring) and float in (form, referring):
        assert data.n_instances in (0, 1)  # "5.0" is a text like others
    else:
        assert data.counts.tolist() == [0, 1]
        assert data.class_names[data.labels[0] - 1] == "größe"


def test_class_ids_are_those_of_the_file(tmp_path):
    data, _ = opened(one_file(tmp_path, [annotation(1, 1, [SQUARE], 7)]))
    assert data.class_ids == [3, 7]
    assert data.class_names == ["cat", "größe"]
    assert data.labels.tolist() == [2]


@pytest.mark.parametrize(
    "name",
    [
        "images/a.png",
        "train/sub/a.png",
        r"C:\data\images\a.png",
        "https://host/bucket/a.png?x=1",
        "./a.png",
        "a%20b.png",
    ],
)
def test_names_may_have_folders_and_addresses(tmp_path, name):
    save_picture(tmp_path / "images" / "a b.png")
    data, _ = opened(one_file(tmp_path, [annotation(1, 1, [SQUARE])], images=[image(1, name)]))
    assert data.files[0].name == ("a b.png" if "%20" in name else "a.png")


def test_names_of_a_file_that_is_given_alone_stay_as_they_are(tmp_path):
    data, _ = opened(one_file(tmp_path, [annotation(1, 1, [SQUARE])]))
    assert data.names == ["a.png", "b.png"]
    assert data.parts is None


@pytest.mark.parametrize(
    "sizes", [{"height": None, "width": None}, {"height": 0, "width": 0}, {"height": "40", "width": "60.0"}]
)
def test_sizes_may_be_missing(tmp_path, sizes):
    data, _ = opened(one_file(tmp_path, [annotation(1, 1, [SQUARE])], images=[image(1, "a.png") | sizes]))
    assert data.hw(0) == HW


def test_a_size_that_differs_from_the_picture_is_named(tmp_path):
    file = one_file(tmp_path, [annotation(1, 1, [SQUARE])], images=[image(1, "a.png", (60, 40))])
    with pytest.raises(UserError, match=r"image a\.png: height, width are 60, 40, but .* swapped"):
        opened(file)


def test_an_annotation_of_an_unknown_image_or_class_is_named(tmp_path):
    file = one_file(tmp_path, [annotation(1, 1, [SQUARE]), annotation(2, 99, [SQUARE]), annotation(3, 1, [SQUARE], 99)])
    data, _ = opened(file, bad="skip")
    assert sorted(str(p).partition("data.json, ")[2] for p in data.problems) == [
        "annotation 2: image_id 99 is not among the images",
        "annotation 3: image a.png: the class 99 is not among those that the file lists",
    ]


@pytest.mark.parametrize("entry", [None, 7, "text", [], {"id": 2}, {"image_id": [1]}, {"image_id": 1, "iscrowd": "no"}])
def test_a_malformed_entry_is_named_and_not_the_end(tmp_path, entry):
    file = one_file(tmp_path, [annotation(1, 1, [SQUARE]), entry])
    with pytest.raises(UserError, match="annotation 2: "):
        opened(file)
    assert opened(file, bad="skip")[0].n_instances == 1


def test_a_malformed_image_is_named_and_not_the_end(tmp_path):
    file = one_file(tmp_path, [annotation(1, 1, [SQUARE])], images=[image(1, "a.png"), {"file_name": "b.png"}])
    with pytest.raises(UserError, match=r"image 2: .*`id`"):
        opened(file)
    assert opened(file, bad="skip")[0].names == ["a.png"]


def test_images_with_one_id_lose_their_annotations_and_are_named(tmp_path):
    file = one_file(tmp_path, [annotation(1, 1, [SQUARE]), annotation(2, 2, [SQUARE])],
                    images=[image(1, "a.png"), image(1, "b.png"), image(2, "c.png")])  # fmt: skip
    save_picture(tmp_path / "images" / "c.png")
    data, _ = opened(file, bad="skip")
    assert data.names == ["c.png"]
    assert any("image 2 (b.png): the id 1 is that of another image too" in str(p) for p in data.problems)
    assert any("annotation 1: image_id 1 belongs to several images" in str(p) for p in data.problems)


def test_entries_of_one_picture_are_joined(tmp_path):
    """Converters that write an image for each annotation."""
    file = one_file(tmp_path, [annotation(1, 1, [SQUARE]), annotation(2, 2, [TRIANGLE])],
                    images=[image(1, "a.png"), image(2, "a.png")])  # fmt: skip
    data, said = opened(file)
    assert data.names == ["a.png"]
    assert data.counts.tolist() == [2]
    assert "images that repeat the name of another, and are joined with it: 1" in said


def test_no_image_is_lost_for_its_name(tmp_path):
    """Images without a name, and two of one name and different sizes, are findings each."""
    images = [image(1, "a.png"), image(2, "a.png", (41, 60)), image(3, None), image(4, None)]
    data, _ = opened(one_file(tmp_path, [annotation(k, k, [SQUARE]) for k in (1, 2, 3, 4)], images=images), bad="skip")
    assert data.names == ["a.png"]
    assert sum("has no name" in str(problem) for problem in data.problems) == 2
    assert sum("is the file a.png, which 'a.png' names too" in str(problem) for problem in data.problems) == 1


def test_repeated_annotation_ids_are_said(tmp_path):
    _, said = opened(one_file(tmp_path, [annotation(1, 1, [SQUARE]), annotation(1, 2, [SQUARE])]))
    assert "annotations with the id of an earlier one, all kept: 1" in said


# ---- categories -------------------------------------------------------------------------------------------------


def test_the_category_that_roboflow_adds_is_left_out(tmp_path):
    categories = [
        {"id": 0, "name": "fish", "supercategory": "none"},
        {"id": 1, "name": "tuna", "supercategory": "fish"},
        {"id": 2, "name": "cod", "supercategory": "fish"},
    ]
    data, said = opened(one_file(tmp_path, [annotation(1, 1, [SQUARE], 2)], categories))
    assert data.class_ids == [1, 2]
    assert "left out the category fish, the supercategory of all others, without objects" in said
    data, _ = opened(one_file(tmp_path, [annotation(1, 1, [SQUARE], 0)], categories))
    assert data.class_ids == [0, 1, 2], "it has an object"


def test_a_rare_category_is_no_parent(tmp_path):
    categories = [{"id": k, "name": name, "supercategory": "animal"} for k, name in enumerate(("animal", "cat", "dog"))]
    data, _ = opened(one_file(tmp_path, [annotation(1, 1, [SQUARE], 1)], categories))
    assert data.class_ids == [0, 1, 2], "its supercategory is a name, as that of COCO's person"


def test_categories_of_one_name_are_told_apart(tmp_path):
    categories = [{"id": 1, "name": "cell"}, {"id": 2, "name": "cell"}, {"id": 3}]
    data, said = opened(one_file(tmp_path, [annotation(1, 1, [SQUARE], 2)], categories))
    assert data.class_names == ["cell (id 1)", "cell (id 2)", "3"]
    assert "several categories are called cell" in said


def test_annotations_without_categories_are_of_their_ids(tmp_path):
    data, said = opened(one_file(tmp_path, [annotation(1, 1, [SQUARE], 4), annotation(2, 1, [SQUARE], "x")], []))
    assert data.class_ids == [4, "x"]
    assert "has no categories" in said
    data, _ = opened(one_file(tmp_path, [annotation(1, 1, [SQUARE], None)], []))
    assert data.class_names == ["object"]


def test_attributes_of_fashionpedia_keep_their_names(tmp_path):
    attributes = [{"id": 20, "name": "symmetrical", "supercategory": "silhouette"}, {"id": 44, "name": "mini (length)"}]
    file = one_file(tmp_path, [annotation(1, 1, [SQUARE], attribute_ids=[20, 44])], attributes=attributes)
    data, _ = opened(file)
    assert data.attributes.tolist() == ["20 44"]
    assert data.attribute_names == {"20": "symmetrical", "44": "mini (length)"}
    write_dataset(data, tmp_path / "out.json", "coco")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["attributes"] == [{"id": 20, "name": "symmetrical"}, {"id": 44, "name": "mini (length)"}]
    assert written["annotations"][0]["attribute_ids"] == [20, 44]


def test_what_is_not_read_beside_masks_is_counted(tmp_path):
    file = one_file(tmp_path, [annotation(1, 1, [SQUARE], keypoints=[1, 2, 2], attributes={"occluded": False}),
                               annotation(2, 1, [SQUARE], keypoints=[], attributes={})])  # fmt: skip
    _, said = opened(file)
    assert "annotations with keypoints, of which the masks alone are read: 1" in said
    assert "annotations with attributes, of which the masks alone are read: 1" in said


# ---- folders ----------------------------------------------------------------------------------------------------


def layout(folder, places, names=("0.png", "1.png"), prefix=""):
    """A file and a folder of pictures for each (file, pictures), with the same names everywhere but other objects."""
    for k, (file, pictures) in enumerate(places):
        for name in names:
            save_picture(folder / pictures / name)
        images = [image(n, prefix + name) for n, name in enumerate(names)]
        write_json(folder / file, coco(images, [annotation(1, k, [SQUARE])]))


LAYOUTS = {
    "coco": [
        ("annotations/instances_train2017.json", "train2017"), ("annotations/instances_val2017.json", "val2017"),
    ],
    "coco in images": [
        ("annotations/instances_train.json", "images/train"), ("annotations/instances_val.json", "images/val"),
    ],
    "roboflow": [("train/_annotations.coco.json", "train"), ("valid/_annotations.coco.json", "valid")],
    "flat": [("train.json", "train"), ("val.json", "val")],
    "other words": [("Training.json", "pictures/TRAIN"), ("validation.json", "pictures/Val")],
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_pictures_are_those_of_the_part(tmp_path, name):
    layout(tmp_path, LAYOUTS[name])
    data, said = opened(tmp_path)
    assert data.part_sizes == {"train": 2, "val": 2}
    assert "parts: train (2 images), val (2 images)" in said
    for k, (_, pictures) in enumerate(LAYOUTS[name]):
        part = data.part(("train", "val")[k])
        assert part.files == [tmp_path / pictures / "0.png", tmp_path / pictures / "1.png"]
        assert part.counts.tolist() == [k == 0, k == 1]
    assert opened(tmp_path, part="valid")[0].files == data.part("val").files


@pytest.mark.parametrize("name", ["coco", "coco in images", "flat"])
@pytest.mark.parametrize("k", [0, 1], ids=["train", "val"])
def test_one_file_of_a_layout_finds_the_pictures_of_its_part(tmp_path, name, k):
    layout(tmp_path, LAYOUTS[name])
    file, pictures = LAYOUTS[name][k]
    data, _ = opened(tmp_path / file)
    assert data.files == [tmp_path / pictures / "0.png", tmp_path / pictures / "1.png"]
    assert data.names == ["0.png", "1.png"]


def test_pictures_may_lie_elsewhere(tmp_path):
    layout(tmp_path / "all", LAYOUTS["coco"])
    (tmp_path / "all" / "annotations").rename(tmp_path / "json")
    data, _ = opened(tmp_path / "json", images=tmp_path / "all")
    assert [file.parent.name for file in data.files] == ["train2017"] * 2 + ["val2017"] * 2


def test_names_that_have_the_folder_keep_it(tmp_path):
    layout(tmp_path, [("a_train.json", "images/train"), ("a_val.json", "images/val")], prefix="")
    for part in ("train", "val"):
        content = json.loads((tmp_path / f"a_{part}.json").read_text())
        for entry in content["images"]:
            entry["file_name"] = f"images/{part}/{entry['file_name']}"
        write_json(tmp_path / f"a_{part}.json", content)
    data, _ = opened(tmp_path)
    assert data.names == ["images/train/0.png", "images/train/1.png", "images/val/0.png", "images/val/1.png"]


def test_other_files_of_coco_are_left_out_and_said(tmp_path):
    layout(tmp_path, LAYOUTS["coco"])
    images = [image(0, "0.png"), image(1, "1.png")]
    folder = tmp_path / "annotations"
    write_json(folder / "captions_train2017.json", coco(images, [{"id": 1, "image_id": 0, "caption": "two cats"}], []))
    write_json(
        folder / "person_keypoints_train2017.json", coco(images, [annotation(1, 0, [SQUARE], keypoints=[1, 1, 2])])
    )
    write_json(folder / "image_info_train2017.json", coco(images, []))
    write_json(folder / "image_info_test2017.json", coco([image(9, "9.png")], []))
    save_picture(tmp_path / "test2017" / "9.png")
    (folder / "notes.json").write_text("{ this is no JSON")
    data, said = opened(tmp_path)
    assert data.part_sizes == {"test": 1, "train": 2, "val": 2}
    assert data.n_instances == 2
    assert (
        "left out beside the files of masks: annotations/captions_train2017.json, annotations/person_keypoints" in said
    )
    assert "image_info_train2017.json: left out 2 images without annotations" in said


PANOPTIC_CLASSES = [{"id": 1, "name": "sky", "isthing": 0}, {"id": 3, "name": "cat", "isthing": 1}]


def save_segments(path, numbers):
    """Write a PNG of panoptic segments: red is the lowest byte."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([numbers >> shift & 255 for shift in (0, 8, 16)], 2).astype(np.uint8)).save(path)


def panoptic(folder, categories=PANOPTIC_CLASSES, segments=None, name="a.png"):
    """Train and val as panopticapi has them, with the masks of three segments; pictures have the names of the PNGs."""
    numbers = np.zeros(HW, np.uint32)
    numbers[:10], numbers[ring()], numbers[36:, :5] = 7, 460_551 + 9 * 65_536, 300
    if segments is None:
        segments = [{"id": 7, "category_id": 1}, {"id": 460_551 + 9 * 65_536, "category_id": 3, "bbox": [1, 2, 3, 4]}]
        segments.append({"id": 300, "category_id": 3, "iscrowd": 1})
    for k, part in enumerate(("train2017", "val2017")):
        entries = [{"image_id": k, "file_name": name, "segments_info": segments}]
        save_picture(folder / part / "a.png")
        save_segments(folder / "annotations" / f"panoptic_{part}" / "a.png", numbers)
        write_json(folder / "annotations" / f"panoptic_{part}.json", coco([image(k, "a.png")], entries, categories))
    return numbers


def test_panoptic_things_are_read_and_stuff_is_left_out(tmp_path):
    numbers = panoptic(tmp_path)
    data, said = opened(tmp_path)
    assert data.part_sizes == {"train": 1, "val": 1}
    assert [file.parent.name for file in data.files] == ["train2017", "val2017"]
    assert (data.class_ids, data.class_names) == ([3], ["cat"])
    for i in range(2):
        assert np.array_equal(masks(data, i), [numbers == 460_551 + 9 * 65_536, numbers == 300])
    assert data.crowd.tolist() == [False, True] * 2
    assert data.rows.tolist() == [460_551 + 9 * 65_536, 300] * 2
    assert "left out 2 segments of stuff (isthing is 0): 1 category, such as sky" in said
    alone, _ = opened(tmp_path / "annotations" / "panoptic_val2017.json")
    assert alone.files == [tmp_path / "val2017" / "a.png"]
    assert alone.masks.areas.tolist() == data.masks.areas.tolist()[:2]


def test_panoptic_data_of_stuff_alone_is_read(tmp_path):
    panoptic(tmp_path, [category | {"isthing": 0} for category in PANOPTIC_CLASSES])
    data, _ = opened(tmp_path)
    assert (data.class_names, data.n_instances) == (["sky", "cat"], 6)


def test_panoptic_files_are_left_out_beside_those_of_instances(tmp_path):
    panoptic(tmp_path)
    for k, part in enumerate(("train2017", "val2017")):
        content = coco([image(k, "a.png")], [annotation(1, k, [SQUARE])])
        write_json(tmp_path / "annotations" / f"instances_{part}.json", content)
    data, said = opened(tmp_path)
    assert data.masks.areas.tolist() == [400, 400]
    assert "left out beside the files of masks: annotations/panoptic_train2017.json" in said
    assert [file.parent.name for file in data.files] == ["train2017", "val2017"]


@pytest.mark.parametrize("name", ["b.png", "../../train2017/a.png", ""])
def test_a_panoptic_mask_file_that_is_missing_is_named(tmp_path, name):
    panoptic(tmp_path, name=name)
    (tmp_path / "annotations" / "panoptic_train2017" / "a.png").rename(tmp_path / "annotations" / "c.png")
    (tmp_path / "annotations" / "panoptic_val2017" / "a.png").unlink()
    with pytest.raises(UserError, match=r"panoptic_train2017\.json, annotation 1: the mask file '.*' is not in"):
        opened(tmp_path)


def test_faults_of_panoptic_segments_are_named(tmp_path):
    segments = [{"id": 8, "category_id": 3}, {"id": 300, "category_id": 3}]
    panoptic(tmp_path, segments=segments)
    data, said = opened(tmp_path)
    assert data.rows.tolist() == [300, 300]
    assert "segment 8: image train2017/a.png: the mask covers no pixel" in said
    assert "left out 2 segments of the PNG files that segments_info lacks" in said
    save_segments(tmp_path / "annotations" / "panoptic_val2017" / "a.png", np.ones((7, 9), int))
    (tmp_path / "annotations" / "panoptic_train2017" / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError) as caught:
        opened(tmp_path)
    assert "panoptic_train2017.json, annotation 1: " in str(caught.value)


def test_panoptic_masks_of_another_size_are_named(tmp_path):
    panoptic(tmp_path)
    for part in ("train2017", "val2017"):
        save_segments(tmp_path / "annotations" / f"panoptic_{part}" / "a.png", np.full((7, 9), 300))
    with pytest.raises(UserError, match=r"segment 300: .* 7 x 9 \(height x width\), its picture 40 x 60"):
        opened(tmp_path)


@pytest.mark.parametrize("entry", [{"caption": "a cat"}, {"category_id": 3}])
def test_captions_and_labels_are_refused(tmp_path, entry):
    file = one_file(tmp_path, [{"id": 1, "image_id": 1, **entry}])
    with pytest.raises(
        UserError, match=r"no file has masks of objects: data\.json has captions or classes of whole images"
    ):
        opened(file)


def test_a_list_of_results_is_refused_with_the_way(tmp_path):
    file = one_file(tmp_path, [])
    results = [{"image_id": 1, "category_id": 3, "segmentation": RLE.from_mask(ring()).to_coco(), "score": 0.5}]
    write_json(tmp_path / "results.json", results)
    with pytest.raises(UserError, match=r'list of COCO results.* "images" and "categories"'):
        opened(tmp_path / "results.json")
    content = json.loads(file.read_text()) | {"annotations": results}
    data, _ = opened(write_json(file, content))
    assert data.scores.tolist() == [0.5]
    assert np.array_equal(masks(data)[0], ring())


def test_two_files_of_the_same_images_are_refused(tmp_path):
    file = one_file(tmp_path, [annotation(1, 1, [SQUARE])])
    write_json(tmp_path / "copy.json", file.read_text())
    with pytest.raises(
        UserError, match=r"data\.json lists 2 images that .*copy\.json lists too, such as images/a\.png"
    ):
        opened(tmp_path)


def test_files_whose_categories_disagree_are_refused(tmp_path):
    layout(tmp_path, LAYOUTS["roboflow"])
    content = json.loads((tmp_path / "valid/_annotations.coco.json").read_text())
    content["categories"] = [{"id": 3, "name": "dog"}]
    write_json(tmp_path / "valid/_annotations.coco.json", content)
    with pytest.raises(UserError, match="category id 3 is 'dog' here and 'cat' before"):
        opened(tmp_path)


def test_a_part_that_is_missing_is_named(tmp_path):
    layout(tmp_path, LAYOUTS["flat"])
    with pytest.raises(UserError, match="no part 'test'; its parts are train, val"):
        opened(tmp_path, part="test")
    with pytest.raises(UserError, match="no part 'val'; it is not divided into parts"):
        opened(tmp_path / "train.json", part="val")
    with pytest.raises(UserError, match="no part 'train'"):
        opened(one_file(tmp_path / "one", [annotation(1, 1, [SQUARE])]).parent, part="train")


def test_one_part_is_read_without_the_others(tmp_path):
    layout(tmp_path, LAYOUTS["flat"])
    content = json.loads((tmp_path / "train.json").read_text())
    content["annotations"].append(annotation(9, 0, [[1, 2, 3, 4, 5]]))
    write_json(tmp_path / "train.json", content)
    assert opened(tmp_path, part="val")[0].n_instances == 1
    with pytest.raises(UserError, match="annotation 9"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "content",
    ['{"images": [], "annotations": [', '{"images": [1, 2', "[" * 100_000, '{"images": {}, "annotations": []}', "", "7", "[]", "[[1]]",
     '[{"image_id": 3}]', '{"shapes": [], "imagePath": "a.png"}', '{"version": "1", "images": []}', "\ud800"],
)  # fmt: skip
def test_a_file_that_is_not_cocos_is_not_taken(tmp_path, content):
    file = tmp_path / "data.json"
    file.write_bytes(content.encode("utf-8", "surrogatepass"))
    for path in (file, tmp_path):
        name = "none"
        with contextlib.suppress(UserError):  # no traceback
            name = recognized(Source(path))
        assert name != "coco"


def test_a_damaged_file_is_named(tmp_path):
    file = one_file(tmp_path, [annotation(1, 1, [SQUARE])])
    file.write_text(file.read_text()[:-3])
    for path in (file, tmp_path):
        with pytest.raises(UserError, match=r"data\.json cannot be read: "):
            opened(path)


@pytest.mark.parametrize("text", ["\ufeff%s", "\r\n%s\r\n", " \n%s"], ids=["mark", "CRLF", "blanks"])
def test_marks_and_blanks_before_the_object_do_not_matter(tmp_path, text):
    file = one_file(tmp_path, [annotation(1, 1, [SQUARE])])
    file.write_text(text % file.read_text(), "utf-8", newline="")
    assert opened(file)[0].n_instances == 1


PACK = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("suffix", PACK)
def test_packed_json_is_read(tmp_path, suffix):
    def pack(file):
        packed_file = file.with_name(f"{file.name}.{suffix}")
        packed_file.write_bytes(PACK[suffix](file.read_bytes()))
        file.unlink()
        return packed_file

    data, _ = opened(pack(one_file(tmp_path / "one", [annotation(1, 1, [SQUARE])])))
    assert data.masks.areas.tolist() == [400]
    panoptic(tmp_path / "folder")
    packed_files = [pack(file) for file in (tmp_path / "folder" / "annotations").glob("*.json")]
    data, _ = opened(tmp_path / "folder")
    assert data.part_sizes == {"train": 1, "val": 1}
    assert opened(packed_files[0])[0].n_instances == 2


def test_packed_json_that_cannot_be_unpacked_is_named(tmp_path, monkeypatch):
    file = tmp_path / "data.json.gz"
    file.write_bytes(gzip.compress(b'{"images": [], "annotations": []' + b" " * 2**20 + b"}"))
    monkeypatch.setattr(packed, "UNPACKED_BYTES", 2**16)
    with pytest.raises(UserError, match=r"data\.json\.gz has [\d,]+ bytes and unpacks to more than"):
        opened(file)
    file.write_bytes(b"\x1f\x8b damaged")
    with pytest.raises(UserError, match=r"data\.json\.gz cannot be read"):
        opened(file)


def test_names_do_not_lead_out_of_the_folder(tmp_path):
    save_picture(tmp_path / "secret.png")
    file = one_file(tmp_path / "data", [annotation(1, 1, [SQUARE])], images=[image(1, "../../secret.png")])
    with pytest.raises(UserError, match=r"secret\.png' is not in the folder"):
        opened(file)


# ---- writing ----------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_again(tmp_path):
    crowd = {"size": list(HW), "counts": RLE.from_mask(ring()[::-1]).counts()}
    file = one_file(
        tmp_path,
        [
            annotation(1, 1, RLE.from_mask(ring()).to_coco(), 7, score=0.25, attribute_ids=[4]),
            annotation(2, 1, [SQUARE, TRIANGLE], 3),
            annotation(3, 2, crowd, 3, iscrowd=1),
        ],
        images=[image(1, "ä b.png"), image(2, "b.png"), image(3, "empty.png")],
    )
    for name in ("ä b.png", "empty.png"):
        save_picture(tmp_path / "images" / name)
    data, _ = opened(file)
    write_dataset(data, tmp_path / "out.json", "coco")
    again, _ = opened(tmp_path / "out.json")
    assert again.fingerprint() == data.fingerprint()
    assert (again.class_ids, again.class_names) == (data.class_ids, data.class_names)
    assert again.crowd.tolist() == data.crowd.tolist()
    assert again.attributes.tolist() == data.attributes.tolist()
    assert np.array_equal(again.scores, data.scores, equal_nan=True)
    for entry in json.loads((tmp_path / "out.json").read_text())["annotations"]:
        assert entry["area"] == mask_tools.area(entry["segmentation"])
        assert entry["bbox"] == mask_tools.toBbox(entry["segmentation"]).tolist()


@pytest.mark.shared
def test_samples_of_another_program(shared):
    """What datumaro tests its own reader with, in five layouts."""
    folder = shared / "data" / "formats" / "datumaro" / "coco_dataset"
    for name in ("coco", "coco_roboflow", "mmdet_coco", "coco_instances"):
        data, said = opened(folder / name)
        assert [file.name for file in data.files] == ["a.jpg", "b.jpg"]
        assert data.part_sizes == {"train": 1, "val": 1}
        assert (data.class_ids, data.class_names) == ([1, 2, 4], ["a", "b", "c"])
        assert data.masks.areas.tolist() == [2, 20]
        assert data.crowd.tolist() == [False, True]
        assert "what has no mask is left out: boxes (1)" in said
    with pytest.raises(UserError, match=r"segment 460551: .* 5 x 5 \(height x width\), its picture 5 x 10"):
        opened(folder / "coco_panoptic")
    data, _ = opened(folder / "coco_panoptic", bad="skip")
    assert data.part_sizes == {"train": 1, "val": 1}
    assert data.class_names == ["a", "b"], "all classes of this sample are stuff"
    assert data.masks.areas.tolist() == [20, 20]
    assert data.crowd.tolist() == [False, True]
    for name in ("coco_captions", "coco_labels"):
        with pytest.raises(UserError, match="no file has masks of objects"):
            opened(folder / name)


def test_annotations_by_their_ids_are_livecells(tmp_path):
    entries = {"9": annotation(9, 1, [SQUARE]), "4": annotation(4, 2, [TRIANGLE])}
    data, _ = opened(one_file(tmp_path, entries))
    assert data.n_instances == 2
    np.testing.assert_array_equal(masks(data, 0)[0], drawn(SQUARE))
    assert recognized(Source(tmp_path)) == "coco"


def test_an_image_with_its_annotations_is_sa_1b(tmp_path):
    for number, polygon in ((3, SQUARE), (5, TRIANGLE)):
        save_picture(tmp_path / f"sa_{number}.png")
        rle = mask_tools.merge(mask_tools.frPyObjects([polygon], *HW))
        entry = {"id": 10 * number, "segmentation": {"size": list(HW), "counts": rle["counts"].decode()}}
        picture = {"image_id": number, "file_name": f"sa_{number}.png", "height": HW[0], "width": HW[1]}
        write_json(tmp_path / f"sa_{number}.json", {"image": picture, "annotations": [entry]})
    data, _ = opened(tmp_path)
    assert data.names == ["sa_3.png", "sa_5.png"]
    for i, polygon in enumerate((SQUARE, TRIANGLE)):
        np.testing.assert_array_equal(masks(data, i)[0], drawn(polygon))
    alone, _ = opened(tmp_path / "sa_5.json")
    np.testing.assert_array_equal(masks(alone)[0], drawn(TRIANGLE))


def test_a_file_without_annotations_is_no_data_set(tmp_path):
    path = tmp_path / "image_info.json"
    path.write_text('{"images": [], "info": {}}')
    with pytest.raises(UserError, match="no file has COCO's images and annotations"):
        open_dataset(path, format="coco", say=lambda _: None)
