"""Kaggle's run-length CSV in its variants: CSV -> columns -> images -> runs -> `Dataset`.

Each row is one instance (ImageId,EncodedPixels and often more). The class is in its own column, ends the image column
(``name.jpg_3``), or precedes attributes (``6_20_44``). An empty text, NaN or -1 means no object.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from maskrcnn.config import Exif
from maskrcnn.data.depth import find_reading
from maskrcnn.data.formats.classes import ClassNames, find_class_names, read_classes
from maskrcnn.data.formats.columns import NO_OBJECT, Columns, find_columns
from maskrcnn.data.formats.mask_column import read_mask_column
from maskrcnn.data.formats.mask_files import existing_files, name_files
from maskrcnn.data.formats.mask_texts import Numbering, find_cut_cells
from maskrcnn.data.formats.separated import read_table
from maskrcnn.data.images import Header, read_each, read_header
from maskrcnn.data.pictures import describe_pages, find_folder, image_files, locate
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.errors import ImageError, UserError
from maskrcnn.files import atomic
from maskrcnn.rle import RLE

MAX_SHOWN_PROBLEMS, MAX_EXAMPLES = 8, 3


def read(
    source: Path,
    folder: Path | None,
    *,
    columns: dict[str, str],
    class_names: ClassNames | None,
    order: Literal["column", "row"],
    origin: Literal[0, 1],
    relative: bool,
    unlisted: Literal["ignore", "empty"],
    bad: Literal["error", "skip"],
    depth: int | None,
    exif: Exif,
) -> Dataset:
    """Read `source`. `open_dataset` explains the options."""
    separated = read_table(source, columns.values())
    table = separated.table
    layout = find_columns(table, source, columns)
    folder = find_folder(source, folder)
    notes = [f"{source}: {layout}, {table.height:,} rows{separated}"]
    image_text = table[layout.image].fill_null("").str.strip_chars()
    class_text = table[layout.class_].fill_null("").str.strip_chars() if layout.class_ else None
    if layout.combined:
        image_text, class_text = split_combined(image_text)

    names, row_image = _unique(image_text)
    first_rows = np.unique(row_image, return_index=True)[1] + 2
    texts = table[layout.rle].fill_null("").str.strip_chars()
    is_object = (~texts.str.to_lowercase().is_in(NO_OBJECT)).to_numpy()
    paths, mask_folders = image_files(folder), (source.parent, folder)
    objects = texts.filter(pl.Series(is_object)).to_list()
    if are_files := name_files(objects):
        mask_files = existing_files(objects, mask_folders)
        paths = [path for path in paths if path.resolve() not in mask_files]
    files, problems, name_notes = locate(names, first_rows, paths, folder, source)
    notes += name_notes
    unlisted_files = sorted(set(paths) - {f for f in files if f is not None})
    if unlisted_files and unlisted == "empty":
        names = [*names, *(str(f.relative_to(folder)) for f in unlisted_files)]
        files = [*files, *unlisted_files]
    if unlisted_files:
        action = "kept as images without objects" if unlisted == "empty" else "left out"
        notes.append(f"{folder}: images that are not in the CSV ({len(unlisted_files):,}) are {action}")

    headers, unreadable = _read_headers(files)
    sizes = np.array([(0, 0) if h is None else h.hw(exif) for h in headers], np.int64)
    problems += _check_sizes(table, layout, row_image, files, headers, sizes, exif, source)
    usable_image = np.array([f is not None for f in files], bool) & (sizes[:, 0] > 0)
    rows = np.flatnonzero(is_object & usable_image[row_image])
    hw = sizes[row_image[rows]]
    other_exif = _other(exif)
    other_hw = np.array([(0, 0) if h is None else h.hw(other_exif) for h in headers], np.int64)[row_image[rows]]
    column = read_mask_column(
        texts.gather(rows),
        hw,
        Numbering(order, origin, relative),
        are_files=are_files,
        hw_of_option={} if np.array_equal(hw, other_hw) else {f"--exif {other_exif}": other_hw},
        folders=mask_folders,
        exif=exif,
    )
    masks = column.masks
    if column.note is not None:
        notes.append(f"every text of {layout.rle} {column.note}")
    fault_of_cut_row = find_cut_cells(table[layout.rle])
    for item in column.bad:
        row = int(rows[item.index])
        message = f"{layout.rle} of {names[row_image[row]]}: {item.message}"
        if cut := fault_of_cut_row.pop(row, None):
            message += f"; {cut}"
        problems.append(Problem(Kind.BAD_ROW, f"{source}, row {row + 2}", message))
    if order == "row" and column.is_numbered:
        notes.append("runs are read along the rows")

    labels, class_ids, attributes = read_classes(class_text, table, layout, rows)
    usable = labels > 0
    for row in rows[~usable].tolist():
        message = f"the mask of {names[row_image[row]]} has no class"
        problems.append(Problem(Kind.BAD_ROW, f"{source}, row {row + 2}", message))
    usable &= masks.areas > 0  # malformed, or a mask file without an object
    _report_problems(problems, unreadable, bad, column.hint, source, notes)

    images = np.flatnonzero(usable_image)
    image_index = (np.cumsum(usable_image) - 1)[row_image[rows]]
    selected = np.flatnonzero(usable)
    selected = selected[np.argsort(image_index[selected], kind="stable")]
    if len(images) == 0:
        reasons = "".join(f"\n  {problem}" for problem in [*problems, *unreadable][:MAX_EXAMPLES])
        raise UserError(f"{source}: none of its {len(names)} images can be read from {folder}{reasons}")
    warnings = _find_warnings(usable, column.advice, source)
    for row, fault in fault_of_cut_row.items():
        message = f"{layout.rle} of {names[row_image[row]]}: {fault}"
        warnings.append(Problem(Kind.CUT, f"{source}, row {row + 2}", message))
    notes += _describe_warnings(warnings)
    usable_files = [f for i in images if (f := files[i]) is not None]
    modes = [header.mode for i in images if (header := headers[i]) is not None]
    reading, reading_notes = find_reading(usable_files, modes, depth, exif)
    notes += reading_notes
    n_pages_of_name = {names[i]: header.n_pages for i in images if (header := headers[i]) is not None}
    if page_note := describe_pages(n_pages_of_name):
        notes.append(page_note)
    data = Dataset(
        source=source,
        names=[names[i] for i in images],
        files=usable_files,
        sizes=sizes[images],
        image_index=image_index[selected],
        labels=labels[selected],
        masks=masks.take(selected) if not np.array_equal(selected, np.arange(len(masks))) else masks,
        rows=rows[selected] + 2,
        class_ids=class_ids,
        class_names=find_class_names(class_ids, class_names, layout.class_ is not None or layout.combined, notes),
        attributes=None if attributes is None else attributes[selected],
        is_numbered=column.is_numbered,
        reading=reading,
        notes=notes,
        problems=[*problems, *unreadable, *warnings],
    )
    empty = int((data.counts == 0).sum())
    notes.append(
        f"{len(data):,} images ({empty:,} without objects), {data.n_instances:,} instances, "
        f"{len(class_ids)} class{'es' if len(class_ids) != 1 else ''}: {_join_names(data.class_names)}"
    )
    return data


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


# ---- images -------------------------------------------------------------------------------------------------------


def _read_headers(files: list[Path | None]) -> tuple[list[Header | None], list[Problem]]:
    """Return the header of each file, None if unusable, and the unreadable images."""
    located = [i for i, f in enumerate(files) if f is not None]
    headers: list[Header | None] = [None] * len(files)
    unreadable = []
    for i, header in zip(located, read_each(read_header, [f for f in files if f is not None]), strict=True):
        if isinstance(header, ImageError):
            unreadable.append(Problem(Kind.UNREADABLE, "unreadable image", str(header)))
        else:
            headers[i] = header
    return headers, unreadable


def _other(exif: Exif) -> Exif:
    return "ignore" if exif == "turn" else "turn"


def _check_sizes(
    table: pl.DataFrame,
    layout: Columns,
    row_image: np.ndarray,
    files: list[Path | None],
    headers: list[Header | None],
    sizes: np.ndarray,
    exif: Exif,
    source: Path,
) -> list[Problem]:
    """Return the images whose size in the CSV, if any, is not that of `sizes` (n, 2). Theirs become 0 0."""
    if not (layout.height and layout.width):
        return []
    columns = [table[name].fill_null("").str.strip_chars() for name in (layout.height, layout.width)]
    # A table with decimal commas has another separator.
    numbers = [c.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False).fill_null(-1) for c in columns]
    csv_sizes = np.stack([n.to_numpy() for n in numbers], 1)
    is_blank = np.stack([c.is_in(NO_OBJECT).to_numpy() for c in columns], 1)  # not compared
    readable = (sizes[:, 0] > 0)[row_image]
    mismatched = np.flatnonzero(readable & ((csv_sizes != sizes[row_image]) & ~is_blank).any(1))
    _, first_of_image = np.unique(row_image[mismatched], return_index=True)
    other_exif = _other(exif)
    problems = []
    for row in mismatched[np.sort(first_of_image)].tolist():
        i = row_image[row]
        h, w = sizes[i].tolist()
        cells = ", ".join(repr(table[c][row]) for c in (layout.height, layout.width))
        message = f"{layout.height}, {layout.width} are {cells}, but the image {files[i]} is {h} high and {w} wide"
        header = headers[i]
        is_swapped = h != w and (csv_sizes[row] == (w, h)).all()
        if header is not None and header.is_turned and (csv_sizes[row] == header.hw(other_exif)).all():
            state = "as its EXIF orientation turns it" if exif == "turn" else "without its EXIF orientation"
            message += f" {state}. If masks were drawn on the other reading, pass --exif {other_exif}"
        elif is_swapped:
            swap = f"--column height={layout.width} --column width={layout.height}"
            message += f". The two are swapped: pass {swap}"
        problems.append(Problem(Kind.SIZE, f"{source}, row {row + 2}", message))
    sizes[np.unique(row_image[mismatched])] = 0
    return problems


# ---- problems -----------------------------------------------------------------------------------------------------


def _report_problems(
    problems: list[Problem], unreadable: list[Problem], bad: str, hint: str, source: Path, notes: list[str]
) -> None:
    """Raise `UserError` for problems if `bad` is "error". Otherwise note skipped problems and unreadable images.

    `hint`, the end of a message, is about all problems.
    """
    if problems and bad == "error":
        listing = "\n".join(f"  {p}" for p in problems[:MAX_SHOWN_PROBLEMS])
        n_hidden = len(problems) - MAX_SHOWN_PROBLEMS
        more = f"\n  ... and {n_hidden:,} more" if n_hidden > 0 else ""
        raise UserError(
            f"{source} has {len(problems):,} problem{'s' if len(problems) > 1 else ''}:\n{listing}{more}\n"
            f"`maskrcnn check --all-problems` lists them all; --bad skip leaves them out{hint}"
        )
    for kind, items, end in (("problem", problems, hint), ("unreadable image", unreadable, "")):
        if items:
            notes.append(f"skipped {len(items):,} {kind}{'s' if len(items) > 1 else ''}, such as {items[0]}{end}")


def _find_warnings(usable: np.ndarray, better_reading: str | None, source: Path) -> list[Problem]:
    """Return what makes the data as a whole implausible, though each row is valid."""
    warnings = []
    if not usable.any():
        warnings.append(
            Problem(Kind.NO_OBJECTS, str(source), "no image has an object, so there is nothing to learn or to score")
        )
    if better_reading is not None:
        warnings.append(Problem(Kind.IN_PIECES, str(source), better_reading))
    return warnings


def _describe_warnings(warnings: list[Problem]) -> list[str]:
    """Return a line for each kind of warning, with its first place."""
    of_kind: dict[Kind, list[Problem]] = {}
    for warning in warnings:
        of_kind.setdefault(warning.kind, []).append(warning)
    lines = []
    for first, *others in of_kind.values():
        rows = "row" if len(others) == 1 else "rows"
        lines.append(f"warning: {first}" + (f"; {len(others):,} more {rows} like it" if others else ""))
    return lines


def _join_names(names: Sequence[str], max_names: int = 12) -> str:
    return ", ".join(names[:max_names]) + (f" and {len(names) - max_names} more" if len(names) > max_names else "")
