"""Kaggle's run-length CSV in its variants: CSV -> columns -> images -> runs -> `Dataset`.

Each row is one instance (ImageId,EncodedPixels and often more). The class is in its own column, ends the image column
(``name.jpg_3``), or precedes attributes (``6_20_44``). An empty text, NaN or -1 means no object.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from maskrcnn.config import Exif
from maskrcnn.data.formats.assemble import (
    Instances,
    OpenOptions,
    Pictures,
    build_dataset,
    check_sizes,
    find_pictures,
    other_exif,
)
from maskrcnn.data.formats.classes import find_class_names, names_in_column, read_classes
from maskrcnn.data.formats.columns import HEADERS, NO_OBJECT, Columns, find_columns
from maskrcnn.data.formats.mask_column import read_mask_column
from maskrcnn.data.formats.mask_files import existing_files, name_files
from maskrcnn.data.formats.mask_texts import find_cut_cells
from maskrcnn.data.formats.packed import TABLE_SUFFIXES
from maskrcnn.data.formats.separated import PARQUET_SUFFIXES, read_table
from maskrcnn.data.formats.source import Source, is_json
from maskrcnn.data.formats.traits import COMMON, Trait
from maskrcnn.data.pictures import find_folder
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError, counted
from maskrcnn.files import atomic
from maskrcnn.structures import UNNAMED_CLASS

NAME = "a table of run-length masks"
SUFFIXES = (".csv",)
ROLES = frozenset(HEADERS)
HOLDS = COMMON - {Trait.SCORES, Trait.CROWD, Trait.DIVISION}

MASK_FOLDER = "masks"
"""Folder beside a table in which mask files are sought by their names alone, as Open Images' table has them."""

CHANGED_IDS = re.compile(r"\s.*|.*\s|0\d+|\d+[.,]0+|\d+(_\d+)+", re.DOTALL)
"""Class ids that a table reads as others: with blanks around them, zeros before or behind, or attributes."""


def recognizes(source: Source) -> bool:
    """Whether the suffix is that of a table, compressed or not."""
    is_table = source.path.suffix.lower() in (*TABLE_SUFFIXES, *PARQUET_SUFFIXES)
    return is_table and source.path.is_file() and not is_json(source.path)


def holds_masks(path: Path) -> bool:
    """Whether a table has columns of images and masks."""
    with suppress(UserError):
        find_columns(read_table(path, ()).table, path, {})
        return True
    return False


def read(source: Path, options: OpenOptions) -> Dataset:
    """Read the table `source`. Raise `UserError`."""
    separated = read_table(source, options.columns.values())
    table = separated.table
    layout = find_columns(table, source, dict(options.columns))
    notes = [f"{source}: {layout}, {counted(table.height, 'row')}{separated}"]
    image_text = table[layout.image].fill_null("").str.strip_chars()
    class_text = table[layout.class_].fill_null("").str.strip_chars() if layout.class_ else None
    if layout.combined:
        image_text, class_text = split_combined(image_text)

    names, row_image = _unique(image_text)
    folder = find_folder(source, options.images, [(name,) for name in names])
    first_rows = np.unique(row_image, return_index=True)[1]
    texts = table[layout.rle].fill_null("").str.strip_chars()
    is_object = (~texts.str.to_lowercase().is_in(NO_OBJECT)).to_numpy().copy()
    mask_folders = (source.parent, folder, *filter(Path.is_dir, [source.parent / MASK_FOLDER]))
    objects = texts.filter(pl.Series(is_object))
    are_files = name_files(objects)

    def place(row: int) -> str:
        return f"{source}, row {row + separated.first_row}"

    pictures = find_pictures(
        names,
        [place(row) for row in first_rows],
        folder,
        options,
        no_pictures=existing_files(objects, mask_folders) if are_files else frozenset(),
    )
    is_object[_check_sizes(table, layout, row_image, is_object, pictures, options.exif, place)] = False
    rows = np.flatnonzero(is_object & pictures.usable[row_image])
    hw = pictures.sizes[row_image[rows]]
    other_hw = pictures.sizes_of(other_exif(options.exif))[row_image[rows]]
    column = read_mask_column(
        texts.gather(rows),
        hw,
        options.numbering,
        are_files=are_files,
        hw_of_option={} if np.array_equal(hw, other_hw) else {f"--exif {other_exif(options.exif)}": other_hw},
        folders=mask_folders,
        exif=options.exif,
    )
    if column.note is not None:
        notes.append(f"every text of {layout.rle} {column.note}")
    if options.numbering.order == "row" and column.is_numbered:
        notes.append("runs are read along the rows")
    fault_of_cut_row = find_cut_cells(table[layout.rle])
    problems = pictures.problems
    for item in column.bad:
        row = int(rows[item.index])
        message = f"{layout.rle} of {names[row_image[row]]}: {item.message}"
        if cut := fault_of_cut_row.pop(row, None):
            message += f"; {cut}"
        problems.append(Problem(Kind.BAD_ROW, place(row), message))
    labels, class_ids, attributes = read_classes(class_text, table, layout, rows)
    for row in rows[labels == 0].tolist():
        problems.append(Problem(Kind.BAD_ROW, place(row), f"the mask of {names[row_image[row]]} has no class"))
    warnings = []
    if column.advice is not None:
        message, option = column.advice
        warnings.append(Problem(Kind.IN_PIECES, str(source), message, option=option))
    for row, fault in fault_of_cut_row.items():
        warnings.append(Problem(Kind.CUT, place(row), f"{layout.rle} of {names[row_image[row]]}: {fault}"))
    is_valid = np.ones(len(rows), bool)
    names_of_ids = options.class_names
    if names_of_ids is None and layout.class_name and class_text is not None:
        names_of_ids = names_in_column(class_text, table[layout.class_name], class_ids)
        if names_of_ids is None:
            notes.append(
                f"{layout.class_name} has several names for one class, so that classes keep their ids as names"
            )
    has_classes = layout.class_ is not None or layout.combined
    return build_dataset(
        source,
        pictures,
        Instances(row_image[rows], labels, column.masks, rows + separated.first_row, is_valid, attributes),
        class_ids,
        find_class_names(class_ids, names_of_ids, has_classes, notes),
        options,
        notes=notes,
        warnings=warnings,
        hint=column.hint,
        is_numbered=column.is_numbered,
    )


def write(data: Dataset, target: Path) -> None:
    """Write ImageId,EncodedPixels,Height,Width and, where the data has them, ClassId, ClassName and AttributesIds.

    A row without runs stands for an image without objects, and on the first image for a class without objects.
    """
    ids = _written_ids(data)
    has_classes = ids != [1] or data.class_names != [UNNAMED_CLASS]
    has_names = has_classes and data.class_names != [str(i) for i in ids]
    has_attributes = data.attributes is not None and any(data.attributes)
    is_written = (True,) * 4 + (has_classes, has_names, has_attributes)
    header = ("ImageId", "EncodedPixels", "Height", "Width", "ClassId", "ClassName", "AttributesIds")
    with atomic(target) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in chain([header], _rows(data, ids)):
            writer.writerow([cell for cell, is_in in zip(row, is_written, strict=True) if is_in])


def _written_ids(data: Dataset) -> list[Any]:
    """Return the class ids of `data` if a table reads them as they are, else 1, 2, ..."""
    texts = [str(i) for i in data.class_ids]
    are_numbers = [text.isascii() and text.isdigit() for text in texts]
    is_uniform = len(set(texts)) == len(texts) and (all(are_numbers) or not any(are_numbers))
    if is_uniform and not any(text.lower() in NO_OBJECT or CHANGED_IDS.fullmatch(text) for text in texts):
        return data.class_ids
    return list(range(1, len(texts) + 1))


def _rows(data: Dataset, ids: list[Any]) -> Iterator[tuple[Any, ...]]:
    for i, name in enumerate(data.names):
        for k, mask in enumerate(data.rles(i), data.instances(i).start):
            label = data.labels[k] - 1
            attributes = "" if data.attributes is None else data.attributes[k]
            yield name, mask.to_encoded_pixels(), *data.hw(i), ids[label], data.class_names[label], attributes
        if not data.counts[i]:
            yield name, "", *data.hw(i), "", "", ""
    for label in np.setdiff1d(np.arange(len(ids) if len(data) else 0), data.labels - 1):
        yield data.names[0], "", *data.hw(0), ids[label], data.class_names[label], ""


# ---- columns ------------------------------------------------------------------------------------------------------


def split_combined(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Split ``name.jpg_3`` into ``name.jpg`` and ``3``. A text without an underscore is an image without a class."""
    parts = column.str.extract_groups(r"^(.*)_([^_]*)$").struct.unnest()
    return parts["1"].fill_null(column), parts["2"].fill_null("")


def _unique(column: pl.Series) -> tuple[list[str], np.ndarray]:
    """Return the distinct texts in order of appearance, and each row's index into them."""
    distinct = column.unique(maintain_order=True)
    lookup = pl.DataFrame({"text": distinct, "index": np.arange(len(distinct))})
    joined = pl.DataFrame({"text": column}).join(lookup, on="text", how="left", maintain_order="left")
    return distinct.to_list(), joined["index"].to_numpy()


# ---- sizes --------------------------------------------------------------------------------------------------------


def _check_sizes(
    table: pl.DataFrame,
    layout: Columns,
    row_image: np.ndarray,
    is_object: np.ndarray,
    pictures: Pictures,
    exif: Exif,
    place: Callable[[int], str],
) -> np.ndarray:
    """Compare the sizes in the table, if any, with those of the pictures, and return the rows that alone are wrong."""
    if not (layout.height and layout.width):
        return np.empty(0, np.int64)
    headers = layout.height, layout.width
    columns = [table[name].fill_null("").str.strip_chars() for name in headers]
    # A table with decimal commas has another separator.
    numbers = [c.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False).fill_null(-1) for c in columns]
    stated = np.stack([n.to_numpy() for n in numbers], 1)
    stated[np.stack([c.is_in(NO_OBJECT).to_numpy() for c in columns], 1)] = np.nan

    def text(row: int) -> str:
        cells = ", ".join(repr(table[name][row]) for name in headers)
        return f"{layout.height}, {layout.width} are {cells}"

    swap_option = f"--column height={layout.width} --column width={layout.height}"
    n_masks = np.bincount(row_image[is_object], minlength=len(pictures.names))
    return check_sizes(
        pictures, row_image, stated, exif, n_masks=n_masks, place=place, text=text, swap_option=swap_option
    )
