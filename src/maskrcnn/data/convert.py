"""Write a data set in any format: annotations, and the pictures where the format or the user has a place for them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Literal

from maskrcnn.data.embedded import EMBEDDING, unturned_picture
from maskrcnn.data.formats import MODULES, format_module, write_dataset
from maskrcnn.data.formats.traits import Trait, count_traits
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError
from maskrcnn.files import named, temporary_folder

Pictures = Literal["copy", "link", "none"]
"""What becomes of pictures: a copy, a symbolic link to the original, or nothing."""

FORMAT_OF_SUFFIX = {".csv": "csv", ".json": "coco", ".xml": "cvat", ".parquet": "parquet"}
"""Format of a target by its suffix, where nothing else says it."""

IMAGE_FOLDER = "images"
"""Folder for pictures beside the annotations, where a format has no other place for them."""


@dataclass(frozen=True)
class Conversion:
    """What was written: `n_instances` without those `left_out`, which counts them by kind.

    ``lost[trait]`` is the number of instances, images or classes of the source with a trait that the format lacks.
    `n_runs` is the number of masks that are runs in a file of polygons, None for any other.
    """

    target: Path
    format: str
    n_images: int
    n_instances: int
    pictures: Pictures
    lost: dict[Trait, int]
    left_out: dict[str, int]
    n_runs: int | None = None


def convert(
    data: Dataset,
    target: Path,
    format: str | None = None,
    pictures: Pictures | None = None,
    *,
    polygons: bool = False,
    on_picture: Callable[[int], None] | None = None,
) -> Conversion:
    """Write `data` to `target`, which must not exist. Raise `UserError`.

    `format` is a key of ``formats.MODULES``; the suffix of `target` is the default. `pictures` are copied by default
    if the format has a place for them; beside a file, that would be ``images``. `polygons` writes
    COCO's masks as polygons where they have no holes. `on_picture` gets the number of pictures in place. `target`
    appears when everything is written.
    """
    format = checked_format(target, format, pictures, polygons)
    module = format_module(format)
    has_place, is_file = hasattr(module, "picture_path"), bool(module.SUFFIXES)
    pictures = pictures or ("copy" if has_place else "none")
    if pictures != "none" and not has_place:
        data = replace(data, names=[str(place) for place in data.places])
    with temporary_folder(target) as folder:
        annotations = folder / target.name
        n_runs: int | None = None
        left_out: dict[str, int] = {}
        if polygons:
            n_runs = module.write(data, annotations, polygons=True)
        else:
            left_out = write_dataset(data, annotations, format)
        picture_root = folder if is_file else annotations
        if pictures != "none":
            for i, file in enumerate(data.files):
                place = module.picture_path(data, i) if has_place else PurePosixPath(IMAGE_FOLDER, data.places[i])
                _put(file, picture_root / place, pictures)
                if on_picture is not None:
                    on_picture(i + 1)
        with named(target):
            if is_file and pictures != "none":
                (folder / IMAGE_FOLDER).rename(target.with_name(IMAGE_FOLDER))
            annotations.rename(target)
    n_instances, lost = data.n_instances - sum(left_out.values()), lost_traits(data, module)
    return Conversion(target, format, len(data), n_instances, pictures, lost, left_out, n_runs)


def lost_traits(data: Dataset, module: ModuleType) -> dict[Trait, int]:
    """Return how many instances, images or classes of `data` have what the format of `module` cannot hold."""
    return {trait: n for trait, n in count_traits(data).items() if n and trait not in module.HOLDS}


def checked_format(target: Path, format: str | None, pictures: Pictures | None, polygons: bool = False) -> str:
    """Return the name of the format to write; `format`, `pictures` and `polygons` are those of `convert`.

    Raise `UserError` if the format is unknown or has no choice of polygons, or if `target` is not free or of another
    kind.
    """
    if os.path.lexists(target):
        raise UserError(f"{target} exists; choose another name")
    name = format or _format_of(target)
    module = format_module(name)
    if name not in written_formats():
        raise UserError(f"{module.NAME} can be read, but not written; formats to write: {', '.join(written_formats())}")
    if polygons and name != "coco":
        raise UserError(f"--polygons is for COCO, which has runs or polygons; the format {name} has no such choice")
    suffix = target.suffix.lower()
    if module.SUFFIXES and suffix not in module.SUFFIXES:
        raise UserError(f"{target}: the format {name} is a file that ends in {' or '.join(module.SUFFIXES)}")
    if not module.SUFFIXES and suffix in FORMAT_OF_SUFFIX:
        raise UserError(f"{target}: the format {name} is a folder; choose a name without {suffix}")
    folder = target.with_name(IMAGE_FOLDER)
    if module.SUFFIXES and pictures in ("copy", "link") and os.path.lexists(folder):
        raise UserError(
            f"{folder} exists, where the pictures of {target.name} would go; choose another place, or --pictures none"
        )
    return name


def _format_of(target: Path) -> str:
    """Return the format that the suffix of `target` means. Raise `UserError`."""
    name = FORMAT_OF_SUFFIX.get(target.suffix.lower(), "")
    if name not in MODULES:
        meanings = ", ".join(f"{suffix} is {of}" for suffix, of in FORMAT_OF_SUFFIX.items() if of in MODULES)
        raise UserError(
            f"{target}: name the format to write with --to: {', '.join(written_formats())}. By suffix, {meanings}"
        )
    return name


def written_formats() -> list[str]:
    """Return the names of the formats that can be written."""
    return [name for name in MODULES if hasattr(format_module(name), "write")]


def _put(file: Path, place: Path, pictures: Pictures) -> None:
    """Put a picture at `place`: its file, a link to it, or the file that is embedded in annotations."""
    with named(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix.lower() == EMBEDDING:
            place.write_bytes(unturned_picture(file))
        elif pictures == "link":
            place.symlink_to(file.resolve())
        else:
            shutil.copyfile(file, place)
