"""Write a data set in any format: annotations, and the pictures where the format or the user has a place for them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Literal

from maskrcnn.data.formats import MODULES, format_module
from maskrcnn.data.formats.traits import Trait, count_traits
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError
from maskrcnn.files import atomic_folder, named

Pictures = Literal["copy", "link", "none"]
"""What becomes of pictures: a copy, a symbolic link to the original, or nothing."""

FORMAT_OF_SUFFIX = {".csv": "csv", ".json": "coco", ".xml": "cvat", ".parquet": "parquet"}
"""Format of a target by its suffix, where nothing else says it."""

IMAGE_FOLDER = "images"
"""Folder for pictures beside the annotations, where a format has no other place for them."""


@dataclass(frozen=True)
class Conversion:
    """What was written. ``lost[trait]`` is the number of instances, or images, that have what the format cannot hold."""

    target: Path
    format: str
    n_images: int
    n_instances: int
    pictures: Pictures
    lost: dict[Trait, int]


def convert(
    data: Dataset,
    target: Path,
    format: str | None = None,
    pictures: Pictures | None = None,
    *,
    on_picture: Callable[[int], None] | None = None,
) -> Conversion:
    """Write `data` to `target`, which must not exist. Raise `UserError`.

    `format` is a key of ``formats.MODULES``, by default that of the suffix of `target`. `pictures` are copied by default
    where the layout has a place for them, and left where they are by other formats; ``images`` beside a file is theirs
    otherwise. `on_picture` gets the number of pictures that are in place. What was interrupted leaves nothing.
    """
    format = format or format_of(target)
    module = format_module(format)
    if not hasattr(module, "write"):
        raise UserError(f"{module.NAME} can be read, but not written; formats to write: {', '.join(written_formats())}")
    has_place = hasattr(module, "picture_path")
    pictures = pictures or ("copy" if has_place else "none")
    is_file = bool(module.SUFFIXES)
    _check_target(target, module, is_file and pictures != "none")
    if pictures != "none" and not has_place:
        data = replace(data, names=[str(place) for place in data.places])
    with atomic_folder(target if not is_file else target.with_name(target.name + ".folder")) as folder:
        module.write(data, folder / target.name if is_file else folder)
        if pictures != "none":
            for i, file in enumerate(data.files):
                place = module.picture_path(data, i) if has_place else PurePosixPath(IMAGE_FOLDER, data.places[i])
                _put(file, folder / place, pictures)
                if on_picture is not None:
                    on_picture(i + 1)
    return Conversion(target, format, len(data), data.n_instances, pictures, lost_traits(data, module))
