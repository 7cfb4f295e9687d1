"""The classes of a table: class texts -> labels, class ids, attributes and class names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from maskrcnn.data.formats.columns import NO_OBJECT, Columns
from maskrcnn.data.table import UNNAMED_CLASS
from maskrcnn.errors import UserError


def read_classes(
    class_text: pl.Series | None, table: pl.DataFrame, layout: Columns, rows: np.ndarray
) -> tuple[np.ndarray, list[Any], np.ndarray | None]:
    """Return the 1-based labels of `rows` (0: no class), the sorted class ids, and the attributes if there are any."""
    attributes = None
    if layout.attributes:
        attributes = _attributes(table[layout.attributes].fill_null("").gather(rows))
    if class_text is None:
        return np.ones(len(rows), np.int64), [1], attributes
    class_text = without_decimals(class_text)
    if class_text.str.contains(r"^\d+(_\d+)+$").any():
        # iMaterialist 2019: the class, then its attributes.
        attribute_text = class_text.gather(rows).str.extract(r"^\d+_([\d_]+)$").fill_null("").str.replace_all("_", " ")
        attributes = attribute_text.to_numpy()
        class_text = class_text.str.replace(r"^(\d+)(_\d+)+$", "$1")
    # Collect class ids from all rows: a class without objects keeps its label.
    class_texts = [t for t in class_text.unique().to_list() if t.lower() not in NO_OBJECT]
    are_integers = bool(class_texts) and all(re.fullmatch(r"\d+", t) for t in class_texts)
    ids: list[Any] = sorted({int(t) for t in class_texts}) if are_integers else sorted(class_texts)
    label_of = {t: ids.index(int(t) if are_integers else t) + 1 for t in class_texts}
    labels = class_text.gather(rows).replace_strict(label_of, default=0, return_dtype=pl.Int64).to_numpy()
    return labels, ids or [1], attributes


def _attributes(texts: pl.Series) -> np.ndarray:
    """Return attributes separated by blanks: iMaterialist 2020 separates numbers by commas."""
    are_numbers = texts.str.contains(r"^\s*\d+(\s*,\s*\d+)*\s*$")
    return pl.select(pl.when(are_numbers).then(texts.str.replace_all(",", " ")).otherwise(texts)).to_series().to_numpy()


def names_in_column(class_text: pl.Series, name_text: pl.Series, ids: list[Any]) -> dict[Any, str] | None:
    """Return the name of each class id, by columns of class ids and of names. None if an id has several names.

    An id without a name is its name.
    """
    class_text = without_decimals(class_text).str.replace(r"^(\d+)(_\d+)+$", "$1")
    pairs = pl.DataFrame({"id": class_text, "name": name_text.fill_null("")})
    pairs = pairs.filter(~pl.col("id").str.to_lowercase().is_in(NO_OBJECT) & (pl.col("name") != "")).unique()
    if isinstance(ids[0], int):
        pairs = pairs.with_columns(pl.col("id").str.replace(r"^0+(\d)", "$1")).unique()
    if pairs["id"].is_duplicated().any():
        return None
    name_of_text = dict(pairs.iter_rows())
    return {class_id: name_of_text.get(str(class_id), str(class_id)) for class_id in ids}


def without_decimals(class_text: pl.Series) -> pl.Series:
    """Return integer class ids as such: pandas writes those of a column with NaN as 3.0, or as 3,0."""
    return class_text.str.replace(r"^(\d+)[.,]0+$", "$1")


def find_class_names(ids: list[Any], names: Mapping[Any, str] | str | Path | None, has_classes: bool) -> list[str]:
    """Return the name of each class id: in `names`, else the id itself. Raise `UserError` for an id without a name."""
    if names is None:
        return [str(c) for c in ids] if has_classes else [UNNAMED_CLASS]
    if isinstance(names, str | Path):
        names = _read_names(Path(names))
    lookup = {str(k): str(v) for k, v in names.items()}
    missing = [c for c in ids if str(c) not in lookup]
    if missing:
        raise UserError(f"no class name for the id {missing[0]!r} ({len(missing)} missing)")
    return [lookup[str(c)] for c in ids]


def _read_names(path: Path) -> dict[Any, str]:
    """Read ``{"1": "cat"}``, or ``{"categories": [{"id": 1, "name": "cat"}]}`` of iMaterialist and COCO."""
    try:
        content = json.loads(path.read_text("utf-8"))
        if "categories" in content:
            return {c["id"]: c["name"] for c in content["categories"]}
        return dict(content)
    except OSError as error:
        raise UserError(f"cannot read the class names {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f'{path} must be JSON like {{"1": "cat", "2": "dog"}}') from None
