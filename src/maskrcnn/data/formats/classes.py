"""The classes of a table: class texts -> labels, class ids, attributes and class names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from maskrcnn.data.formats.columns import NO_OBJECT, Columns
from maskrcnn.errors import UserError
from maskrcnn.structures import UNNAMED_CLASS

EXAMPLE = '{"1": "cat", "2": "dog"}'
MAX_SHOWN = 12
"""Names or ids in a message."""


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
    are_integers = bool(class_texts) and all(re.fullmatch(r"\d{1,18}", t) for t in class_texts)
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


ClassNames = Mapping[Any, str] | Sequence[str] | str | Path
"""Names by id, names in the order of the sorted ids, or a file of either."""


def find_class_names(ids: list[Any], names: ClassNames | None, has_classes: bool, notes: list[str]) -> list[str]:
    """Return the name of each of the sorted class ids: in `names`, else the id itself.

    A list of names is said in `notes` with the ids. Raise `UserError` for an id without a name, and for a list that has
    not one name for each id.
    """
    if names is None:
        return [str(c) for c in ids] if has_classes else [UNNAMED_CLASS]
    if isinstance(names, str | Path):
        names = _read_names(Path(names))
    if not isinstance(names, Mapping):
        names = _in_order(ids, list(names))
        pairs = [f"{c} = {name}" for c, name in names.items()]
        shown = ", ".join(pairs[:MAX_SHOWN]) + (" ..." if len(pairs) > MAX_SHOWN else "")
        notes.append(f"class names stand for the class ids in sorted order: {shown}")
    lookup = {str(k): str(v) for k, v in names.items()}
    missing = [c for c in ids if str(c) not in lookup]
    if missing:
        raise UserError(f"no class name for the id {missing[0]!r} ({len(missing)} missing)")
    return [lookup[str(c)] for c in ids]


def _in_order(ids: list[Any], names: list[str]) -> dict[Any, str]:
    repeated = sorted({str(name) for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"the class name {repeated[0]!r} is given more than once")
    if len(names) != len(ids):
        shown = ", ".join(map(str, ids[:MAX_SHOWN])) + (" ..." if len(ids) > MAX_SHOWN else "")
        raise UserError(
            f"class names given: {len(names)} ({', '.join(map(str, names[:MAX_SHOWN]))}), class ids: {len(ids)} "
            f"({shown}). Give a name for each id, in sorted order, or a JSON file like {EXAMPLE}"
        )
    return dict(zip(ids, names, strict=True))


def is_file_of_names(word: str) -> bool:
    """Whether a single class name of the command line is rather a file: it exists, or looks like one."""
    path = Path(word)
    return path.is_file() or path.suffix.lower() in (".json", ".txt") or len(path.parts) > 1


def _read_names(path: Path) -> Mapping[Any, str] | list[str]:
    """Read names from JSON or, one on each line, from a text.

    JSON is ``{"1": "cat"}``, ``["cat", ...]``, or the categories of iMaterialist and COCO, ``[{"id": 1, "name":
    "cat"}]`` or ``{"categories": [...]}``.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read the class names {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"the class names {path} are not UTF-8 text") from None
    if path.suffix.lower() != ".json" and not text.lstrip().startswith(("{", "[")):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        content = json.loads(text)
        if isinstance(content, Mapping):
            content = content.get("categories", content)
        if isinstance(content, list):
            if all(isinstance(name, str) for name in content):
                return content
            return {category["id"]: category["name"] for category in content}
        return dict(content)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path} must be JSON like {EXAMPLE}, or a text with one name on each line") from None
