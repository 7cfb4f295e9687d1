"""Datumaro's JSON: annotations of all types, groups, paths of pictures, faults, and exact round trips."""

import json

import numpy as np
import pytest
from PIL import Image

from labelled import by_picture, hard_dataset, opened, written
from maskrcnn import RLE, UserError
from maskrcnn.data.formats import datumaro
from maskrcnn.data.formats.source import Source

HW = (30, 40)
POINTS = [2.5, 3, 30, 4, 20.25, 25]
POLYGON = {"id": 0, "type": "polygon", "label_id": 1, "group": 0, "points": POINTS, "z_order": 0, "attributes": {}}


def save(
    folder, annotations, part="train", path="a.png", item_id="a", labels=("dog", "cat"), media="image", picture="a.png"
):
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    place = folder / "images" / part / picture
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", HW[::-1]).save(place)
    item = {"id": item_id, "annotations": annotations, media: {"path": path, "size": [30, 40]}}
    categories = {
        "label": {"labels": [{"name": name, "parent": ""} for name in labels], "attributes": []},
        "mask": {"colormap": []},
    }
    document = {"infos": {}, "categories": categories, "items": [item]}
    (folder / "annotations" / f"{part}.json").write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize("parts", [None, ["train", "val", "", "test", "../a b"]])
def test_a_written_data_set_reads_back_the_same(tmp_path, rng, parts):
    scores = np.array([0.5, np.nan] * 16)
    columns = {
        "attributes": np.array(["a=b; c=ü%3B", "", "20 44"] * 11, object)[:32],
        "scores": scores,
        "crowd": scores == 0.5,
    }
    data = hard_dataset(tmp_path / "in", rng, parts=parts, **columns)
    read, said = opened(written(data, tmp_path / "out", "datumaro"))
    assert by_picture(read) == by_picture(data)
    assert read.class_names == data.class_names
    part_of = dict(zip([file.read_bytes() for file in data.files], parts or [""] * 5, strict=True))
    assert (read.parts or [""] * 5) == [part_of[file.read_bytes()] for file in read.files]
    order = [data.files.index(file) for r in read.files for file in data.files if file.read_bytes() == r.read_bytes()]
    for column, values in columns.items():
        expected = np.concatenate([values[data.instances(i)] for i in order])
        np.testing.assert_array_equal(getattr(read, column), expected)
    assert "Datumaro" in said


def test_annotations_of_all_types(tmp_path, rng):
    mask = RLE.from_mask(rng.random(HW) < 0.5)
    types = ("bbox", "label", "points", "polyline", "caption", "hash_key")
    annotations = [
        {"type": "bbox", "label_id": 0, "bbox": [1, 2, 3, 4], "group": 3},
        POLYGON | {"attributes": {"occluded": False, "n": 2, "text": "x", "score": 0.25}},
        {"type": "mask", "label_id": 0, "rle": mask.to_coco(), "attributes": {"is_crowd": True}},
        {"type": "mask", "label_id": 0, "rle": {"size": list(HW), "counts": mask.counts()}},
        {"type": "ellipse", "label_id": 0, "points": [10, 10, 30, 20]},
        *({"type": type_, "label_id": 0} for type_ in types),
    ]
    data, said = opened(save(tmp_path, annotations))
    assert data.rles(0)[:3] == [RLE.from_polygons([POINTS], HW), mask, mask]
    assert data.rles(0)[3].box == (10, 10, 30, 20)
    assert data.attributes.tolist() == ["occluded=false; n=2; text=x", "", "", ""]
    assert data.scores.tolist()[0] == 0.25
    assert data.crowd.tolist() == [False, True, False, False]
    assert [data.class_names[label - 1] for label in data.labels] == ["cat", "dog", "dog", "dog"]
    for text in (
        "boxes (2)",
        "labels of pictures (1)",
        "points (1)",
        "lines (1)",
        "captions (1)",
        "annotations of type 'hash_key' (1)",
    ):
        assert text in said


def test_a_group_is_one_object_of_each_label(tmp_path):
    other = POLYGON | {"points": [30, 20, 38, 20, 38, 28]}
    data, said = opened(
        save(tmp_path, [POLYGON | {"group": 5}, other | {"group": 5}, other | {"group": 5, "label_id": 0}, other])
    )
    assert data.n_instances == 3
    assert data.rles(0)[0] == RLE.from_polygons([POINTS, [30, 20, 38, 20, 38, 28]], HW)
    assert "1 shape is a further part of an object" in said


@pytest.mark.parametrize("media", ["image", "media"])
@pytest.mark.parametrize(
    "path", ["a.png", "../elsewhere/images/train/a.png", "/home/x/a.png", "C:\\data\\a.png", "", "sub/a.png"]
)
def test_paths_of_pictures(tmp_path, path, media):
    data, _ = opened(save(tmp_path, [POLYGON], path=path, media=media))
    assert [file.name for file in data.files] == ["a.png"]
    assert data.names[0] == (path if path == "sub/a.png" else "a" if not path else "a.png")


def test_one_name_in_several_parts_and_classes_of_both(tmp_path):
    save(tmp_path, [POLYGON], part="validation")
    save(tmp_path, [POLYGON, POLYGON], part="default", labels=("cat", "ox"))
    data, _ = opened(tmp_path)
    assert [(file.parent.name, part) for file, part in zip(data.files, data.parts, strict=True)] == [
        ("default", ""),
        ("validation", "val"),
    ]
    assert data.class_names == ["cat", "ox", "dog"]
    assert [data.class_names[label - 1] for label in data.labels] == ["ox", "ox", "cat"]
    assert (
        opened(tmp_path / "annotations" / "validation.json", images=tmp_path / "images" / "validation")[0].n_instances
        == 1
    )


BAD = {
    "a label that is not there": (POLYGON | {"label_id": 7}, "the class 7 is not among"),
    "no label": (POLYGON | {"label_id": None}, "the class None is not among"),
    "two points": (POLYGON | {"points": [1, 2, 3, 4]}, "2 points"),
    "an odd count": (POLYGON | {"points": [1, 2, 3, 4, 5, 6, 7]}, "even count"),
    "no runs": ({"type": "mask", "label_id": 0}, "the mask has no rle"),
    "runs of another picture": (
        {"type": "mask", "label_id": 0, "rle": RLE.empty((3, 4)).to_coco()},
        "a picture of 3 x 4",
    ),
    "runs of words": ({"type": "mask", "label_id": 0, "rle": {"size": "x", "counts": "0"}}, "COCO RLE"),
    "half an ellipse": ({"type": "ellipse", "label_id": 0, "points": [1, 2]}, "an ellipse has 2 numbers"),
    "no type": ({"label_id": 0}, "annotation 2"),
    "text for points": (POLYGON | {"points": "1,2"}, "annotation 2"),
}


@pytest.mark.parametrize("entry", BAD)
def test_a_bad_annotation_is_named(tmp_path, entry):
    annotation, message = BAD[entry]
    folder = save(tmp_path, [POLYGON, annotation])
    with pytest.raises(UserError) as caught:
        opened(folder)
    assert message in str(caught.value)
    assert "train.json, " in str(caught.value)
    assert opened(folder, bad="skip")[0].n_instances == 1


def test_data_without_masks_is_refused_by_what_it_has(tmp_path):
    with pytest.raises(UserError, match=r"has no masks: all it has is labels of pictures \(2\)"):
        opened(save(tmp_path, [{"type": "label", "label_id": 0}] * 2))


def test_no_other_format_is_taken(tmp_path):
    (tmp_path / "coco.json").write_text('{"images": [], "annotations": [], "categories": []}')
    (tmp_path / "list.json").write_text("[1, 2]")
    assert not datumaro.recognizes(Source(tmp_path))
