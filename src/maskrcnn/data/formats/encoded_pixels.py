"""Kaggle's run-length CSV in the shapes that competitions gave it: sniff -> columns -> images -> runs -> `Dataset`.

One row an instance (ImageId,EncodedPixels and often more), several rows an image; a class beside it, inside the image
column (``name.jpg_3``) or with attributes behind it (``6_20_44``); no object as an empty text, NaN or -1.
"""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from maskrcnn.data.formats.columns import NO_OBJECT, Columns, find_columns
from maskrcnn.data.images import SUFFIXES, ImageError, read_sizes
from maskrcnn.data.table import Dataset, Problem
from maskrcnn.errors import UserError
from maskrcnn.files import atomic
from maskrcnn.kernels.runs import transpose_runs
from maskrcnn.rle import RLE, BadRuns, RunTable, parse_column

SHOWN = 8


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
) -> Dataset:
    """Read `source`; see `open_dataset` for the options."""
    table = _read_csv(source)
    found = find_columns(table, source, columns)
    folder = _find_folder(source, folder)
    notes = [f"{source}: {found}, {table.height:,} rows"]
    image_text = table[found.image].fill_null("").str.strip_chars()
    class_text = table[found.class_].fill_null("").str.strip_chars() if found.class_ else None
    if found.combined:
        image_text, class_text = _split_combined(image_text)

    names, row_image = _unique(image_text)
    problems: list[Problem] = []
    files = _locate(names, row_image, folder, source, problems)
    extra = sorted(set(_images_of(folder)) - {f for f in files if f is not None})
    if extra and unlisted == "empty":
        names = [*names, *(str(f.relative_to(folder)) for f in extra)]
        files = [*files, *extra]
    if extra:
        what = "kept as images without objects" if unlisted == "empty" else "left out"
        notes.append(f"{folder}: {len(extra):,} images that the CSV lacks are {what}")

    sizes, unreadable = _sizes(table, found, row_image, files, source, problems)
    texts = table[found.rle].fill_null("").str.strip_chars()
    is_object = (~texts.str.to_lowercase().is_in(NO_OBJECT)).to_numpy()
    usable_image = np.array([f is not None for f in files], bool) & (sizes[:, 0] > 0)
    rows = np.flatnonzero(is_object & usable_image[row_image])
    n_pixels = sizes[row_image[rows]].prod(1)
    masks, bad_runs, hint = _parse(texts.gather(rows), n_pixels, origin, relative)
    for item in bad_runs:
        row = int(rows[item.index])
        problems.append(Problem(f"{source}, row {row + 2}", f"{found.rle} of {names[row_image[row]]}: {item.message}"))
    if order == "row":
        hw = sizes[row_image[rows]]
        masks = RunTable.of(transpose_runs(masks[i], int(hw[i, 0]), int(hw[i, 1])) for i in range(len(masks)))
        notes.append("runs count along the rows, as asked")

    labels, class_ids, attributes = _classes(class_text, table, found, rows)
    usable = labels > 0
    for row in rows[~usable].tolist():
        problems.append(Problem(f"{source}, row {row + 2}", f"the mask of {names[row_image[row]]} has no class"))
    usable[[item.index for item in bad_runs]] = False
    _settle(problems, unreadable, bad, hint, source, notes)

    images = np.flatnonzero(usable_image)
    position = np.full(len(names), -1, np.int64)
    position[images] = np.arange(len(images))
    image_index = position[row_image[rows]]
    chosen = np.flatnonzero(usable)
    chosen = chosen[np.argsort(image_index[chosen], kind="stable")]
    if len(images) == 0:
        raise UserError(f"{source}: none of its {len(names)} images can be read in {folder}")
    data = Dataset(
        source=source,
        names=[names[i] for i in images],
        files=[f for i in images if (f := files[i]) is not None],
        sizes=sizes[images],
        image_index=image_index[chosen],
        labels=labels[chosen],
        masks=masks.take(chosen) if not np.array_equal(chosen, np.arange(len(masks))) else masks,
        rows=rows[chosen] + 2,
        class_ids=class_ids,
        class_names=_names_of(class_ids, class_names, found.class_ is not None or found.combined),
        attributes=None if attributes is None else attributes[chosen],
        notes=notes,
        problems=[*problems, *unreadable],
    )
    empty = int((data.counts == 0).sum())
    notes.append(
        f"{len(data):,} images ({empty:,} without objects), {data.n_instances:,} instances, "
        f"{len(class_ids)} class{'es' if len(class_ids) != 1 else ''}: {_listed(data.class_names)}"
    )
    return data


def write(path: str | Path, rows: Sequence[tuple[str, RLE | None, Any]], with_class: bool) -> None:
    """Write ImageId,EncodedPixels[,ClassId], a row for each (image, mask or None, class id).

    Every mask is read back from its text and compared before anything is written.
    """
    lines: list[list[Any]] = [["ImageId", "EncodedPixels"] + ["ClassId"] * with_class]
    for image, mask, class_id in rows:
        text = "" if mask is None else mask.to_encoded_pixels()
        if mask is not None and RLE.from_encoded_pixels(text, mask.hw) != mask:
            raise RuntimeError(f"{path}: the mask of {image} does not survive its own encoding; nothing was written")
        lines.append([image, text] + ["" if mask is None else class_id] * with_class)
    with atomic(path) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


# ---- columns ------------------------------------------------------------------------------------------------------


def _read_csv(source: Path) -> pl.DataFrame:
    try:
        table = pl.read_csv(source, infer_schema=False, separator="\t" if ".tsv" in source.name.lower() else ",")
    except Exception as error:
        # Polars has an exception of its own for each kind of malformed file.
        raise UserError(f"{source} cannot be read as a CSV file: {str(error).splitlines()[0]}") from None
    if table.height == 0:
        raise UserError(f"{source} has a header and no rows")
    return table


def _split_combined(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """``name.jpg_3`` -> ``name.jpg``, ``3``; a text without an underscore is all image and has no class."""
    parts = column.str.extract_groups(r"^(.*)_([^_]*)$").struct.unnest()
    return parts["1"].fill_null(column), parts["2"].fill_null("")


def _unique(column: pl.Series) -> tuple[list[str], np.ndarray]:
    """Distinct texts in order of appearance, and which of them each row holds."""
    names = column.unique(maintain_order=True)
    place = pl.DataFrame({"text": names, "index": np.arange(len(names))})
    joined = pl.DataFrame({"text": column}).join(place, on="text", how="left", maintain_order="left")
    return names.to_list(), joined["index"].to_numpy()


def _classes(
    class_text: pl.Series | None, table: pl.DataFrame, found: Columns, rows: np.ndarray
) -> tuple[np.ndarray, list[Any], np.ndarray | None]:
    """1-based labels of `rows` (0: no class), the user's ids in order, and attributes where the data has them."""
    attributes = None
    if found.attributes:
        attributes = table[found.attributes].fill_null("").gather(rows).str.replace_all(",", " ").to_numpy()
    if class_text is None:
        return np.ones(len(rows), np.int64), [1], attributes
    # Pandas writes whole numbers beside a NaN as 3.0.
    class_text = class_text.str.replace(r"^(\d+)\.0+$", "$1")
    if class_text.str.contains(r"^\d+(_\d+)+$").any():
        # iMaterialist 2019: class, then attributes.
        behind = class_text.gather(rows).str.extract(r"^\d+_([\d_]+)$").fill_null("").str.replace_all("_", " ")
        attributes = behind.to_numpy()
        class_text = class_text.str.replace(r"^(\d+)(_\d+)+$", "$1")
    # Classes are those of every row that names one, so that a class without an object keeps its place.
    named = [t for t in class_text.unique().to_list() if t.lower() not in NO_OBJECT]
    whole = bool(named) and all(re.fullmatch(r"\d+", t) for t in named)
    ids: list[Any] = sorted({int(t) for t in named}) if whole else sorted(named)
    place = {t: ids.index(int(t) if whole else t) + 1 for t in named}
    labels = class_text.gather(rows).replace_strict(place, default=0, return_dtype=pl.Int64).to_numpy()
    return labels, ids or [1], attributes


def _names_of(ids: list[Any], names: Mapping[Any, str] | str | Path | None, has_classes: bool) -> list[str]:
    if names is None:
        return [str(c) for c in ids] if has_classes else ["object"]
    if isinstance(names, str | Path):
        names = _read_names(Path(names))
    lookup = {str(k): str(v) for k, v in names.items()}
    missing = [c for c in ids if str(c) not in lookup]
    if missing:
        raise UserError(f"class names: there is none for the id {missing[0]!r} ({len(missing)} missing)")
    return [lookup[str(c)] for c in ids]


def _read_names(path: Path) -> dict[Any, str]:
    """``{"1": "cat"}``, or iMaterialist's and COCO's ``{"categories": [{"id": 1, "name": "cat"}]}``."""
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


def _find_folder(source: Path, folder: Path | None) -> Path:
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder of images")
        return folder
    for guess in (
        source.parent / "images",
        source.parent / "train",
        source.parent / source.stem,
        source.parent,
    ):
        if guess.is_dir() and _images_of(guess):
            return guess
    raise UserError(f"no folder of images was found beside {source}; name it: --images FOLDER")


def _images_of(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    )


def _locate(
    names: list[str], row_image: np.ndarray, folder: Path, source: Path, problems: list[Problem]
) -> list[Path | None]:
    """The file of each image name, given with or without its suffix and folder."""
    by_key: dict[str, list[Path]] = {}
    for path in _images_of(folder):
        relative = path.relative_to(folder)
        for key in {relative.as_posix(), relative.with_suffix("").as_posix(), path.name, path.stem}:
            by_key.setdefault(_normal(key), []).append(path)
    first_row = np.full(len(names), -1, np.int64)
    first_row[row_image[::-1]] = np.arange(len(row_image))[::-1]
    files: list[Path | None] = []
    used: set[Path] = set()
    for name, row in zip(names, first_row.tolist(), strict=True):
        key = _normal(name.replace("\\", "/"))
        found = by_key.get(key) or by_key.get(key.rpartition("/")[2], [])
        twice = len(found) == 1 and found[0] in used
        files.append(found[0] if len(found) == 1 and not twice else None)
        used.update(found[:1])
        if files[-1] is None:
            what = "has no name" if not name else "is not in the folder" if not found else "fits several files: "
            what += ", ".join(str(f.relative_to(folder)) for f in found[:3])
            if twice:
                what = f"is the picture {found[0].name}, which other rows call by another name"
            problems.append(Problem(f"{source}, row {row + 2}", f"image {name!r} {what} ({folder})"))
    return files


def _normal(name: str) -> str:
    """One form of accented letters: archives from a Mac hold another one than most tables."""
    return unicodedata.normalize("NFC", name)


def _sizes(
    table: pl.DataFrame,
    found: Columns,
    row_image: np.ndarray,
    files: list[Path | None],
    source: Path,
    problems: list[Problem],
) -> tuple[np.ndarray, list[Problem]]:
    """(n_images, 2) height and width from the headers, 0 0 for an unusable image; what the CSV says must agree."""
    sizes = np.zeros((len(files), 2), np.int64)
    known = [i for i, f in enumerate(files) if f is not None]
    unreadable = []
    for i, size in zip(known, read_sizes([f for f in files if f is not None]), strict=True):
        if isinstance(size, ImageError):
            unreadable.append(Problem("unreadable image", str(size)))
        else:
            sizes[i] = size
    if not (found.height and found.width):
        return sizes, unreadable
    said = np.stack(
        [
            table[c].str.strip_chars().cast(pl.Float64, strict=False).fill_null(-1).to_numpy()
            for c in (found.height, found.width)
        ],
        1,
    )
    # A blank cell says nothing; any other must agree.
    blank = np.stack(
        [table[c].fill_null("").str.strip_chars().is_in(NO_OBJECT).to_numpy() for c in (found.height, found.width)], 1
    )
    readable = (sizes[:, 0] > 0)[row_image]
    wrong = np.flatnonzero(readable & ((said != sizes[row_image]) & ~blank).any(1))
    _, first = np.unique(row_image[wrong], return_index=True)
    for row in wrong[np.sort(first)].tolist():
        h, w = sizes[row_image[row]].tolist()
        cells = ", ".join(repr(table[c][row]) for c in (found.height, found.width))
        problems.append(
            Problem(
                f"{source}, row {row + 2}",
                f"{found.height}, {found.width} are {cells}, "
                f"but the picture {files[row_image[row]]} is {h} high and {w} wide",
            )
        )
    sizes[np.unique(row_image[wrong])] = 0
    return sizes, unreadable


# ---- runs ---------------------------------------------------------------------------------------------------------


def _parse(
    texts: pl.Series, n_pixels: np.ndarray, origin: Literal[0, 1], relative: bool
) -> tuple[RunTable, list[BadRuns], str]:
    """The masks, what is wrong with them, and a hint where another kind of runs would make sense of them all."""
    raw = np.frombuffer(texts.str.join("").item().encode() if len(texts) else b"", np.uint8)
    offsets = np.concatenate([[0], np.cumsum(texts.str.len_bytes().to_numpy(), dtype=np.int64)])
    masks, bad = parse_column(raw, offsets, n_pixels, origin=origin, relative=relative)
    if bad and not relative:
        for option, o, r in (("--origin 0", 0, False), ("--relative", origin, True)):
            if not parse_column(raw, offsets, n_pixels, origin=o, relative=r)[1]:
                return masks, bad, f"; every row would make sense with {option}"
    return masks, bad, ""


def _settle(
    problems: list[Problem], unreadable: list[Problem], bad: str, hint: str, source: Path, notes: list[str]
) -> None:
    """Raise for bad rows, or say that they were left out."""
    if problems and bad == "error":
        shown = "\n".join(f"  {p}" for p in problems[:SHOWN])
        more = f"\n  ... and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
        raise UserError(
            f"{source} has {len(problems):,} problem{'s' if len(problems) > 1 else ''}:\n{shown}{more}\n"
            f"`maskrcnn check` lists them all; --bad skip goes on without them{hint}"
        )
    for kind, items in (("problem", problems), ("unreadable image", unreadable)):
        if items:
            plural = "s are" if len(items) > 1 else " is"
            notes.append(f"{len(items):,} {kind}{plural} left out, such as {items[0]}")


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
