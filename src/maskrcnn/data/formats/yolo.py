"""Ultralytics' YOLO segmentation: ``data.yaml``, folders of pictures, and a text file of polygons for each picture.

data.yaml or a bare folder -> pictures of each part -> label files -> rows ``class x1 y1 x2 y2 ...`` in 0 .. 1 -> masks
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePath

import numpy as np
import yaml

from maskrcnn.data.formats.annotations import AnnotatedImage, Annotations, Instance
from maskrcnn.data.formats.source import Source
from maskrcnn.data.formats.traits import Trait
from maskrcnn.data.formats.yolo_layout import (
    CLASS_FILES,
    OTHER_KEYS,
    Layout,
    bare,
    darknet_file,
    data_file,
    data_files,
    is_data,
    is_yaml,
    read_yaml,
)
from maskrcnn.data.formats.yolo_rows import Row, RowKinds, read_rows
from maskrcnn.data.names import quoted, unquoted
from maskrcnn.data.parts import part_named
from maskrcnn.data.pictures import image_files
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError, counted
from maskrcnn.files import write_text
from maskrcnn.polygons import join_rings
from maskrcnn.rle import RLE

NAME = "YOLO segmentation (Ultralytics)"
SUFFIXES = ()
HOLDS = frozenset(
    {
        Trait.HOLES,
        Trait.SEVERAL_PARTS,
        Trait.OVERLAPS,
        Trait.CLASSES,
        Trait.UNUSED_CLASSES,
        Trait.DIVISION,
        Trait.EMPTY_IMAGES,
    }
)

LABEL_FOLDERS = ("labels", "annotations")
"""Names of the folder that takes the place of ``images``, in any case. Ultralytics has the first alone."""

DECIMALS = 7
"""Decimals of a written coordinate: they place a corner within 0.01 pixels on pictures of 200,000 pixels a side."""


def recognizes(source: Source) -> bool:
    """Whether there is a data.yaml, or a folder of pictures with YOLO's label files, or Darknet's own layout."""
    if source.path.is_file():
        return source.path.suffix.lower() == ".data" or (is_yaml(source.path) and is_data(source.path))
    if data_files(source) or darknet_file(source):
        return True
    return any(_has_rows(file) for picture in image_files(source.path) if (file := label_file(picture)))


def read(source: Source) -> Annotations:
    """Read a data.yaml, the folder that has it, or a bare folder of pictures and labels. Raise `UserError`."""
    if darknet := darknet_file(source):
        raise UserError(
            f"{darknet}: this is Darknet's layout of YOLO, which has boxes and no masks. Masks need labels of polygons "
            "(YOLO segmentation), or another format"
        )
    layout = read_yaml(data_file(source)) if source.path.is_file() or data_files(source) else bare(source)
    annotations = Annotations(source.path, NAME, [], layout.class_names, row_noun="row", notes=layout.notes)
    rows_of: dict[int, list[Row]] = {}
    n_without, known, names = 0, set[Path](), _names(layout)
    for part, pictures in layout.pictures.items():
        for picture in pictures:
            if isinstance(picture, str):
                annotations.images.append(AnnotatedImage(picture, part=part))
                continue
            file = label_file(picture)
            image = AnnotatedImage(names[picture], file=picture, source=file, part=part)
            if file is None:
                n_without += 1
            else:
                known.add(file)
                rows_of[len(annotations.images)] = read_rows(file, annotations.problems)
            annotations.images.append(image)
    if not annotations.images:
        raise UserError(f"{source.path} is read as {NAME}, but there is no picture in its folders")
    if not known:
        raise UserError(_no_labels(source, annotations.images))
    if n_without:
        annotations.notes.append(
            f"{source.path}: pictures without a label file ({n_without:,}) count as images without objects"
        )
    if strays := _stray_labels(known):
        annotations.notes.append(f"{source.path}: label files without a picture ({len(strays):,}), such as {strays[0]}")
    _add_instances(annotations, rows_of, layout.keypoint_shape)
    return annotations


def _add_instances(annotations: Annotations, rows_of: dict[int, list[Row]], keypoint_shape: tuple[int, ...]) -> None:
    """Decide by all rows what they are, and add the polygons to their images. Raise `UserError` if there is none."""
    kinds = RowKinds.of([row for rows in rows_of.values() for row in rows], keypoint_shape)
    if fault := kinds.why_no_masks():
        raise UserError(f"{annotations.source}: {fault}")
    annotations.notes += [f"{annotations.source}: {note}" for note in kinds.notes()]
    for i, rows in rows_of.items():
        image = annotations.images[i]
        for row in rows:
            if kinds.is_left_out(row):
                continue
            if fault := kinds.fault(row):
                place = f"{image.source}, row {row.number}"
                annotations.problems.append(Problem(Kind.BAD_ROW, place, f"image {image.name}: {fault}"))
                continue
            points, score = kinds.polygon(row)
            image.instances.append(Instance(row.label, partial(_draw, points), row.number, score=score))


def _draw(points: np.ndarray, hw: tuple[int, int]) -> RLE:
    """Draw the polygon of `points` (n, 2), fractions of width and height, by the even-odd rule."""
    return RLE.from_polygons([(points * (hw[1], hw[0])).ravel()], hw)


# ---- where pictures and labels are ------------------------------------------------------------------------------


def label_file(picture: Path) -> Path | None:
    """Return the label file of a picture: in ``labels`` for the last folder ``images`` of its path, else beside it."""
    files = [picture.with_suffix(".txt")]
    divided = _around_images(picture)
    if divided is not None:
        above, below = divided
        files = [folder / below.with_suffix(".txt") for folder in _label_folders(above)] + files
    return next((file for file in files if file.is_file()), None)


def _around_images(picture: Path) -> tuple[Path, Path] | None:
    """The path of a picture above and below its last folder ``images``; None without one."""
    parts = picture.parts
    for k in range(len(parts) - 2, 0, -1):
        if parts[k].casefold() == "images":
            return Path(*parts[:k]), Path(*parts[k + 1 :])
    return None


def _label_folders(parent: Path) -> list[Path]:
    if (parent / "labels").is_dir():
        return [parent / "labels"]
    found = [path for path in parent.iterdir() if path.name.casefold() in LABEL_FOLDERS and path.is_dir()]
    return sorted(found, key=lambda path: LABEL_FOLDERS.index(path.name.casefold()))


def _stray_labels(known: set[Path]) -> list[Path]:
    """Return the label files, in the folders of those known, that no picture has."""
    folders = {file.parent for file in known}
    found = {Path(entry.path) for folder in folders for entry in os.scandir(folder) if entry.name.endswith(".txt")}
    return sorted(file for file in found - known if file.name not in CLASS_FILES and _has_rows(file))


def _has_rows(file: Path) -> bool:
    """Whether the first row of a label file is a class number and coordinates."""
    with open(file, "rb") as opened:
        words = opened.readline(2000).removeprefix(b"\xef\xbb\xbf").split()
    try:
        return len(words) >= 5 and float(words[0]).is_integer() and bool([float(word) for word in words[1:5]])
    except (ValueError, OverflowError):
        return False


def _no_labels(source: Source, images: list[AnnotatedImage]) -> str:
    """Say that no picture has a label file, and which kind of labels there may be instead."""
    pictures = [image.file for image in images if image.file]
    if not pictures:
        return f"{source.path}: of {counted(len(images), 'picture')}, none was found, such as {images[0].name}"
    message = f"{source.path}: of {counted(len(pictures), 'picture')}, none has a label file. "
    if any((folder / "labelTxt").is_dir() for folder in {picture.parent.parent for picture in pictures}):
        return message + "There are folders labelTxt, which hold rotated boxes (DOTA, YOLO OBB) and no masks"
    expected, divided = pictures[0], _around_images(pictures[0])
    if divided is not None:
        above, below = divided
        expected = above / "labels" / below
    return message + f"That of {pictures[0]} belongs to {expected.with_suffix('.txt')}"


def _names(layout: Layout) -> dict[Path, str]:
    """Return the name of each picture: its path without folders that say ``images`` or its part, if names differ so."""
    whole, short = {}, {}
    for part, pictures in layout.pictures.items():
        for picture in pictures:
            if isinstance(picture, Path):
                place = (
                    picture.relative_to(layout.root) if picture.is_relative_to(layout.root) else PurePath(picture.name)
                )
                folders = [folder for folder in place.parts[:-1] if folder.casefold() != "images"]
                whole[picture] = "/".join((*folders, picture.name))
                is_part = bool(folders) and part in (unquoted(folders[0]), part_named(folders[0]))
                short[picture] = "/".join((*(folders[1:] if is_part else folders), picture.name))
    return short if len(set(short.values())) == len(short) else whole


# ---- writing ----------------------------------------------------------------------------------------------------


def picture_path(data: Dataset, i: int) -> PurePath:
    """Return the place of picture i in the folder that `write` makes."""
    return PurePath("images", part_folder(data, i), _place(data, i))


def _place(data: Dataset, i: int) -> PurePath:
    """Return the place of picture i in the folder of its part. A further folder ``images`` would move its labels."""
    place = data.places[i]
    return PurePath(*(f"{p}_" if p.casefold() == "images" else p for p in place.parts[:-1]), place.name)


def part_folder(data: Dataset, i: int) -> str:
    """Return the folder of the part of image i, "" if the data set has no parts."""
    return quoted(_part_key(data, i)) if data.parts and any(data.parts) else ""


def _part_key(data: Dataset, i: int) -> str:
    """Return the key of the part of image i in data.yaml: "train" for one without a part."""
    part = (data.parts[i] if data.parts else "") or "train"
    return f"{part}_" if part in OTHER_KEYS else part


def write(data: Dataset, target: Path) -> None:
    """Write data.yaml and a label file for each image; pictures belong to `picture_path`."""
    folder_of = {_part_key(data, i): part_folder(data, i) for i in range(len(data))}
    first = "train" if "train" in folder_of else next(iter(folder_of))
    # Ultralytics demands train and val, and reads no other part but test.
    folders = {"train": folder_of[first], "val": folder_of[first]} | folder_of
    document = {
        **{key: f"images/{folder}".rstrip("/") for key, folder in folders.items()},
        "names": dict(enumerate(data.class_names)),
    }
    write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), target / "data.yaml")
    for i in range(len(data)):
        place = target / "labels" / part_folder(data, i) / _place(data, i).with_suffix(".txt")
        write_text("".join(f"{row}\n" for row in _rows(data, i)), place)


def _rows(data: Dataset, i: int) -> Iterator[str]:
    """Yield the row of each mask of image i. Bridges of no width join its rings into one polygon."""
    h, w = data.hw(i)
    for label, mask in zip(data.labels[data.instances(i)].tolist(), data.rles(i), strict=True):
        rings = [ring for part in mask.to_polygons() for ring in (part.outer, *part.holes)]
        points = join_rings(rings)
        if len(points) == 4:  # the closing point tells the outline of a rectangular mask from a rotated box
            points = np.concatenate([points, points[:1]])
        fractions = (points / (w, h)).ravel().tolist()
        yield " ".join([str(label - 1), *(f"{v:.{DECIMALS}f}".rstrip("0").rstrip(".") for v in fractions)])
