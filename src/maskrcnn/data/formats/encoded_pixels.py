"""Kaggle's run-length CSV in its variants: CSV -> columns -> images -> runs -> `Dataset`.

Each row is one instance (ImageId,EncodedPixels and often more). The class is in its own column, ends the image column
(``name.jpg_3``), or precedes attributes (``6_20_44``). An empty text, NaN or -1 means no object.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
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
from maskrcnn.data.formats.classes import find_class_names, read_classes
from maskrcnn.data.formats.columns import NO_OBJECT, Columns, find_columns
from maskrcnn.data.formats.mask_column import read_mask_column
from maskrcnn.data.formats.mask_files import existing_files, name_files
from maskrcnn.data.formats.mask_texts import find_cut_cells
from maskrcnn.data.formats.separated import PARQUET_SUFFIXES, read_table
from maskrcnn.data.formats.source import Source
from maskrcnn.data.pictures import find_folder
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.files import atomic
from maskrcnn.rle import RLE

NAME = "a table of run-length masks"
SUFFIXES = (".csv", ".tsv", ".txt", ".gz", ".zip")


def recognizes(source: Source) -> bool:
    """Whether the suffix is that of a table, compressed or not."""
    return source.path.is_file() and source.path.suffix.lower() in (*SUFFIXES, *PARQUET_SUFFIXES)


def read(source: Path, options: OpenOptions) -> Dataset:
    """Read the table `source`. Raise `UserError`."""
    separated = read_table(source, options.columns.values())
    table = separated.table
    layout = find_columns(table, source, dict(options.columns))
    folder = find_folder(source, options.images)
    notes = [f"{source}: {layout}, {table.height:,} rows{separated}"]
    image_text = table[layout.image].fill_null("").str.strip_chars()
    class_text = table[layout.class_].fill_null("").str.strip_chars() if layout.class_ else None
    if layout.combined:
        image_text, class_text = split_combined(image_text)

    names, row_image = _unique(image_text)
    first_rows = np.unique(row_image, return_index=True)[1]
    texts = table[layout.rle].fill_null("").str.strip_chars()
    is_object = (~texts.str.to_lowercase().is_in(NO_OBJECT)).to_numpy()
    mask_folders = (source.parent, folder)
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
    _check_sizes(table, layout, row_image, pictures, options.exif, place)
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
    warnings = [] if column.advice is None else [Problem(Kind.IN_PIECES, str(source), column.advice)]
    for row, fault in fault_of_cut_row.items():
        warnings.append(Problem(Kind.CUT, place(row), f"{layout.rle} of {names[row_image[row]]}: {fault}"))
    is_valid = np.ones(len(rows), bool)
    has_classes = layout.class_ is not None or layout.combined
    return build_dataset(
        source,
        pictures,
        Instances(row_image[rows], labels, column.masks, rows + separated.first_row, is_valid, attributes),
        class_ids,
        find_class_names(class_ids, options.class_names, has_classes),
        options,
        notes=notes,
        warnings=warnings,
        hint=column.hint,
        is_numbered=column.is_numbered,
    )


def write(path: str | Path, rows: Sequence[tuple[str, RLE | None, Any]], with_class: bool) -> None:
    """Write ImageId,EncodedPixels[,ClassId] with one row per (image, mask or None, class id).

    Raise `RuntimeError`, and write nothing, if a mask changes when it is encoded and decoded.
    """
    lines: list[list[Any]] = [["ImageId", "EncodedPixels"] + ["ClassId"] * with_class]
    for image, mask, class_id in rows:
        text = "" if mask is None else mask.to_encoded_pixels()
        if mask is not None and RLE.from_encoded_pixels(text, mask.hw) != mask:
            raise RuntimeError(f"{path}: the mask of {image} changes when encoded and decoded; nothing was written")
        lines.append([image, text] + ["" if mask is None else class_id] * with_class)
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


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
    pictures: Pictures,
    exif: Exif,
    place: Callable[[int], str],
) -> None:
    """Compare the sizes in the table, if any, with those of the pictures."""
    if not (layout.height and layout.width):
        return
    headers = layout.height, layout.width
    columns = [table[name].fill_null("").str.strip_chars() for name in headers]
    # A table with decimal commas has another separator.
    numbers = [c.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False).fill_null(-1) for c in columns]
    stated = np.stack([n.to_numpy() for n in numbers], 1)
    stated[np.stack([c.is_in(NO_OBJECT).to_numpy() for c in columns], 1)] = np.nan

    def text(row: int) -> str:
        cells = ", ".join(repr(table[name][row]) for name in headers)
        return f"{layout.height}, {layout.width} are {cells}"

    swap_advice = f"pass --column height={layout.width} --column width={layout.height}"
    check_sizes(pictures, row_image, stated, exif, place=place, text=text, swap_advice=swap_advice)
