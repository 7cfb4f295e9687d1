"""Divided data sets on the command line: which part trains, validates and is scored, and what is said about it."""

import json

import pytest

from commands import TINY, call
from maskrcnn.cli.common import DataOptions
from maskrcnn.cli.train import Source
from maskrcnn.data.formats import open_dataset, write_dataset

PARTS = {"train": range(6), "valid": range(6, 9), "test": range(9, 12)}


@pytest.fixture(scope="module")
def divided(shapes, tmp_path_factory):
    """Roboflow's layout: a folder with pictures and a file for each part."""
    folder = tmp_path_factory.mktemp("divided")
    for part, images in PARTS.items():
        (folder / part).mkdir()
        data = shapes.take(list(images))
        for file in data.files:
            (folder / part / file.name).write_bytes(file.read_bytes())
        write_dataset(data, folder / part / "_annotations.coco.json", "coco")
    return folder


def names(data):
    return sorted(name.rpartition("/")[2] for name in data.names)


def of(shapes, *parts):
    return sorted(shapes.names[i] for part in parts for i in PARTS[part])


def source(divided, **options):
    values = {"data": divided, "options": DataOptions(), "val": None, "val_ids": None, "val_data": None} | options
    return Source(**values)


def test_the_own_part_validates_and_test_is_left_out(divided, shapes, capsys):
    train, val = source(divided).open(seed=0)
    assert (names(train), names(val)) == (of(shapes, "train"), of(shapes, "valid"))
    said = capsys.readouterr().err
    assert "divided into train (6 images), val (3 images): its part val validates" in said
    assert "the part test" in said
    assert "(3 images) is left out of training" in said


def test_options_on_validation_come_first(divided, shapes, capsys):
    train, val = source(divided, val=0.4).open(seed=0)
    assert len(val) == round(0.4 * 9)
    assert names(train) != of(shapes, "train")
    assert sorted(names(train) + names(val)) == of(shapes, "train", "valid"), "test stays out"
    train, val = source(divided, val=0.0).open(seed=0)
    assert (names(train), len(val)) == (of(shapes, "train", "valid"), 0)
    listed = [shapes.names[0], shapes.names[11]]
    train, val = source(divided, val_ids=listed).open(seed=0)
    assert names(val) == sorted(listed)
    assert set(names(train)) == set(of(shapes, "train", "valid")) - set(listed)
    train, val = source(divided, options=DataOptions(part="train"), val_data=divided).open(seed=0)
    assert (names(train), names(val)) == (of(shapes, "train"), of(shapes, "valid"))
    train, val = source(divided, options=DataOptions(part="test")).open(seed=0)
    assert sorted(names(train) + names(val)) == of(shapes, "test")


def test_a_source_without_val_is_split(divided, shapes, tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).symlink_to(divided / part)
    train, val = source(tmp_path).open(seed=0)
    assert sorted(names(train) + names(val)) == of(shapes, "train")
    assert len(val) == 1


def test_evaluate_scores_the_validation_part(divided, run, capsys):
    assert call("evaluate", divided, "--model", run, "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["images"] == 3
    assert "its part val is scored; --part scores another" in printed.err
    assert call("evaluate", divided, "--model", run, "--json", "--part", "train") == 0
    assert json.loads(capsys.readouterr().out)["images"] == 6


def test_a_run_and_its_resume_keep_the_parts(divided, tmp_path, capsys):
    out = tmp_path / "run"
    assert call("train", divided, "--out", out, *TINY) == 0
    assert "6 images to train on, 3 to validate" in capsys.readouterr().err
    assert json.loads((out / "state" / "data.json").read_text())["val"] is None
    assert call("train", "--resume", out) == 0
    assert "6 images to train on, 3 to validate" in capsys.readouterr().err


def test_split_refuses_what_is_divided(divided, tmp_path, capsys):
    assert call("split", divided, "--out", tmp_path / "val.txt") == 1
    assert "already divided into train (6 images), val (3 images), test (3 images)" in capsys.readouterr().err
    assert call("split", divided, "--out", tmp_path / "val.txt", "--part", "train", "--val", "0.5") == 0
    assert len((tmp_path / "val.txt").read_text().split()) == 3


def test_check_reports_parts_and_crowds(divided, tmp_path, shapes, capsys):
    call("check", divided, "--json")
    report = json.loads(capsys.readouterr().out)
    assert report["parts"] == {"test": 3, "train": 6, "val": 3}
    assert report["crowd_regions"] == 0
    data = open_dataset(divided, say=lambda line: None)
    content = json.loads((divided / "train" / "_annotations.coco.json").read_text())
    for entry in content["annotations"]:
        entry["iscrowd"] = 1
    (tmp_path / "data.json").write_text(json.dumps(content))
    call("check", tmp_path / "data.json", "--images", divided / "train", "--no-decode")
    said = " ".join(capsys.readouterr().err.split())
    assert f"{len(content['annotations'])} crowd regions: left out of training" in said
    assert "no image has an object" in said
    assert "masks that share pixels" not in said
    assert data.part("train").n_instances == len(content["annotations"])
