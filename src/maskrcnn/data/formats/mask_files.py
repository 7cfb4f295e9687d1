"""Mask files that a table names in place of runs: file names -> pictures -> runs.

Nonzero pixels are the object. In a JPEG, WebP or AVIF, whose edges are blurred, those above half of the maximum are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from maskrcnn.config import Exif
from maskrcnn.data.images import LOSSY, read_each, read_mask
from maskrcnn.data.pictures import is_picture
from maskrcnn.errors import ImageError
from maskrcnn.rle import RLE, BadRuns, RunTable, shortened


def name_files(texts: Iterable[str]) -> bool:
    """Whether there are texts and all are names of pictures."""
    is_name = False
    for text in texts:
        if not (is_name := is_picture(PurePosixPath(_file_name(text)))):
            break
    return is_name


def describe_object(texts: Sequence[str]) -> str:
    """Say which pixels are the object in the files that `texts` name, as a relative clause."""
    are_lossy = [PurePosixPath(_file_name(text)).suffix.lower() in LOSSY for text in texts]
    if not any(are_lossy):
        return "whose nonzero pixels are the object"
    if all(are_lossy):
        return "whose pixels above half of the file's maximum are the object, because the format blurs edges"
    return (
        "whose nonzero pixels are the object, or those above half of the file's maximum in JPEG, WebP and AVIF, which "
        "blur edges"
    )


def existing_files(texts: Iterable[str], folders: Sequence[Path]) -> set[Path]:
    """Return the files that `texts` name and that exist, without links."""
    files = set()
    for text in texts:
        with suppress(ImageError):
            files.add(_find(text, folders))
    return files


def read_mask_files(
    texts: Sequence[str], hw: np.ndarray, folders: Sequence[Path], exif: Exif
) -> tuple[RunTable, list[BadRuns]]:
    """Return the masks in the files that `texts` name, and what is wrong with the others, whose masks are empty.

    `hw` (n, 2) are the (height, width) of the images. A file lies in one of `folders`, the first that has it, and never
    outside of them, wherever its name or a link leads.
    """
    files: list[Path] = []
    fault_of_index: dict[int, str] = {}
    for i, text in enumerate(texts):
        try:
            files.append(_find(text, folders))
        except ImageError as error:
            fault_of_index[i] = str(error)
    found = [i for i in range(len(texts)) if i not in fault_of_index]
    runs = [np.empty((0, 2), np.int64)] * len(texts)
    for i, mask in zip(found, read_each(partial(_read_runs, exif=exif), files), strict=True):
        if isinstance(mask, ImageError):
            fault_of_index[i] = str(mask)
        elif mask.hw != tuple(hw[i]):
            of_image = f"the image {hw[i, 0]} x {hw[i, 1]}"
            fault_of_index[i] = f"the mask file {texts[i]} has {mask.hw[0]} x {mask.hw[1]} (height x width), {of_image}"
        else:
            runs[i] = mask.runs
    return RunTable.of(runs), [BadRuns(i, fault) for i, fault in sorted(fault_of_index.items())]


def _file_name(text: str) -> str:
    return text.replace("\\", "/").rpartition("/")[2]


def _find(text: str, folders: Sequence[Path]) -> Path:
    """Return the file that `text` names. Raise `ImageError` if it is missing, no name, or outside of `folders`."""
    inside = [folder.resolve() for folder in folders]
    try:
        candidates = [Path(folder, text.replace("\\", "/")).resolve() for folder in inside]
        existing = [path for path in candidates if path.is_file()]
    except (OSError, ValueError, RuntimeError) as error:  # a name that is too long, one with a NUL, a circle of links
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"the mask file {shortened(repr(text))} cannot be found: {reason}") from None
    is_inside = [any(path.is_relative_to(folder) for folder in inside) for path in existing or candidates]
    places = " and ".join(dict.fromkeys(map(str, folders)))
    if not any(is_inside):
        raise ImageError(f"the mask file {text} lies outside of {places}, where mask files are looked for")
    if not existing:
        raise ImageError(f"there is no mask file {text} in {places}")
    return existing[is_inside.index(True)]


def _read_runs(file: Path, exif: Exif) -> RLE:
    return RLE.from_mask(read_mask(file, exif))
