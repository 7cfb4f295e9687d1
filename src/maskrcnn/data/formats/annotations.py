"""Images and instances as an annotation file lists them, before any picture is opened; and from there to a `Dataset`.

Every format but the table of runs is read into `Annotations`. A mask is drawn once the size of its picture is known.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.data.formats.assemble import Instances, OpenOptions, Pictures, build_dataset, check_sizes, find_pictures
from maskrcnn.data.formats.classes import find_class_names
from maskrcnn.data.names import PathIndex
from maskrcnn.data.pictures import image_files
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError
from maskrcnn.rle import RLE, RLEError, RunTable

Draw = Callable[[tuple[int, int]], RLE]
"""Draws a mask on a picture of (height, width). Raises `RLEError`."""


ANNOTATION_FOLDERS = ("ann", "label", "json", "xml")
"""What names of folders begin with that hold annotations beside the folder of pictures."""


@dataclass(slots=True)
class Instance:
    """One object of an image: its class, the function that draws its mask, and its number in the source.

    `label` is a key of ``Annotations.class_names``. `row` counts as the format's users do.
    """

    label: Any
    draw: Draw
    row: int
    attributes: str = ""
    is_crowd: bool = False
    score: float | None = None


@dataclass(slots=True)
class AnnotatedImage:
    """One image: its name in the source and its objects.

    `hw` is the (height, width) that the source states, `file` the picture where the format itself says which, `source`
    the annotation file of this image where each has its own, and `part` that of the source's own division.
    """

    name: str
    instances: list[Instance] = field(default_factory=list)
    hw: tuple[int | None, int | None] = (None, None)
    file: Path | None = None
    source: Path | None = None
    part: str = ""


@dataclass
class Annotations:
    """What a source lists. `format` is the format's name for people, `row_noun` what it calls an instance.

    `class_names` maps class ids to names in the order of the source; None means that the ids are the names. `left_out`
    counts what has no mask, such as "boxes", and `n_joined` how many shapes are further parts of an object. `notes` say
    what else the reader decided, `problems` what it could not read, and `warnings` what makes the data as a whole
    implausible. `mask_files` are pictures that are masks.
    """

    source: Path
    format: str
    images: list[AnnotatedImage]
    class_names: dict[Any, str] | None = None
    row_noun: str = "annotation"
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    n_joined: int = 0
    warnings: list[Problem] = field(default_factory=list)
    mask_files: frozenset[Path] = frozenset()

    def place(self, image: AnnotatedImage, instance: Instance | None = None) -> str:
        """Say where an image or an instance stands."""
        file = str(image.source or self.source)
        return f"{file}, image {image.name}" if instance is None else f"{file}, {self.row_noun} {instance.row}"


def draw_union(draws: Sequence[Draw], hw: tuple[int, int]) -> RLE:
    """Draw an object of several parts."""
    mask = draws[0](hw)
    for draw in draws[1:]:
        mask = mask.union(draw(hw))
    return mask


def to_dataset(annotations: Annotations, options: OpenOptions) -> Dataset:
    """Find the pictures, draw the masks and return the data set. Raise `UserError`."""
    source, images = annotations.source, annotations.images
    if not images:
        raise UserError(f"{source} is read as {annotations.format}, but lists no images")
    names = [image.name for image in images]
    folder = options.images or _common_folder(images) or _find_root(source, [i.name for i in images if i.file is None])
    notes = [f"{source}: {annotations.format}", *annotations.notes, *_describe_shapes(annotations)]
    pictures = find_pictures(
        names,
        [annotations.place(image) for image in images],
        folder,
        options,
        known_files=[image.file for image in images],
        no_pictures={file.resolve() for file in annotations.mask_files},
    )
    pictures.problems[:0] = annotations.problems
    stated = np.array([image.hw for image in images], np.float64)  # None becomes NaN
    check_sizes(
        pictures,
        np.arange(len(images)),
        stated,
        options.exif,
        place=lambda i: annotations.place(images[i]),
        text=lambda i: f"height, width are {images[i].hw[0]}, {images[i].hw[1]}",
        swap_advice="correct the annotations",
    )
    class_ids, class_names = _classes(annotations, options)
    instances, warnings = _draw(annotations, pictures, class_ids)
    parts = [image.part for image in images]
    n_unlisted = len(pictures.names) - len(images)
    return build_dataset(
        source,
        pictures,
        instances,
        class_ids,
        class_names,
        options,
        notes=notes,
        warnings=[*annotations.warnings, *warnings],
        parts=parts + [""] * n_unlisted if any(parts) else None,
        sources=[i.source or source for i in images] + [source] * n_unlisted if any(i.source for i in images) else None,
        row_noun=annotations.row_noun,
        is_numbered=False,
    )


def _describe_shapes(annotations: Annotations) -> list[str]:
    """Say what is left out and what is joined. Raise `UserError` if the source has objects, but none with a mask."""
    source, notes = annotations.source, []
    kinds = [f"{name} ({n:,})" for name, n in annotations.left_out.most_common()]
    if kinds and not annotations.problems and not any(image.instances for image in annotations.images):
        raise UserError(
            f"{source} is read as {annotations.format}, but has no masks: all it has is {' and '.join(kinds)}. A mask "
            "cannot be made of these; draw outlines in the program that made them"
        )
    if kinds:
        notes.append(f"{source}: what has no mask is left out: {', '.join(kinds)}")
    if annotations.n_joined:
        notes.append(f"{source}: shapes of one group and class are one object; {annotations.n_joined:,} are joined so")
    return notes


def _common_folder(images: Sequence[AnnotatedImage]) -> Path | None:
    """Return the folder that holds the files of all images, None if the format does not say all of them."""
    folders = {image.file.parent for image in images if image.file is not None}
    if any(image.file is None for image in images):
        return None
    return Path(os.path.commonpath(folders))


def _find_root(source: Path, names: Sequence[str]) -> Path:
    """Return the folder near `source` in which most of `names` are pictures. Raise `UserError` if none has pictures."""
    parent = source if source.is_dir() else source.parent
    guesses = [parent / "images", parent / "train", parent / source.stem, parent]
    if parent.name.lower().startswith(ANNOTATION_FOLDERS):
        guesses += [parent.parent / "images", parent.parent]
    n_found: dict[Path, int] = {}
    for guess in guesses:
        if not guess.is_dir():
            continue
        files = image_files(guess)
        index = PathIndex([file.relative_to(guess).as_posix() for file in files])
        n_found[guess] = sum(bool(index.find(name).indices) for name in names) if files else -1
        if n_found[guess] == len(names):
            return guess
    best = max(n_found, key=lambda guess: n_found[guess], default=parent)
    if n_found.get(best, -1) < 0:
        raise UserError(f"no folder of images was found beside {source}; pass --images FOLDER")
    return best


def _classes(annotations: Annotations, options: OpenOptions) -> tuple[list[Any], list[str]]:
    """Return class ids and names: those that the source lists, or else those that its instances have, sorted."""
    listed = annotations.class_names
    if listed is None:
        ids = sorted({instance.label for image in annotations.images for instance in image.instances})
        return ids or [1], find_class_names(ids or [1], options.class_names, bool(ids))
    if options.class_names is not None:
        return list(listed), find_class_names(list(listed), options.class_names, True)
    return list(listed), list(listed.values())


def _draw(annotations: Annotations, pictures: Pictures, class_ids: list[Any]) -> tuple[Instances, list[Problem]]:
    """Draw all masks on usable pictures. Malformed ones become problems; warn of those without a pixel."""
    label_of = {class_id: label for label, class_id in enumerate(class_ids, 1)}
    image_index, drawn, masks, warnings = [], [], [], []
    for i, image in enumerate(annotations.images):
        if not pictures.usable[i]:
            continue
        hw = int(pictures.sizes[i, 0]), int(pictures.sizes[i, 1])
        for instance in image.instances:
            try:
                if instance.label not in label_of:
                    raise RLEError(f"the class {instance.label!r} is not among those that the file lists")
                mask = instance.draw(hw)
            except RLEError as error:
                message = f"image {image.name}: {error}"
                pictures.problems.append(Problem(Kind.BAD_ROW, annotations.place(image, instance), message))
                continue
            if mask.area == 0:
                message = f"image {image.name}: the mask covers no pixel of its picture"
                warnings.append(Problem(Kind.EMPTY, annotations.place(image, instance), message))
                continue
            image_index.append(i)
            drawn.append(instance)
            masks.append(mask.runs)
    scores = [instance.score for instance in drawn]
    attributes = [instance.attributes for instance in drawn]
    crowd = np.array([instance.is_crowd for instance in drawn], bool)
    instances = Instances(
        np.array(image_index, np.int64),
        np.array([label_of[instance.label] for instance in drawn], np.int64),
        RunTable.of(masks),
        np.array([instance.row for instance in drawn], np.int64),
        np.ones(len(drawn), bool),
        np.array(attributes, object) if any(attributes) else None,
        crowd if crowd.any() else None,
        np.array(scores, np.float64) if any(score is not None for score in scores) else None,
    )
    return instances, warnings
