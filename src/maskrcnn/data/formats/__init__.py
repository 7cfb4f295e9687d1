"""Dataset formats, one module each with `read` and `write`. `open_dataset` detects the format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from maskrcnn.config import Exif
from maskrcnn.data.formats import encoded_pixels
from maskrcnn.data.formats.classes import ClassNames
from maskrcnn.data.formats.packed import TABLE_SUFFIXES
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError, say


def open_dataset(
    source: str | Path,
    images: str | Path | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    class_names: ClassNames | None = None,
    order: Literal["column", "row"] = "column",
    origin: Literal[0, 1] = 1,
    relative: bool = False,
    unlisted: Literal["ignore", "empty"] = "ignore",
    bad: Literal["error", "skip"] = "error",
    depth: int | None = None,
    exif: Exif = "turn",
    say: Callable[[str], None] = say,
) -> Dataset:
    """Open a CSV of run-length masks and its image folder. Raise `UserError`. `say` gets each line of a short summary.

    `images` is the folder, by default the first that has images: ``images``, ``train`` or the CSV's stem beside the
    CSV, or the CSV's own folder. `columns` names columns that are not recognised: ``{"image": ..., "rle": ..., "class":
    ..., "attributes": ..., "height": ..., "width": ...}``. `class_names` maps ids to names, or lists a name for each id
    in sorted order, or is a file: JSON of either, or a text with one name on each line. `order`, `origin` (number of
    the first pixel) and `relative` (each start is an offset from the end of the previous run) describe the runs.
    `unlisted` images are in the folder but not in the CSV: they are ignored or kept as empty. `bad` rows raise an error
    that lists them, or are skipped and listed in ``problems``. Unreadable images are always skipped and listed there.
    `depth` is the number of bits that pictures of more than 8 bits use, by default the smallest usual one that holds
    the largest value of all of them. `exif` "turn" turns pictures upright by their EXIF orientation; "ignore" is for
    masks that were drawn on the pixels as the file stores them.
    """
    source = Path(source)
    if not source.exists():
        raise UserError(f"{source}: there is no such file")
    if source.is_dir() or source.suffix.lower() not in TABLE_SUFFIXES:
        raise UserError(
            f"{source} is not a CSV file ({', '.join(TABLE_SUFFIXES)}) of run-length masks with columns like "
            "ImageId,EncodedPixels; no other format is supported"
        )
    data = encoded_pixels.read(
        source,
        Path(images) if images is not None else None,
        columns=dict(columns or {}),
        class_names=class_names,
        order=order,
        origin=origin,
        relative=relative,
        unlisted=unlisted,
        bad=bad,
        depth=depth,
        exif=exif,
    )
    for note in data.notes:
        say(note)
    return data
