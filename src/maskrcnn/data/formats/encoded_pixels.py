"""Kaggle's run-length CSV in its variants: CSV -> columns -> images -> runs -> `Dataset`.

Each row is one instance (ImageId,EncodedPixels and often more). The class is in its own column, ends the image column
(``name.jpg_3``), or precedes attributes (``6_20_44``). An empty text, NaN or -1 means no object.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from maskrcnn.data.depth import find_reading
from maskrcnn.data.formats.columns import NO_OBJECT, Columns, find_columns
from maskrcnn.data.formats.separated import SEPARATORS, read_table
from maskrcnn.data.images import Header, read_each, read_header
from maskrcnn.data.pictures import find_folder, image_files, locate
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.reading import Exif
from maskrcnn.data.table import UNNAMED_CLASS, Dataset
from maskrcnn.errors import ImageError, UserError
from maskrcnn.files import atomic
from maskrcnn.kernels.runs import transpose_runs
from maskrcnn.rle import RLE, BadRuns, RunTable, parse_column

MAX_SHOWN_PROBLEMS = 8


def read(
    source: Path,
    folder: Path | None,
    *,
    columns: dict[str, str],
    class_names: Mapping[Any, str] | str | Path | None,
    order: Literal["column", "row"],
    origin: Literal[0, 1],
    relative: bool,
    unlisted: Literal["ignore", "empty"],
    bad: Literal["error", "skip"],
    depth: int | None,
    exif: Exif,
) -> Dataset:
    """Read `source`. `open_dataset` explains the options."""
    table, separator = read_table(source, columns.values())
    layout = find_columns(table, source, columns)
    folder = find_folder(source, folder)
    notes = [f"{source}: {layout}, {table.height:,} rows"]
    if separator != ",":
        notes[0] += f", columns separated by {SEPARATORS[separator]}"
    image_text = table[layout.image].fill_null("").str.strip_chars()
    class_text = table[layout.class_].fill_null("").str.strip_chars() if layout.class_ else None
    if layout.combined:
        image_text, class_text = split_combined(image_text)

    names, row_image = _unique(image_text)
    first_rows = np.unique(row_image, return_index=True)[1] + 2
    paths = image_files(folder)
    files, problems = locate(names, first_rows, paths, folder, source)
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
    texts = table[layout.rle].fill_null("").str.strip_chars()
    is_object = (~texts.str.to_lowercase().is_in(NO_OBJECT)).to_numpy()
    usable_image = np.array([f is not None for f in files], bool) & (sizes[:, 0] > 0)
    rows = np.flatnonzero(is_object & usable_image[row_image])
    hw = sizes[row_image[rows]]
    masks, bad_runs, hint = _parse_masks(texts.gather(rows), hw.prod(1), origin, relative)
    for item in bad_runs:
        row = int(rows[item.index])
        message = f"{layout.rle} of {names[row_image[row]]}: {item.message}"
        problems.append(Problem(Kind.BAD_ROW, f"{source}, row {row + 2}", message))
    if order == "row":
        masks = RunTable.of(transpose_runs(masks[i], int(hw[i, 0]), int(hw[i, 1])) for i in range(len(masks)))
        notes.append("runs are read along the rows")

    labels, class_ids, attributes = _read_classes(class_text, table, layout, rows)
    usable = labels > 0
    for row in rows[~usable].tolist():
        message = f"the mask of {names[row_image[row]]} has no class"
        problems.append(Problem(Kind.BAD_ROW, f"{source}, row {row + 2}", message))
    usable[[item.index for item in bad_runs]] = False
    _report_problems(problems, unreadable, bad, hint, source, notes)

    images = np.flatnonzero(usable_image)
    image_index = (np.cumsum(usable_image) - 1)[row_image[rows]]
    selected = np.flatnonzero(usable)
    selected = selected[np.argsort(image_index[selected], kind="stable")]
    if len(images) == 0:
        raise UserError(f"{source}: none of its {len(names)} images can be read from {folder}")
    usable_files = [f for i in images if (f := files[i]) is not None]
    modes = [header.mode for i in images if (header := headers[i]) is not None]
    reading, reading_notes = find_reading(usable_files, modes, depth, exif)
    notes += reading_notes
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
        class_names=_find_class_names(class_ids, class_names, layout.class_ is not None or layout.combined),
        attributes=None if attributes is None else attributes[selected],
        reading=reading,
        notes=notes,
        problems=[*problems, *unreadable],
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


def _read_classes(
    class_text: pl.Series | None, table: pl.DataFrame, layout: Columns, rows: np.ndarray
) -> tuple[np.ndarray, list[Any], np.ndarray | None]:
    """Return the 1-based labels of `rows` (0: no class), the sorted class ids, and the attributes if there are any."""
    attributes = None
    if layout.attributes:
        attributes = table[layout.attributes].fill_null("").gather(rows).str.replace_all(",", " ").to_numpy()
    if class_text is None:
        return np.ones(len(rows), np.int64), [1], attributes
    # Pandas writes integers in a column with NaN as 3.0, or as 3,0.
    class_text = class_text.str.replace(r"^(\d+)[.,]0+$", "$1")
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


def _find_class_names(ids: list[Any], names: Mapping[Any, str] | str | Path | None, has_classes: bool) -> list[str]:
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
    other_exif: Exif = "ignore" if exif == "turn" else "turn"
    problems = []
    for row in mismatched[np.sort(first_of_image)].tolist():
        i = row_image[row]
        h, w = sizes[i].tolist()
        cells = ", ".join(repr(table[c][row]) for c in (layout.height, layout.width))
        message = f"{layout.height}, {layout.width} are {cells}, but the image {files[i]} is {h} high and {w} wide"
        header = headers[i]
        if header is not None and header.is_turned and (csv_sizes[row] == header.hw(other_exif)).all():
            state = "as its EXIF orientation turns it" if exif == "turn" else "without its EXIF orientation"
            message += f" {state}. If masks were drawn on the other reading, pass --exif {other_exif}"
        problems.append(Problem(Kind.SIZE, f"{source}, row {row + 2}", message))
    sizes[np.unique(row_image[mismatched])] = 0
    return problems


# ---- runs ---------------------------------------------------------------------------------------------------------

DIALECTS = (
    (re.compile(r"[][(){}]"), "The runs are lists in brackets: write the numbers alone, with spaces between them"),
    (re.compile(r"\d,\d+\s+\d+,\d"), "The numbers have decimal commas: write integers, such as 1 for 1,0"),
    (re.compile(r"\d,\s*\d"), "Commas separate the numbers: write spaces instead"),
    (re.compile(r"\d\.\d"), "The numbers have decimal points: write integers, such as 1 for 1.0"),
)
"""What runs of other programs look like, and how to make them EncodedPixels."""


def _parse_masks(
    texts: pl.Series, n_pixels: np.ndarray, origin: Literal[0, 1], relative: bool
) -> tuple[RunTable, list[BadRuns], str]:
    """Return the masks, the malformed texts, and a hint at an option that makes every row valid, or at a dialect."""
    raw = np.frombuffer(texts.str.join("").item().encode() if len(texts) else b"", np.uint8)
    offsets = np.concatenate([[0], np.cumsum(texts.str.len_bytes().to_numpy(), dtype=np.int64)])
    masks, bad = parse_column(raw, offsets, n_pixels, origin=origin, relative=relative)
    if bad and not relative:
        for option, other_origin, other_relative in (("--origin 0", 0, False), ("--relative", origin, True)):
            if not parse_column(raw, offsets, n_pixels, origin=other_origin, relative=other_relative)[1]:
                return masks, bad, f"; every row is valid with {option}"
    for item in bad[:1]:
        for pattern, hint in DIALECTS:
            if pattern.search(texts[item.index]):
                return masks, bad, f". {hint}"
    return masks, bad, ""


def _report_problems(
    problems: list[Problem], unreadable: list[Problem], bad: str, hint: str, source: Path, notes: list[str]
) -> None:
    """Raise `UserError` for problems if `bad` is "error". Otherwise note skipped problems and unreadable images."""
    if problems and bad == "error":
        listing = "\n".join(f"  {p}" for p in problems[:MAX_SHOWN_PROBLEMS])
        n_hidden = len(problems) - MAX_SHOWN_PROBLEMS
        more = f"\n  ... and {n_hidden:,} more" if n_hidden > 0 else ""
        raise UserError(
            f"{source} has {len(problems):,} problem{'s' if len(problems) > 1 else ''}:\n{listing}{more}\n"
            f"`maskrcnn check --all-problems` lists them all; --bad skip leaves them out{hint}"
        )
    for kind, items in (("problem", problems), ("unreadable image", unreadable)):
        if items:
            notes.append(f"skipped {len(items):,} {kind}{'s' if len(items) > 1 else ''}, such as {items[0]}")


def _join_names(names: Sequence[str], max_names: int = 12) -> str:
    return ", ".join(names[:max_names]) + (f" and {len(names) - max_names} more" if len(names) > max_names else "")
