"""One module a format, each with `read` and `write`; `open_dataset` finds out which one it is given."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from maskrcnn.data.formats import encoded_pixels
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def open_dataset(
    source: str | Path,
    images: str | Path | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    class_names: Mapping[Any, str] | str | Path | None = None,
    order: Literal["column", "row"] = "column",
    origin: Literal[0, 1] = 1,
    relative: bool = False,
    unlisted: Literal["ignore", "empty"] = "ignore",
    bad: Literal["error", "skip"] = "error",
    say: Callable[[str], None] = _say,
) -> Dataset:
    """Open a CSV of run-length masks and its folder of images; `say` is told what was found.

    `images` is the folder (by default the one of the CSV, or ``images`` or ``train`` beside it). `columns` names the
    columns that cannot be guessed: ``{"image": ..., "rle": ..., "class": ..., "height": ..., "width": ...}``.
    `class_names` maps ids to names, or is a JSON file that does. `order` ("column" or "row"), `origin` (the first
    pixel's number) and `relative` (starts count from the end of the run before) describe the runs. `unlisted` images
    of the folder are left out or taken as empty. A `bad` row is an error that lists what is wrong, or left out and
    kept in ``problems``. Unreadable images are always left out, and said.

    Raises `UserError`.
    """
    source = Path(source)
    if not source.exists():
        raise UserError(f"{source}: there is no such file")
    if source.is_dir() or source.suffix.lower() not in (".csv", ".tsv", ".txt", ".gz"):
        raise UserError(
            f"{source} is not a CSV file (.csv, .tsv, .txt or .gz) of run-length masks, with columns like "
            "ImageId,EncodedPixels: the one format that can be read so far"
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
    )
    for note in data.notes:
        say(note)
    return data
