"""YOLO segmentation: layouts of folders, kinds of rows, and exact round trips."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import yaml as yaml_module
from PIL import Image

from labelled import by_picture, hard_dataset, opened, written
from maskrcnn import RLE, UserError
from maskrcnn.data.formats import yolo
from maskrcnn.data.formats.source import Source

HW = (40, 50)
TRIANGLE = "0.1 0.1 0.9 0.1 0.5 0.875"


def picture(path: Path, hw=HW) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", hw[::-1]).save(path)


def label(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def roboflow(folder: Path, rows: str = f"0 {TRIANGLE}\n", yaml: str | None = None) -> Path:
    for part in ("train", "valid"):
        picture(folder / part / "images" / f"{part}_1.jpg")
        label(folder / part / "labels" / f"{part}_1.txt", rows)
    text = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\nnames: ['cat', 'dog']\n"
    (folder / "data.yaml").write_text(text if yaml is None else yaml)
    return folder


def test_a_written_data_set_reads_back_the_same(tmp_path, rng):
    data = hard_dataset(tmp_path / "in", rng, parts=["train", "val", "val", "train", "test"])
    target = written(data, tmp_path / "out", "yolo")
    read, said = opened(target)
    assert by_picture(read) == by_picture(data)
    assert read.class_names == data.class_names
    assert read.class_ids == [0, 1]
    parts = {file.read_bytes(): part for file, part in zip(data.files, data.parts, strict=True)}
    assert [parts[file.read_bytes()] for file in read.files] == read.parts
    assert len({name.rpartition(".")[0] for name in read.names}) == len(data)  # a.png and a.jpg have a label file each
    assert opened(target / "data.yaml")[0].fingerprint() == read.fingerprint()
    assert "YOLO" in said


@pytest.mark.parametrize("parts", [None, ["test"] * 5, ["val"] * 5, ["train", "val", "../a", "nights", "test"]])
def test_parts_that_ultralytics_demands_stand_in_for_others(tmp_path, rng, parts):
    data = hard_dataset(tmp_path / "in", rng, parts=parts)
    target = written(data, tmp_path / "out", "yolo")
    document = yaml_module.safe_load((target / "data.yaml").read_text())
    for key in ("train", "val"):
        assert (target / document[key]).is_dir()
    read, _ = opened(target)
    assert len(read) == len(data)
    part_of = dict(zip([file.read_bytes() for file in data.files], parts or [""] * 5, strict=True))
    assert (read.parts or [""] * 5) == [part_of[file.read_bytes()] for file in read.files]


def test_names_that_lead_out_of_the_folder_stay_in_it(tmp_path, rng):
    data = hard_dataset(tmp_path / "in", rng)
    data.names[0], data.names[1], data.names[2] = "../../evil.png", "C:\\x\\..\\y.jpg", "/etc/z"
    written(data, tmp_path / "a" / "out", "yolo")
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_relative_to(tmp_path / "a" / "out")]
    assert all(p.is_relative_to(tmp_path / "in") for p in outside)


def test_names_leave_out_what_the_layout_says(tmp_path, rng):
    read, _ = opened(roboflow(tmp_path / "in"))
    assert read.names == ["train_1.jpg", "valid_1.jpg"]
    (tmp_path / "in" / "valid" / "images" / "valid_1.jpg").rename(tmp_path / "in" / "valid" / "images" / "train_1.jpg")
    assert opened(tmp_path / "in")[0].names == ["train/train_1.jpg", "valid/train_1.jpg"]


def test_folders_of_pictures_that_are_called_images_keep_their_labels(tmp_path, rng):
    data = hard_dataset(tmp_path / "in", rng)
    data.names[0], data.names[1] = "images/a.png", "x/Images/images/b.jpg"
    assert by_picture(opened(written(data, tmp_path / "out", "yolo"))[0]) == by_picture(data)


def test_pixels_agree_with_ultralytics_rule_of_polygons(tmp_path):
    mask_utils = pytest.importorskip("pycocotools.mask")
    data, _ = opened(roboflow(tmp_path, "1 0.11 0.2 0.83 0.13 0.7 0.9 0.21 0.66\n1 0 0 0.3 0 0.1 0.5\n"))
    for mask, polygon in zip(
        data.rles(0), ([5.5, 8, 41.5, 5.2, 35, 36, 10.5, 26.4], [0, 0, 15, 0, 5, 20]), strict=True
    ):
        assert mask == RLE.from_coco(mask_utils.frPyObjects([polygon], *HW)[0])


LAYOUTS = {
    "Roboflow's ../": (
        "train/images/a.png", "train/labels/a.txt", "train: ../train/images\nval: ../train/images\nnames: [cat]\n",
    ),
    "parts below images": ("images/train/a.png", "labels/train/a.txt", "path: .\ntrain: images/train\nnames: {0: cat}\n"),
    "path of another machine": (
        "images/train/a.png", "labels/train/a.txt", "path: /content/drive/proj\ntrain: images/train\nnames: [cat]\n",
    ),
    "absolute part of another machine": (
        "images/a.png", "labels/a.txt", "train: /home/anna/proj/images\nnames: [cat]\n",
    ),
    "part of Windows": ("images/a.png", "labels/a.txt", "train: C:\\proj\\images\nnames: [cat]\n"),
    "list of folders": ("images/a.png", "labels/a.txt", "train: [images, more]\nnames:\n  - cat\n"),
    "labels beside pictures": ("data/a.png", "data/a.txt", "train: data\nnames: [cat]\n"),
    "images twice in the path": (
        "images/set/images/a.png", "images/set/labels/a.txt", "train: images/set/images\nnames: [cat]\n",
    ),
    "names that YAML takes for other things": ("images/a.png", "labels/a.txt", "train: images\nnames: [no]\n"),
    "byte order mark and Windows' lines": ("images/a.png", "labels/a.txt", "\ufefftrain: images\r\nnames: [cat]\r\n"),
    "number of classes alone": ("images/a.png", "labels/a.txt", "train: images\nnc: 1\n"),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_data_yaml(tmp_path, layout):
    image, text, yaml = LAYOUTS[layout]
    picture(tmp_path / image)
    label(tmp_path / text, f"\ufeff0 {TRIANGLE}\r\n\r\n0 0.5 0.5 1 0.5 1 1\r\n")
    (tmp_path / "data.yaml").write_bytes(yaml.encode())
    data, _ = opened(tmp_path)
    assert data.n_instances == 2
    assert data.rows.tolist() == [1, 3]
    assert data.class_names == [
        {"names that YAML takes for other things": "no", "number of classes alone": "0"}.get(layout, "cat")
    ]
    assert set(data.parts) == {"train"}
    assert data.place(1) == f"{tmp_path / text}, row 3"


def test_a_list_of_pictures_names_those_below_the_root(tmp_path):
    for name in ("a", "b", "c"):
        picture(tmp_path / "images" / "x" / f"{name}.png")
        label(tmp_path / "labels" / "x" / f"{name}.txt", f"0 {TRIANGLE}\n")
    (tmp_path / "train.txt").write_text("./images/x/a.png\n/elsewhere/images/x/b.png\n")
    (tmp_path / "val.txt").write_text("images/x/c.png\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: [cat]\n")
    data, _ = opened(tmp_path)
    assert dict(zip(data.names, data.parts, strict=True)) == {
        "x/a.png": "train", "x/b.png": "train", "x/c.png": "val",
    }  # fmt: skip
    with open(tmp_path / "val.txt", "a") as file:
        file.write("../../etc/passwd.png\n")
    with pytest.raises(UserError, match=r"passwd.png' is not in the folder"):
        opened(tmp_path)


def test_a_bare_folder_has_numbers_or_the_names_of_a_class_file(tmp_path):
    for part in ("train", "Validation"):
        picture(tmp_path / part / "images" / f"{part}.png")
        label(tmp_path / part / "labels" / f"{part}.txt", f"3 {TRIANGLE}\n0 {TRIANGLE}\n")
    data, said = opened(tmp_path)
    assert data.class_ids == [0, 3]
    assert data.class_names == ["0", "3"]
    assert sorted(data.parts) == ["train", "val"]
    assert "no data.yaml or classes.txt names the classes; they are called by numbers" in said
    (tmp_path / "classes.txt").write_text("\n\n")
    assert opened(tmp_path)[0].class_names == ["0", "3"]
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\ndog\n\n")
    data, _ = opened(tmp_path)
    assert data.class_ids == [0, 1, 2, 3]
    assert data.class_names == ["ant", "bee", "cat", "dog"]


def test_empty_and_missing_label_files_are_images_without_objects(tmp_path):
    folder = roboflow(tmp_path)
    picture(folder / "train" / "images" / "empty.png")
    label(folder / "train" / "labels" / "empty.txt", "")
    picture(folder / "train" / "images" / "background.png")
    label(folder / "train" / "labels" / "stray.txt", f"0 {TRIANGLE}\n")
    data, said = opened(folder)
    assert len(data) == 4
    assert (data.counts == 0).sum() == 2
    assert "pictures without a label file (1) count as images without objects" in said
    assert "label files without a picture (1), such as" in said
    assert "stray.txt" in said
    assert "test is ../test/images, which is not there and is left out" in said


BOX, QUAD = "0.5 0.5 0.2 0.3", "0.1 0.1 0.3 0.2 0.2 0.4 0.0 0.3"
POSE = "0.5 0.5 0.4 0.4 0.4 0.5 2 0.6 0.5 1 0.55 0.6 0"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([BOX], "boxes of 4 numbers"),
        ([BOX + " 0.9"], "boxes of 4 numbers"),
        ([QUAD, QUAD], "rotated boxes"),
        ([POSE, POSE], "poses"),
        ([BOX, POSE], "poses"),
    ],
)
def test_data_without_masks_is_refused_by_what_it_has(tmp_path, rows, message):
    folder = roboflow(tmp_path, "".join(f"0 {row}\n" for row in rows))
    with pytest.raises(UserError, match=message):
        opened(folder)


def test_boxes_beside_polygons_are_counted(tmp_path):
    data, said = opened(roboflow(tmp_path, f"0 {BOX}\n1 {TRIANGLE}\n1 {QUAD}\n"))
    assert data.n_instances == 4
    assert set(data.labels) == {2}
    assert "rows that are boxes without a mask (2) are left out" in said


def test_four_points_whose_sides_are_not_parallel_are_polygons(tmp_path):
    data, said = opened(roboflow(tmp_path, "0 0.1 0.1 0.9 0.2 0.7 0.9 0.2 0.6\n"))
    assert data.n_instances == 2
    assert "all polygons have four points" in said


def test_predictions_have_scores(tmp_path):
    data, said = opened(roboflow(tmp_path, f"0 {TRIANGLE} 0.75\n1 {TRIANGLE} 0.8 0.7 0.5\n"))
    assert data.scores.tolist() == [0.75, 0.5] * 2
    assert "rows end in a score" in said


def test_key_points_of_data_yaml_are_no_polygons(tmp_path):
    rows = f"0 {BOX} 0.4 0.5 0.6 0.5\n"
    folder = roboflow(tmp_path, rows, "train: ../train/images\nkpt_shape: [2, 2]\nnames: [person]\n")
    with pytest.raises(UserError, match=r"its rows \(1\) are poses"):
        opened(folder)


BAD_ROWS = {
    "pixels": ("0 12 3 40 3 40 30", "the x coordinate 12 of point 1 is outside 0 .. 1. These look like pixels"),
    "a little outside": ("0 0.1 0.1 0.5 1.2 0.4 0.1", "the y coordinate 1.2 of point 2 is outside 0 .. 1."),
    "not a number": ("0 0.1 nan 0.5 0.2 0.4 0.1", "the y coordinate nan of point 1"),
    "odd": ("0 0.1 0.1 0.5 0.2 0.4 0.1 0.5", "7 numbers follow the class"),
    "two numbers": ("0 0.1 0.1", "2 numbers follow the class"),
    "words": ("cat 0.1 0.1 0.5 0.2 0.4 0.1", "expected a class number"),
    "commas": ("0,0.1,0.1,0.5,0.2,0.4,0.1", "expected a class number"),
    "half a class": ("0.5 0.1 0.1 0.5 0.2 0.4 0.1", "the class 0.5 is not a whole number"),
    "no such class": ("7 0.1 0.1 0.5 0.2 0.4 0.1", "the class 7 is not among"),
    "infinite class": ("inf 0.1 0.1 0.5 0.2 0.4 0.1", "the class inf is not a whole number"),
    "not text": ("\x00\x01 0.1", "expected a class number"),
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_is_named(tmp_path, row):
    text, message = BAD_ROWS[row]
    folder = roboflow(tmp_path)
    label(folder / "train" / "labels" / "train_1.txt", f"0 {TRIANGLE}\n{text}\n")
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        opened(folder)
    assert "train_1.txt, row 2: " in str(caught.value)
    data, _ = opened(folder, bad="skip")
    assert data.n_instances == 2


BAD_YAML = {
    "train: [": "is not valid YAML",
    "names: 5\ntrain: x\n": "names must be a list of texts",
    "names: {a: cat}\ntrain: x\n": "names must be a list of texts",
    "names: [[cat]]\ntrain: x\n": "names must be a list of texts",
    "names: [cat]\ntrain: nowhere\n": "none of its folders of pictures is there",
    "names: &a [x, *a]\ntrain: train/images\n": "is not valid YAML",
    "a: &a [x, x]\nnames: [*a, *a]\ntrain: train/images\n": "names must be a list of texts",
    "names: " + "[" * 5000: "is not",
    "- a": "none of its folders",
}


@pytest.mark.parametrize("text", BAD_YAML)
def test_a_bad_data_yaml_is_named(tmp_path, text):
    folder = roboflow(tmp_path, yaml=text)
    with pytest.raises(UserError, match=BAD_YAML[text]) as caught:
        opened(folder / "data.yaml", format="yolo")
    assert "data.yaml" in str(caught.value)


def test_several_data_sets_in_a_folder_must_be_chosen(tmp_path):
    folder = roboflow(tmp_path)
    (folder / "data.yaml").rename(folder / "one.yaml")
    (folder / "two.yaml").write_bytes((folder / "one.yaml").read_bytes())
    with pytest.raises(UserError, match=r"several data sets: one.yaml, two.yaml"):
        opened(folder)
    assert len(opened(folder / "one.yaml")[0]) == 2


def test_nc_that_disagrees_is_said(tmp_path):
    folder = roboflow(tmp_path, yaml="train: ../train/images\nnc: 5\nnames: [cat, dog]\n")
    assert "nc is 5, but there are 2 names" in opened(folder)[1]


def test_ultralytics_reads_what_is_written(tmp_path, rng):
    """supervision has Ultralytics' reading of data.yaml. It draws outlines too, so areas agree roughly."""
    supervision = pytest.importorskip("supervision")
    data = hard_dataset(tmp_path / "in", rng)
    target = written(data, tmp_path / "out", "yolo")
    read = supervision.DetectionDataset.from_yolo(
        str(target / "images"), str(target / "labels"), str(target / "data.yaml"), force_masks=True
    )
    assert read.classes == data.class_names
    for path, _, detections in read:
        i = [file.read_bytes() for file in data.files].index(Path(path).read_bytes())
        assert detections.class_id.tolist() == (data.labels[data.instances(i)] - 1).tolist()
        for mask, drawn in zip(data.rles(i), detections.mask if len(detections) else [], strict=True):
            assert not (mask.to_mask() & ~drawn).any()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("yolo_dataset/labels", "boxes"),
        ("yolo_dataset/annotations", "boxes"),
        ("yolo_dataset/strict", "Darknet"),
        ("yolo_dataset/strict/obj.data", "Darknet"),
        ("roboflow_dataset/yolo", "boxes"),
        ("roboflow_dataset/yolo_obb", "rotated boxes"),
    ],
)
def test_boxes_of_datumaros_samples_are_refused(shared, place, message):
    with pytest.raises(UserError, match=message):
        opened(shared / "data" / "formats" / "datumaro" / place)


def test_no_other_format_is_taken(shapes_csv):
    assert not yolo.recognizes(Source(shapes_csv.parent))
    assert not yolo.recognizes(Source(shapes_csv))


def test_rectangles_are_not_taken_for_rotated_boxes(tmp_path, rng):
    data = hard_dataset(tmp_path / "in", rng)
    rectangles = data.take([0, 1])
    keep = [k for k in range(rectangles.n_instances) if k % 8 == 5]
    rectangles = dataclasses.replace(
        rectangles, image_index=rectangles.image_index[keep], labels=rectangles.labels[keep],
        masks=rectangles.masks.take(np.array(keep)), rows=rectangles.rows[keep],
    )  # fmt: skip
    read, _ = opened(written(rectangles, tmp_path / "out", "yolo"))
    assert by_picture(read) == by_picture(rectangles)
    assert read.rles(0) == [RLE.from_mask(rectangles.rles(0)[0].to_mask())]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("images/train/a.jpg", "labels/train/a.txt"),
        ("train/images/a.jpg", "train/labels/a.txt"),
        ("train/a.jpg", "train/a.txt"),
    ],
)
def test_the_missing_label_file_is_named_where_it_is_looked_for(tmp_path, place, expected):
    picture(tmp_path / place)
    yaml = tmp_path / "data.yaml"
    yaml.write_text(f"train: {Path(place).parent}\nval: {Path(place).parent}\nnames: [cat]\n")
    with pytest.raises(UserError, match="none has a label file") as error:
        opened(tmp_path)
    named = Path(str(error.value).rpartition(" belongs to ")[2])
    assert named == tmp_path / expected
    label(named, f"0 {TRIANGLE}\n")
    assert opened(tmp_path)[0].n_instances == 1


def test_a_picture_that_a_part_lists_twice_counts_once(tmp_path):
    for name in "ab":
        picture(tmp_path / "images" / f"{name}.png")
        label(tmp_path / "labels" / f"{name}.txt", f"0 {TRIANGLE}\n")
    (tmp_path / "train.txt").write_text("images/a.png\nimages/a.png\n")
    (tmp_path / "val.txt").write_text("images/b.png\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: [cat]\n")
    data, said = opened(tmp_path)
    assert data.names == ["a.png", "b.png"]
    assert "another part has too" not in said
