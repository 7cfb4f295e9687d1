"""A folder of mask files for each picture, one file an object, as the 2018 Data Science Bowl gave them: ID/masks/*.png.

Nonzero pixels are the object. `mask_layout` lists the other folders that are read.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from maskrcnn.data.formats.annotations import AnnotatedImage, Annotations, Draw, Instance
from maskrcnn.data.formats.class_file import class_folders, find_classes, read_class_file, write_class_file
from maskrcnn.data.formats.label_images import is_of_pictures, looks_like_masks, on_picture
from maskrcnn.data.formats.mask_layout import find_mask_files, place_in_part, set_parts
from maskrcnn.data.formats.source import Source
from maskrcnn.data.formats.traits import COMMON, Trait
from maskrcnn.data.images import read_each, read_mask
from maskrcnn.data.parts import first_part
from maskrcnn.data.table import Dataset
from maskrcnn.errors import ImageError
from maskrcnn.files import named
from maskrcnn.rle import RLE, RLEError

NAME = "folders of mask files"
SUFFIXES = ()
HOLDS = COMMON - {Trait.ATTRIBUTES, Trait.SCORES, Trait.CROWD}


def recognizes(source: Source) -> bool:
    """Whether the folder has mask files of one object each, whose names or folders lead to pictures of their size."""
    layout = find_mask_files(source)
    found = any(mask.picture is not None for mask in layout.masks)
    return found and not is_of_pictures(layout) and looks_like_masks(layout)


def read(source: Source) -> Annotations:
    """Read a folder. Instances count the mask files of their picture from 1, in the order of their names."""
    layout = find_mask_files(source)
    class_names, class_of_folder = find_classes((mask.label for mask in layout.masks), read_class_file(source.path))
    files = [mask.file for mask in layout.masks]
    annotations = Annotations(source.path, NAME, [], class_names, row_noun="mask file", mask_files=frozenset(files))
    decoded = dict(zip(files, read_each(_read_mask, files), strict=True))
    for image, masks in layout.images():
        image.source = Path(os.path.commonpath([mask.file.parent for mask in masks]))
        masks.sort(key=lambda mask: (mask.file.name, mask.file))
        image.instances = [
            Instance(class_of_folder[mask.label], _drawn(mask.file, decoded[mask.file]), number)
            for number, mask in enumerate(masks, 1)
        ]
        annotations.images.append(image)
    annotations.images += [AnnotatedImage(p.name, file=p.file, source=p.file) for p in layout.unmasked()]
    annotations.images.sort(key=lambda image: image.name)
    set_parts(annotations.images, {picture.file: first_part(picture.folders) for picture in layout.pictures})
    return annotations


def _read_mask(file: Path) -> RLE:
    return RLE.from_mask(read_mask(file, "turn"))


def _drawn(file: Path, mask: RLE | ImageError) -> Draw:
    """Return the function that draws a mask, or says what is wrong with its file."""

    def draw(hw: tuple[int, int]) -> RLE:
        if isinstance(mask, ImageError):
            raise RLEError(str(mask))
        try:
            return on_picture(mask, hw)
        except RLEError as error:
            raise RLEError(f"{file.name}: {error}") from None

    return draw


# ---- writing ------------------------------------------------------------------------------------------------------


def picture_path(data: Dataset, i: int) -> PurePosixPath:
    """Return where the picture of image i is, relative to the target: a/images/a.png."""
    return _folder(data, i) / "images" / data.places[i].name


def write(data: Dataset, target: Path) -> None:
    """Write an 8-bit PNG for each instance, 255 on the object, numbered in the order of the data."""
    write_class_file(data, target)
    class_folder = class_folders(data)
    for i in range(len(data)):
        folder = target / _folder(data, i) / "masks"
        with named(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for number, (label, mask) in enumerate(zip(data.labels[data.instances(i)], data.rles(i), strict=True), 1):
            file = folder / (class_folder[label - 1] if class_folder else "") / f"{number:04d}.png"
            with named(file):
                file.parent.mkdir(exist_ok=True)
                Image.fromarray(mask.to_mask().astype(np.uint8) * 255).save(file)


def _folder(data: Dataset, i: int) -> PurePosixPath:
    part, place = place_in_part(data, i)
    return part / place.with_suffix("")
