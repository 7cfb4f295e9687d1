"""MOTS (KITTI, MOTSChallenge): in folders ``instances``, 16-bit PNGs whose values are 1000 * class + object.

The value 10000 is a region to ignore. Source: Voigtlaender et al., "MOTS: Multi-Object Tracking and Segmentation",
CVPR 2019. A ``labels.txt`` with a class on each line is Datumaro's.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from maskrcnn.data.formats.annotations import AnnotatedImage, Annotations, Instance
from maskrcnn.data.formats.label_images import on_picture, read_label_masks
from maskrcnn.data.formats.source import Source, read_bytes
from maskrcnn.data.formats.traits import COMMON, Trait
from maskrcnn.data.images import read_each
from maskrcnn.data.parts import first_part
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.errors import ImageError, UserError, counted
from maskrcnn.rle import RLE

NAME = "MOTS"
SUFFIXES = ()
HOLDS = COMMON - {Trait.OVERLAPS, Trait.ATTRIBUTES, Trait.SCORES, Trait.CROWD}

FOLDER, LABELS = "instances", "labels.txt"
CLASS, IGNORED = 1000, 10_000
CLASS_NAMES = {1: "car", 2: "pedestrian"}
"""Those of the paper, for data without `LABELS`."""

N_SAMPLES = 8
"""Files whose values tell the format."""


def recognizes(source: Source) -> bool:
    """Whether a folder ``instances`` has PNGs whose values are all of a class and an object, beside 0."""
    decoded = read_each(read_label_masks, _files(source)[:N_SAMPLES])
    values = [value for labels in decoded if not isinstance(labels, ImageError) for value in labels.values.tolist()]
    return bool(values) and min(values) >= CLASS and max(values) <= IGNORED


def _files(source: Source) -> list[Path]:
    found = source.having_suffix(".png") if source.path.is_dir() else []
    return [file for file in found if FOLDER in file.relative_to(source.path).parts[:-1]]


def read(source: Source) -> Annotations:
    """Read a folder. Raise `UserError`."""
    files = _files(source)
    annotations = Annotations(source.path, NAME, [], _class_names(source), "object", mask_files=frozenset(files))
    n_ignored = 0
    for file, labels in zip(files, read_each(read_label_masks, files), strict=True):
        if isinstance(labels, ImageError):
            annotations.problems.append(Problem(Kind.BAD_ROW, str(file), str(labels)))
            continue
        folders = list(file.relative_to(source.path).with_suffix("").parts)
        folders[folders.index(FOLDER)] = "images"
        image = AnnotatedImage("/".join(folders), hw=labels.hw, source=file, part=first_part(folders[:-1]))
        for k, value in enumerate(labels.values.tolist()):
            if value == IGNORED:
                n_ignored += 1
                continue
            mask = RLE(labels.masks[k], labels.hw)
            image.instances.append(Instance(value // CLASS, partial(on_picture, mask), value))
        annotations.images.append(image)
    if n_ignored:
        annotations.notes.append(f"regions to ignore (value {IGNORED}) of {counted(n_ignored, 'picture')} are left out")
    return annotations


def _class_names(source: Source) -> dict[int, str]:
    """Return the names of the classes by number. Raise `UserError` if several files disagree."""
    listings = {
        tuple(read_bytes(file).decode("utf-8", "replace").split("\n"))
        for file in source.files
        if file.name == LABELS and file.parent.name == FOLDER
    }
    if len(listings) > 1:
        raise UserError(f"{source.path}: files {FOLDER}/{LABELS} list different classes; give each part alone")
    names = [name.strip() for listing in listings for name in listing]
    return {k: name for k, name in enumerate(names, 1) if name} or CLASS_NAMES
