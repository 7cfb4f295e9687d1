"""Formats of data sets, one module each. `open_dataset` recognises the format, `write_dataset` writes one.

The module of a format has

    NAME                                   what people call it
    HOLDS                                  the traits of a data set that it keeps (`formats.traits`)
    SUFFIXES                               those of a file to write; none for a format that is a folder
    ROLES                                  what --column may name; without it, nothing
    recognizes(source) -> bool             whether a file or a folder is of the format, by its content
    read(source) -> Annotations            what it lists (`encoded_pixels` has columns and gives a `Dataset` itself)
    write(data, target)                    the annotations in this format, image by image
    picture_path(data, i) -> PurePath      where the layout has the picture of image i; only if it demands a place
    painted_together(data, i)              the instances (n,) in each picture of image i; only if a pixel has one object
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Literal

from maskrcnn.config import Exif
from maskrcnn.data.format_names import MODULES as MODULES
from maskrcnn.data.formats import encoded_pixels
from maskrcnn.data.formats.assemble import OpenOptions
from maskrcnn.data.formats.classes import ClassNames
from maskrcnn.data.formats.columns import HEADERS
from maskrcnn.data.formats.mask_texts import Numbering
from maskrcnn.data.formats.opening import to_dataset
from maskrcnn.data.formats.source import Source
from maskrcnn.data.formats.unreadable import refuse, way_forward
from maskrcnn.data.formats.writable import writable
from maskrcnn.data.headers import load_headers
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError, say


def format_module(name: str) -> ModuleType:
    """Return the module of a format. Raise `UserError` for an unknown name."""
    if name not in MODULES:
        raise UserError(f"there is no format {name!r}; the formats are {', '.join(MODULES)}")
    return import_module(f"maskrcnn.data.formats.{MODULES[name]}")


def recognized(source: Source) -> str:
    """Return the name of the format of `source`. Raise `UserError` if no format recognises it."""
    refuse(source)
    for name in MODULES:
        if format_module(name).recognizes(source):
            return name
    raise UserError(f"{source.path}: {way_forward(source)}")


def open_dataset(
    source: str | Path,
    images: str | Path | None = None,
    *,
    format: str | None = None,
    part: str | None = None,
    columns: Mapping[str, str] | None = None,
    class_names: ClassNames | None = None,
    order: Literal["column", "row"] = "column",
    origin: Literal[0, 1] = 1,
    relative: bool = False,
    unlisted: Literal["ignore", "empty"] = "ignore",
    bad: Literal["error", "skip"] = "error",
    depth: int | None = None,
    exif: Exif = "turn",
    known_headers: Path | None = None,
    say: Callable[[str], None] = say,
) -> Dataset:
    """Open annotations and their image folder. Raise `UserError`. `say` gets each line of a short summary.

    `format` is a key of `MODULES`; by default, the content of `source` decides. `part` reads that part of a divided
    source alone: "train", "val" or "test". `images` is the folder, by default the one near the source (``images``,
    ``train``, the source's stem or its own folder) that has most of the pictures. `class_names` maps ids to names, or
    lists a name for each id in sorted order, or is a file: JSON of either, or a text with one name on each line.
    `unlisted` images are in the folder but not in the annotations: they are ignored or kept as empty. `bad` annotations
    raise an error that lists them, or are skipped and listed in ``problems``. Unreadable images are always skipped and
    listed there. `depth` is the number of bits that pictures of more than 8 bits use, by default the smallest usual one
    that holds the largest value of all of them. `exif` "turn" turns pictures upright by their EXIF orientation;
    "ignore" is for masks that were drawn on the pixels as the file stores them. `known_headers` is the
    ``state/headers.json`` of a run with the same pictures.

    `columns` also names the attribute of VIA's regions that is the class, ``{"class": ...}``, and the key of Label
    Studio's tasks that holds the picture, ``{"image": ...}``.

    Of tables alone: `columns` names columns that are not recognised: ``{"image": ..., "rle": ..., "class": ...,
    "attributes": ..., "height": ..., "width": ...}``. `order`, `origin` (number of the first pixel) and `relative`
    (each start is an offset from the end of the previous run) describe the runs. A note says which of these options the
    format has no use for.
    """
    for role in columns or {}:
        if role not in HEADERS:
            raise UserError(f"columns: unknown role {role!r}; the roles are {', '.join(HEADERS)}")
    opened = Source(Path(source), columns, part or "")
    options = OpenOptions(
        images=Path(images) if images is not None else None,
        columns=dict(columns or {}),
        class_names=class_names,
        numbering=Numbering(order, origin, relative),
        unlisted=unlisted,
        bad=bad,
        depth=depth,
        exif=exif,
        known_headers=load_headers(known_headers) if known_headers else {},
        part=part or "",
    )
    name = format or recognized(opened)
    module = format_module(name)
    if name == "csv" and part:
        raise UserError(f"{source} is a table, which is not divided into parts; leave --part out")
    with _without_collection():
        data = encoded_pixels.read(opened.path, options) if name == "csv" else to_dataset(module.read(opened), options)
    data.notes[:0] = _describe_unused(data, module, options)
    for note in data.notes:
        say(note)
    return data


def _describe_unused(data: Dataset, module: ModuleType, options: OpenOptions) -> list[str]:
    """Return a line about options that the format has no use for, if there are any."""
    roles: frozenset[str] = getattr(module, "ROLES", frozenset())
    unused = [f"--column {role}={name}" for role, name in options.columns.items() if role not in roles]
    if not data.is_numbered:
        unused += options.numbering.chosen()
    return [f"{data.source}: {module.NAME} has no use for {' and '.join(unused)}"] if unused else []


@contextmanager
def _without_collection() -> Iterator[None]:
    """Pause the search for cyclic garbage, which would go through millions of annotations again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def write_dataset(data: Dataset, target: str | Path, format: str) -> dict[str, int]:
    """Write the annotations of `data` to `target`, a file or a folder as the format has it. Raise `UserError`.

    Return how many instances of each kind are left out, because the format cannot hold them.
    """
    module = format_module(format)
    kept, left_out = writable(data, module)
    module.write(kept, Path(target))
    return left_out
