"""Parquet: runs in columns, and tables of texts like a CSV's."""

import contextlib
import dataclasses
import json

import numpy as np
import polars as pl
import pytest
from PIL import Image

from maskrcnn import RLE, UserError, open_dataset
from maskrcnn.data.formats import parquet, write_dataset
from maskrcnn.data.formats.parquet import CLASSES_KEY, read_table
from maskrcnn.inference.submission import Sample

HW = (30, 44)
BASE = {"image": ["a.png", "a.png", "b.png"], "runs": [[3, 2], [50, 1, 60, 4], None]}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros(HW, np.uint8)).save(tmp_path / "images" / name)
    return tmp_path


def opened(folder, table, name="train.parquet", **options):
    pl.DataFrame(table, strict=False).write_parquet(folder / name)
    return open_dataset(folder / name, say=lambda _: None, **options)


def full(shapes):
    """The shapes with everything that a data set can hold, sparse ids that are not sorted, and an unused class."""
    n, rng = shapes.n_instances, np.random.default_rng(1)
    return dataclasses.replace(
        shapes,
        class_ids=[90, 3, 20, 7, 55],
        class_names=[*shapes.class_names, "größe, unused"],
        crowd=rng.random(n) < 0.2,
        scores=np.where(rng.random(n) < 0.3, np.nan, rng.random(n)),
        attributes=np.array([f"{k} {k + 1}" if k % 3 else "" for k in range(n)], object),
        parts=["train", "val", ""] * (len(shapes) // 3),
    )


def assert_same(a, b):
    assert a.fingerprint() == b.fingerprint()
    assert (a.class_ids, a.class_names, a.parts) == (b.class_ids, b.class_names, b.parts)
    for name in ("crowd", "scores", "attributes"):
        mine, theirs = getattr(a, name), getattr(b, name)
        assert (mine is None) == (theirs is None)
        assert mine is None or np.array_equal(mine, theirs, equal_nan=name == "scores")


@pytest.mark.parametrize("change", [lambda data: data, full], ids=["plain", "all columns"])
def test_a_data_set_comes_back(shapes, tmp_path, change, monkeypatch):
    monkeypatch.setattr(parquet, "ROW_GROUP", 7)
    data, path = change(shapes), tmp_path / "runs.parquet"
    write_dataset(data, path, "parquet")
    assert_same(open_dataset(path, shapes.files[0].parent, say=lambda _: None), data)


def test_the_columns_are_those_of_the_schema(shapes, tmp_path):
    data = full(shapes)
    write_dataset(data, tmp_path / "runs.parquet", "parquet")
    table = pl.read_parquet(tmp_path / "runs.parquet")
    assert table.columns == list(parquet.COLUMNS)
    assert table.schema["class_id"] == pl.Int64
    objects = table.filter(pl.col("runs").is_not_null())
    assert table.height - objects.height == (data.counts == 0).sum()
    assert objects["image"].to_list() == [data.names[i] for i in data.image_index]
    assert objects["class_name"].to_list() == [data.class_names[k - 1] for k in data.labels]
    rle = RLE(np.reshape(objects["runs"][0], (-1, 2)), data.hw(data.image_index[0]))
    assert rle == RLE(data.masks[0], rle.hw)


def test_columns_may_be_missing(folder):
    data = opened(folder, BASE)
    assert data.class_names == ["object"]
    assert data.counts.tolist() == [2, 0]
    assert [rle.runs.tolist() for rle in data.rles(0)] == [[[3, 2]], [[50, 1], [60, 4]]]
    assert opened(folder, {**BASE, "class_id": [7, 2, None]}).class_names == ["2", "7"]
    named = opened(folder, {**BASE, "class_id": [7.0, 2.0, None], "class_name": ["seven", "two", None]})
    assert (named.class_ids, named.class_names) == ([2, 7], ["two", "seven"])
    assert read_table(folder / "train.parquet").columns == ["image", "class_id", "class_name", "runs"]


@pytest.mark.parametrize("runs", [[3, 2, 5, 4], [3, 6], [0, 1320]], ids=["touching", "one", "full"])
def test_runs_that_touch_are_joined(folder, runs):
    data = opened(folder, {**BASE, "runs": [runs, None, None]})
    assert data.masks.runs.tolist() == ([[3, 6]] if runs[0] else [[0, 1320]])


@pytest.mark.parametrize(
    ("runs", "fault"),
    [
        ([3], "odd"),
        ([3, 0], "length below 1"),
        ([-1, 4], "start below 0"),
        ([3, 4, 5, 2], "starts inside the previous run"),
        ([1319, 2], "past the image's last pixel"),
        ([9, 2, 3, 2], "starts must increase"),
        ([None, 2], "start below 0"),
    ],
)
def test_bad_runs_are_named_with_their_row(folder, runs, fault):
    with pytest.raises(UserError, match=rf"1 problem:\n.*train\.parquet, row 2: image a\.png: .*{fault}"):
        opened(folder, {**BASE, "runs": [[3, 2], runs, None]})
    assert opened(folder, {**BASE, "runs": [[3, 2], runs, None]}, bad="skip").n_instances == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({**BASE, "image": ["a.png", None, "b.png"]}, "row 2: the image has no name"),
        ({**BASE, "height": [30, 30, 44], "width": [44, 44, 30]}, r"image b\.png: height, width are 44, 30"),
        (
            {**BASE, "class_id": ["x", None, None], "class_name": ["x", None, None]},
            "row 2: image a.png: the mask has no class_id",
        ),
        ({**BASE, "class_id": [1.0, 2.5, None]}, "a column has values of another type: .*2.5"),
        ({**BASE, "score": ["high", None, None]}, "a column has values of another type: .*high"),
        ({"image": [], "runs": pl.Series([], dtype=pl.List(pl.Int64))}, "has no rows"),
    ],
)
def test_faults_of_other_columns_are_named(folder, columns, message):
    with pytest.raises(UserError, match=message):
        opened(folder, columns)


def test_a_malformed_list_of_classes_is_named(folder):
    for text in ("{", json.dumps([{"id": 1}])):
        pl.DataFrame(BASE).write_parquet(folder / "train.parquet", metadata={CLASSES_KEY: text})
        with pytest.raises(UserError, match=rf"train\.parquet, metadata {CLASSES_KEY} cannot be read"):
            open_dataset(folder / "train.parquet", say=lambda _: None)


@pytest.mark.parametrize("columns", [BASE, {"ImageId": ["a.png"] * 40, "EncodedPixels": ["1 3"] * 40}])
def test_damaged_files_are_errors_without_a_traceback(folder, columns, rng):
    opened(folder, columns)
    path = folder / "train.parquet"
    content = path.read_bytes()
    for length in (0, 3, 4, 60, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"train\.parquet"):
            open_dataset(path, say=lambda _: None)
    for start in rng.integers(4, len(content) - 8, 25):
        path.write_bytes(content[:start] + rng.bytes(8) + content[start + 8 :])
        with contextlib.suppress(UserError):
            open_dataset(path, say=lambda _: None)


# ---- tables like a CSV's ------------------------------------------------------------------------------------------


KAGGLE = {"ImageId": ["a.png", "a.png", "b"], "EncodedPixels": ["4 2", "51 1 61 4", None]}
LISTS = {**KAGGLE, "EncodedPixels": [[4, 2], [51, 1, 61, 4], None]}


@pytest.mark.parametrize("table", [KAGGLE, LISTS], ids=["texts", "lists"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_texts_are_read_as_those_of_a_csv(folder, table, suffix):
    extra = {
        "Height": [30, 30, 30],
        "Width": [44.0, 44.0, None],
        "ClassId": pl.Series(["7", "2", None], dtype=pl.Categorical),
    }
    others = {"file": [b"\xff\x00", b"", None], "nested": [[[1]], None, [[]]], "valid": [True, False, None]}
    data = opened(folder, {**table, **extra, **others}, f"train{suffix}")
    assert data.masks.runs.tolist() == [[3, 2], [50, 1], [60, 4]]
    assert data.class_ids == [2, 7]
    assert data.names == ["a.png", "b"]
    assert data.rows.tolist() == [1, 2]


def test_structures_of_coco_are_read(folder):
    rles = [RLE.from_mask(np.eye(*HW, dtype=bool)), RLE.from_mask(np.ones(HW, bool))]
    data = opened(folder, {"image": ["a.png", "b.png"], "segmentation": [rle.to_coco() for rle in rles]})
    assert [data.rles(i)[0] for i in range(2)] == rles


def test_options_of_tables_hold(folder):
    data = opened(folder, {"key": ["a.png"], "where": ["0 5"]}, columns={"image": "key", "rle": "where"}, origin=0)
    assert data.masks.runs.tolist() == [[0, 5]]
    with pytest.raises(UserError, match=r"train\.parquet, row 1: EncodedPixels of a\.png: value 3"):
        opened(folder, {**KAGGLE, "EncodedPixels": ["4 2 9", "51 1 61 4", None]})


def test_a_sample_submission_may_be_parquet(folder):
    pl.DataFrame(KAGGLE).write_parquet(folder / "sample.parquet")
    assert Sample.read(folder / "sample.parquet").image_ids == ["a.png", "a.png", "b"]
