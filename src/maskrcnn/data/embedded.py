"""Pictures that LabelMe puts into its annotation files, as base64 in JSON.

LabelMe shows their pixels as stored: it has turned them before, and an EXIF orientation that is left means nothing.
"""

from __future__ import annotations

import base64
import io
import json
import struct
from pathlib import Path

from PIL import Image

from maskrcnn.errors import ImageError

EMBEDDING = ".json"
"""Suffix of the files that have a picture in them."""

ORIENTATION = 0x0112
"""EXIF's number of the orientation; its value 1 is upright."""

EXIF_MARK = b"Exif\0\0"
"""Start of a JPEG's block of EXIF."""


def embedded_picture(path: Path) -> bytes:
    """Return the file of the picture that LabelMe put into an annotation file. Raise `ImageError`."""
    try:
        content = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{path}: not a JSON file with a picture ({str(error)[:120]})") from None
    text = content.get("imageData") if isinstance(content, dict) else None
    if not isinstance(text, str) or not text:
        raise ImageError(f"{path}: has no picture (imageData)")
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text)
    except ValueError as error:
        raise ImageError(f"{path}: imageData is not base64 ({error})") from None


def unturned_picture(path: Path) -> bytes:
    """Return the file of an embedded picture with the EXIF orientation 1: others read its pixels as stored, too.

    A JPEG keeps its coded pixels. A file whose orientation does not stand in EXIF becomes a PNG. Raise `ImageError`.
    """
    content = embedded_picture(path)
    if _orientation(content) == 1:
        return content
    with Image.open(io.BytesIO(content)) as image:
        exif = image.info.get("exif", b"") if image.format == "JPEG" else b""
    unturned = content.replace(exif, _with_orientation_1(exif), 1)
    if _orientation(unturned) == 1:
        return unturned
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        for key in ("exif", "xmp", "XML:com.adobe.xmp"):
            image.info.pop(key, None)
        image.save(file := io.BytesIO(), "PNG", exif=b"")
        return file.getvalue()


def _orientation(content: bytes) -> int:
    with Image.open(io.BytesIO(content)) as image:
        return int(image.getexif().get(ORIENTATION, 1))


def _with_orientation_1(exif: bytes) -> bytes:
    """Return a block of EXIF with 1 as the orientation, or as it is if it has none in its first directory."""
    start = len(EXIF_MARK) if exif.startswith(EXIF_MARK) else 0
    order = "<" if exif[start : start + 2] == b"II" else ">"
    try:
        directory = start + struct.unpack_from(f"{order}I", exif, start + 4)[0]
        n_entries = struct.unpack_from(f"{order}H", exif, directory)[0]
        entries = range(directory + 2, directory + 2 + 12 * n_entries, 12)
        entry = next(e for e in entries if struct.unpack_from(f"{order}H", exif, e)[0] == ORIENTATION)
    except (struct.error, StopIteration):
        return exif
    return exif[: entry + 8] + struct.pack(f"{order}H", 1) + exif[entry + 10 :]
