"""Runs in Parquet, for polars, pandas, DuckDB and Arrow: one row an instance, or one for an image without objects.

    image            string                the name
    height, width    int32                 of the picture
    class_id         int64 or string
    class_name       string
    runs             list of int64         start length start length ..., 0-based, down the columns
    crowd            bool                  and score, attributes and part: only where the data set has them

The file's metadata lists all classes in their order. A Parquet file of Kaggle's texts is a table like a CSV
(`separated`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from maskrcnn.data.formats.annotations import AnnotatedImage, Annotations, Instance
from maskrcnn.data.formats.classes import without_decimals
from maskrcnn.data.formats.separated import PARQUET_ERRORS, PARQUET_SUFFIXES, read_parquet
from maskrcnn.data.formats.source import Source, decoded
from maskrcnn.data.formats.traits import COMMON
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError
from maskrcnn.files import atomic
from maskrcnn.rle import RLE
from maskrcnn.structures import UNNAMED_CLASS

NAME = "Parquet of runs"
SUFFIXES = PARQUET_SUFFIXES
HOLDS = COMMON

COLUMNS: dict[str, Any] = {
    "image": pl.String,
    "height": pl.Int32,
    "width": pl.Int32,
    "class_id": pl.String,
    "class_name": pl.String,
    "runs": pl.List(pl.Int64),
    "crowd": pl.Boolean,
    "score": pl.Float64,
    "attributes": pl.String,
    "part": pl.String,
}
"""Type of each column. Where all class ids are integers, theirs is Int64."""

CLASSES_KEY = "maskrcnn.classes"
"""Key of the file's metadata: JSON, a list of {"id": ..., "name": ...}."""

ROW_GROUP = 50_000
"""Instances that a reader decodes at once."""


class ListedClass(msgspec.Struct):
    """An entry of that list."""

    id: int | str
    name: str


def recognizes(source: Source) -> bool:
    """Whether the file is Parquet with a column of images and one of lists of integers, the runs."""
    if not source.path.is_file() or source.path.suffix.lower() not in SUFFIXES:
        return False
    try:
        schema = pl.read_parquet_schema(source.path)
    except PARQUET_ERRORS:
        return False  # the reader of tables names the fault
    runs = schema.get("runs")
    return "image" in schema and isinstance(runs, pl.List) and runs.inner.is_integer()


def read(source: Source) -> Annotations:
    """Read a file that `recognizes` accepts. Columns other than image and runs may be missing. Raise `UserError`."""
    table = read_table(source.path)
    if missing := {"image", "runs"} - set(table.columns):
        raise UserError(f"{source.path} has no column {min(missing)!r}; a table of runs needs image and runs")
    annotations = Annotations(source.path, NAME, [], _class_names(source.path, table), row_noun="row")
    images: dict[str, AnnotatedImage] = {}
    runs, offsets = _flat(table["runs"])
    for k, row in enumerate(table.drop("runs").iter_rows(named=True)):
        name = row["image"]
        if name is None:
            annotations.problems.append(Problem(Kind.BAD_ROW, f"{source.path}, row {k + 1}", "the image has no name"))
            continue
        image = images.setdefault(
            name, AnnotatedImage(name, hw=(row.get("height"), row.get("width")), part=row.get("part") or "")
        )
        class_id = row.get("class_id", 1)
        if offsets[k] < offsets[k + 1] and class_id is None:
            fault = f"image {name}: the mask has no class_id"
            annotations.problems.append(Problem(Kind.BAD_ROW, f"{source.path}, row {k + 1}", fault))
        elif offsets[k] < offsets[k + 1]:
            draw = partial(_draw, runs[offsets[k] : offsets[k + 1]])
            attributes, is_crowd = row.get("attributes") or "", bool(row.get("crowd"))
            image.instances.append(Instance(class_id, draw, k + 1, attributes, is_crowd, row.get("score")))
    annotations.images += images.values()
    return annotations


def read_table(path: Path) -> pl.DataFrame:
    """Return those of the columns above that the file has, in their types. Raise `UserError`."""
    table = read_parquet(path, path)
    types = dict(COLUMNS)
    if "class_id" in table.columns and table["class_id"].dtype.is_numeric():
        types["class_id"] = pl.Int64
        table = table.with_columns(without_decimals(table["class_id"].cast(pl.String)))  # 3.0 is 3, 2.5 is an error
    try:
        return table.select(pl.col(name).cast(type_) for name, type_ in types.items() if name in table.columns)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: a column has values of another type: {str(error).splitlines()[0]}") from None


def _class_names(path: Path, table: pl.DataFrame) -> dict[Any, str] | None:
    """Return the classes of the metadata, else those that the rows name, by id. None: the ids are the names."""
    listed = pl.read_parquet_metadata(path).get(CLASSES_KEY)
    if listed is not None:
        return {c.id: c.name for c in decoded(listed.encode(), list[ListedClass], path, f"metadata {CLASSES_KEY}")}
    if "class_id" not in table.columns:
        return {1: UNNAMED_CLASS}
    if "class_name" not in table.columns:
        return None
    named = table.filter(pl.col("class_name").is_not_null()).select("class_id", "class_name")
    return dict(named.unique("class_id", keep="first").sort("class_id").iter_rows()) or None


def _flat(lists: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of all lists in one array, and offsets (n + 1,). A missing list is empty."""
    lengths = lists.list.len().fill_null(0).to_numpy()
    numbers = lists.filter(pl.Series(lengths > 0)).explode()
    return numbers.fill_null(-1).to_numpy(), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _draw(numbers: np.ndarray, hw: tuple[int, int]) -> RLE:
    """Return the mask of (start, length) pairs. Raise `RLEError`."""
    starts, lengths = numbers[::2], numbers[1::2]
    if len(starts) == len(lengths):
        ends = starts + lengths
        in_image = starts[0] >= 0 and ends[-1] <= hw[0] * hw[1]
        if in_image and (lengths > 0).all() and (starts[1:] > ends[:-1]).all():
            return RLE(np.stack([starts, lengths], 1), hw)
    return RLE.from_encoded_pixels(" ".join(map(str, numbers.tolist())), hw, origin=0)  # joins runs, or names the fault


def write(data: Dataset, target: Path) -> None:
    """Write the columns above, image by image, in groups of `ROW_GROUP` rows."""
    classes = [{"id": i, "name": name} for i, name in zip(data.class_ids, data.class_names, strict=True)]
    with atomic(target) as temporary:
        _table(data).write_parquet(
            temporary, row_group_size=ROW_GROUP, metadata={CLASSES_KEY: json.dumps(classes, ensure_ascii=False)}
        )


def _table(data: Dataset) -> pl.DataFrame:
    """Return a row for each instance and each image without one, sorted by image."""
    empty_images = np.flatnonzero(data.counts == 0)
    image = np.concatenate([data.image_index, empty_images])
    order = np.argsort(image, kind="stable")
    image = image[order]
    instance = [int(k) if k < data.n_instances else None for k in order]

    def of_instances(values: Sequence[Any]) -> list[Any]:
        return [None if k is None else values[k] for k in instance]

    labels, no_runs = (data.labels - 1).tolist(), np.empty(0, np.int64)
    columns: dict[str, Any] = {
        "image": [data.names[i] for i in image],
        "height": data.sizes[image, 0],
        "width": data.sizes[image, 1],
        "class_id": of_instances([data.class_ids[j] for j in labels]),
        "class_name": of_instances([data.class_names[j] for j in labels]),
        "runs": [no_runs if k is None else data.masks[k].ravel() for k in instance],
    }
    if data.crowd is not None:
        columns["crowd"] = of_instances(data.crowd.tolist())
    if data.scores is not None:
        columns["score"] = of_instances([None if np.isnan(score) else score for score in data.scores.tolist()])
    if data.attributes is not None:
        columns["attributes"] = of_instances(data.attributes.tolist())
    if data.parts is not None:
        columns["part"] = [data.parts[i] or None for i in image]
    types = {name: COLUMNS[name] for name in columns}
    if all(isinstance(class_id, int) for class_id in data.class_ids):
        types["class_id"] = pl.Int64
    return pl.DataFrame(columns, schema=types).with_columns(pl.when(pl.col("runs").list.len() > 0).then("runs"))
