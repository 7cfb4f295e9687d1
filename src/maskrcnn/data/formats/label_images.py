"""Label pictures: a PNG or TIFF beside each picture, every value or colour of which is an object; 0 is background.

Cellpose, StarDist and many others write them. `mask_layout` lists the folders.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from maskrcnn.data.formats.annotations import Annotations, Instance
from maskrcnn.data.formats.class_file import class_folders, find_classes, read_class_file, write_class_file
from maskrcnn.data.formats.mask_layout import MaskLayout, find_mask_files, name_of, place_in_part, set_parts
from maskrcnn.data.formats.source import Source
from maskrcnn.data.formats.traits import COMMON, Trait
from maskrcnn.data.formats.writable import paint_instances
from maskrcnn.data.images import LOSSY, read_each, read_header, read_labels, read_mask
from maskrcnn.data.parts import first_part
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.errors import ImageError, counted
from maskrcnn.files import named
from maskrcnn.kernels.runs import count_pieces
from maskrcnn.labels import label_masks, pack_colors
from maskrcnn.rle import RLE, RLEError, RunTable

NAME = "label pictures"
SUFFIXES = ()
HOLDS = COMMON - {Trait.OVERLAPS, Trait.ATTRIBUTES, Trait.SCORES, Trait.CROWD}

N_SAMPLES = 8
"""Mask files that are decoded to tell label pictures from others."""

MAX_RUNS = 0.5
"""Runs of labels per pixel. Photographs have nearly one for each."""

MAX_PIECES = 1.5
"""Pieces per label that are plausible for objects, on average over the data."""

MAX_BLURRED = 0.02
"""Share of pixels of a JPEG that may lie between a quarter and three quarters of its maximum, if it has one label."""


def recognizes(source: Source) -> bool:
    """Whether the folder has a label picture for some picture: of its name and size, with large areas of one value."""
    return is_of_pictures(layout := find_mask_files(source)) and looks_like_masks(layout)


def is_of_pictures(layout: MaskLayout) -> bool:
    """Whether mask files are of one picture each, not of one object each.

    Where both occur by name, files of several values decide: they are of pictures.
    """
    found = [mask for mask in layout.masks if mask.picture is not None]
    of_pictures = [mask for mask in found if not mask.is_of_object]
    if len(of_pictures) == len(found):
        return bool(found)
    return any(_count_labels(mask.file) > 1 for mask in of_pictures[:N_SAMPLES])


def looks_like_masks(layout: MaskLayout) -> bool:
    """Whether one of the first mask files has the size of its picture and large areas of one value."""
    pairs = [(mask.file, mask.picture.file) for mask in layout.masks if mask.picture is not None]
    for file, picture_file in pairs[:N_SAMPLES]:
        try:
            values = _numbers(file)
            picture = read_header(picture_file)
        except ImageError:
            continue
        if values.shape == picture.upright_hw and len(label_masks(values, None)[1].runs) <= MAX_RUNS * values.size:
            return True
    return False


def _count_labels(file: Path) -> int:
    try:
        return len(label_masks(_numbers(file))[0])
    except ImageError:
        return 0


def _numbers(file: Path) -> np.ndarray:
    """Return the labels of a file, (H, W) integers. Raise `ImageError`."""
    if file.suffix.lower() in LOSSY:
        return _unblurred(file)
    labels = read_labels(file)
    return labels if labels.ndim == 2 else pack_colors(labels)


def _unblurred(file: Path) -> np.ndarray:
    """Return 1 for the pixels of more than half of the maximum, if all others are near 0. Raise `ImageError`."""
    values = np.atleast_3d(read_labels(file)).max(2)
    share = values / max(int(values.max()), 1)
    if ((share > 0.25) & (share < 0.75)).mean() > MAX_BLURRED:
        raise ImageError(f"{file}: {file.suffix} blurs values, so a label picture of several cannot be read from it")
    return read_mask(file, "turn").astype(np.uint8)


def read(source: Source) -> Annotations:
    """Read a folder. Raise `UserError`."""
    layout = find_mask_files(source)
    class_names, class_of_folder = find_classes((mask.label for mask in layout.masks), read_class_file(source.path))
    files = [mask.file for mask in layout.masks]
    annotations = Annotations(source.path, NAME, [], class_names, row_noun="label", mask_files=frozenset(files))
    decoded = dict(zip(files, read_each(read_label_masks, files), strict=True))
    for image, masks in layout.images():
        for mask in masks:
            labels = decoded[mask.file]
            if isinstance(labels, ImageError):
                annotations.problems.append(Problem(Kind.BAD_ROW, "label picture", str(labels)))
                continue
            image.hw = labels.hw
            image.instances += [
                Instance(class_of_folder[mask.label], partial(on_picture, RLE(labels.masks[k], labels.hw)), value)
                for k, value in enumerate(labels.values.tolist())
            ]
        if image.hw != (None, None):
            annotations.images.append(image)
    set_parts(
        annotations.images,
        {
            picture.file: first_part(picture.folders) or "/".join(map(name_of, picture.above))
            for picture in layout.pictures
        },
    )
    labels_of_all = [labels for labels in decoded.values() if not isinstance(labels, ImageError)]
    annotations.warnings += _warn_of_classes(source.path, labels_of_all)
    return annotations


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a picture (n,), the mask of each, and the picture's (height, width)."""

    values: np.ndarray
    masks: RunTable
    hw: tuple[int, int]


def read_label_masks(file: Path) -> Labels:
    """Decode a label picture. Raise `ImageError`."""
    numbers = _numbers(file)
    return Labels(*label_masks(numbers), (int(numbers.shape[0]), int(numbers.shape[1])))


def on_picture(mask: RLE, hw: tuple[int, int]) -> RLE:
    """Return the mask. Raise `RLEError` if its picture has another size."""
    if mask.hw != hw:
        raise RLEError(f"the mask is {mask.hw[0]} x {mask.hw[1]} (height x width), its picture {hw[0]} x {hw[1]}")
    return mask


def _warn_of_classes(root: Path, decoded: list[Labels]) -> list[Problem]:
    """Warn if labels lie in pieces, as those of classes do."""
    n_labels = sum(len(labels.values) for labels in decoded)
    n_pieces = sum(
        int(count_pieces(labels.masks.runs, labels.masks.offsets, np.full(len(labels.masks), labels.hw[0])).sum())
        for labels in decoded
    )
    if n_pieces <= MAX_PIECES * n_labels:
        return []
    message = (
        f"{counted(n_labels, 'label')} in {counted(n_pieces, 'piece')}. Each value of a picture is read as one object: "
        "if values are classes, or edges were smoothed, give each object a value of its own"
    )
    return [Problem(Kind.CLASSES_AS_OBJECTS, str(root), message)]


# ---- writing ------------------------------------------------------------------------------------------------------


def picture_path(data: Dataset, i: int) -> PurePosixPath:
    """Return where the picture of image i is, relative to the target."""
    part, place = place_in_part(data, i)
    return part / "images" / place


def write(data: Dataset, target: Path) -> None:
    """Write a picture of 16 bits, or 32 where there are more objects, for each picture and each of its classes.

    The objects of a file are numbered from 1. Where masks of a class overlap, `paint_instances` chooses one.
    """
    write_class_file(data, target)
    class_folder = class_folders(data)
    for i in range(len(data)):
        part, place = place_in_part(data, i)
        for instances in painted_together(data, i) or [np.empty(0, np.int64)]:
            label = int(data.labels[instances[0]]) if len(instances) else 1
            folder = target / part / "labels" / (class_folder[label - 1] if class_folder else "")
            values = np.arange(1, len(instances) + 1)
            values = values.astype(np.uint16 if len(values) < 2**16 else np.int32)
            picture = paint_instances(data, i, instances, values)
            file = folder / place.with_suffix(".png" if values.dtype == np.uint16 else ".tif")
            with named(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(file)


def painted_together(data: Dataset, i: int) -> list[np.ndarray]:
    """Return the instances of each class on image i, which share a label picture."""
    span = data.instances(i)
    labels = data.labels[span]
    return [span.start + np.flatnonzero(labels == label) for label in np.unique(labels)]
