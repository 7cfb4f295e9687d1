"""LVIS's additions to COCO: which classes were looked for in which images, and how frequent classes are."""

import json

import numpy as np

from coco_files import HW, SQUARE, TRIANGLE, annotation, coco, opened, save_picture, write_json
from maskrcnn.data.doctor.repair import Action, Change, apply_changes
from maskrcnn.data.formats import write_dataset
from maskrcnn.data.problem import Kind

CATEGORIES = [
    {"id": 2, "name": "aerosol_can", "frequency": "c", "synset": "aerosol.n.02", "image_count": 64},
    {"id": 9, "name": "zebra", "frequency": "f"},
    {"id": 4, "name": "anklet", "frequency": "r"},
]


def picture(image_id, part, absent, incomplete):
    """LVIS names pictures by their address alone, of either part of COCO."""
    return {
        "id": image_id,
        "height": HW[0],
        "width": HW[1],
        "coco_url": f"http://images.cocodataset.org/{part}/{image_id:012}.jpg",
        "neg_category_ids": absent,
        "not_exhaustive_category_ids": incomplete,
    }


def lvis(folder):
    for part in ("train2017", "val2017"):
        for image_id in (5, 6):
            save_picture(folder / part / f"{image_id:012}.jpg")
    images = [picture(5, "val2017", [9, 4], []), picture(6, "train2017", [], [2])]
    annotations = [annotation(1, 5, [SQUARE], 2), annotation(2, 6, [TRIANGLE], 2)]
    return write_json(folder / "annotations" / "lvis_v1_val.json", coco(images, annotations, CATEGORIES))


def test_lvis_is_read_and_written(tmp_path):
    data, _ = opened(lvis(tmp_path))
    assert [file.parent.name for file in data.files] == ["val2017", "train2017"]
    assert data.class_ids == [2, 9, 4]
    assert data.federated.absent == [{2, 3}, frozenset()]
    assert data.federated.incomplete == [frozenset(), {1}]
    assert data.federated.frequencies == ["c", "f", "r"]
    write_dataset(data, tmp_path / "out.json", "coco")
    again, _ = opened(tmp_path / "out.json")
    assert again.fingerprint() == data.fingerprint()
    assert [entry["frequency"] for entry in json.loads((tmp_path / "out.json").read_text())["categories"]] == list(
        "cfr"
    )


def test_what_is_known_goes_with_its_image(tmp_path):
    data, _ = opened(lvis(tmp_path))
    swapped = data.take([1, 0])
    assert swapped.federated.absent == [frozenset(), {2, 3}]
    assert swapped.fingerprint() != data.fingerprint()
    for i, lacking in enumerate(([False, False, False], [True, True, True])):
        annotated = data.labels[data.instances(i)]
        assert [data.federated.may_lack(i, label, annotated) for label in (1, 2, 3)] == lacking
    assert swapped.federated.may_lack(0, 1, np.array([1])), "annotated, but not exhaustively"


def test_images_that_are_not_listed_are_known_for_nothing(tmp_path):
    data, _ = opened(lvis(tmp_path), unlisted="empty")
    assert len(data) == 4
    assert len(data.federated.absent) == len(data.federated.incomplete) == 4
    assert all(data.federated.may_lack(3, label, np.array([])) for label in (1, 2, 3))


def test_plain_coco_is_not_federated(tmp_path):
    save_picture(tmp_path / "a.png")
    images = [{"id": 1, "file_name": "a.png"}]
    data, _ = opened(write_json(tmp_path / "a.json", coco(images, [annotation(1, 1, [SQUARE])])))
    assert data.federated is None


def test_what_is_known_follows_merged_and_dropped_classes(tmp_path):
    data, _ = opened(lvis(tmp_path))
    merged = apply_changes(data, [Change(Action.MERGE_CLASS, Kind.SPELLING, "", label=3, into=2)])
    assert merged.class_names == ["aerosol_can", "zebra"]
    assert merged.federated.absent == [{2}, frozenset()]
    assert merged.federated.incomplete == [frozenset(), {1}]
    dropped = apply_changes(data, [Change(Action.DROP_CLASS, Kind.BACKGROUND, "", label=2)])
    assert dropped.class_names == ["aerosol_can", "anklet"]
    assert dropped.federated.absent == [{2}, frozenset()]
    for changed in (merged, dropped):
        assert len(changed.federated.frequencies) == 2
        write_dataset(changed, tmp_path / f"{changed.class_names[1]}.json", "coco")
