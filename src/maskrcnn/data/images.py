"""Decoding: any picture that Pillow reads -> (H, W, 3) uint8 RGB, upright by its EXIF orientation.

Gray, palette and RGBA become RGB; alpha is dropped, as annotation tools do. 16-bit gray is scaled by the sensor's
depth. Pillow decodes 16-bit colour as its upper 8 bits. Of several frames, the first is read.
"""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from maskrcnn.errors import ImageError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".jp2"})

PIXEL_LIMIT = 178_956_970
"""Pillow's own limit. Larger pictures are refused before decoding: a few kilobytes can claim terabytes."""

SIDEWAYS = {5, 6, 7, 8}
"""EXIF orientations that swap width and height."""

ORIENTATION = 0x0112


def read_image(source: str | Path | bytes | Image.Image | np.ndarray) -> np.ndarray:
    """Decode a path, the bytes of a file, a Pillow image or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).

    Return (H, W, 3) uint8 RGB. Raise `ImageError` if the picture is missing, truncated, corrupt or too large.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    name = _name(source)
    try:
        with _opened(source) as image:
            _check_size(image.size, name)
            return _to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: there is no such file") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a picture, or one in an unknown format") from None
    except Exception as error:
        # A damaged file makes decoders raise almost anything: OSError, SyntaxError, struct.error, IndexError, ...
        raise ImageError(f"{name}: truncated or corrupt ({str(error)[:120] or type(error).__name__})") from None


def read_size(path: str | Path) -> tuple[int, int]:
    """Read (height, width), upright, from the file's header alone. Raise `ImageError`."""
    try:
        with _opened(path) as image:
            _check_size(image.size, str(path))
            width, height = image.size
            # PNG's own getexif would decode the whole picture to look for a late chunk, so call the base class's.
            # Pillow has already turned the size of a TIFF.
            sideways = image.format != "TIFF" and Image.Image.getexif(image).get(ORIENTATION) in SIDEWAYS
            return (width, height) if sideways else (height, width)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: there is no such file") from None
    except Exception as error:
        raise ImageError(f"{path}: not a readable picture ({str(error)[:120] or type(error).__name__})") from None


def read_sizes(paths: list[Path]) -> list[tuple[int, int] | ImageError]:
    """Call `read_size` on many files in parallel. A file that fails yields its error."""

    def size_or_error(path: Path) -> tuple[int, int] | ImageError:
        try:
            return read_size(path)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(size_or_error, paths))


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else "the image"


@cache
def _allow_large_pictures() -> None:
    """Silence Pillow's warning about pictures above half of its limit, which `PIXEL_LIMIT` allows."""
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def _opened(source: str | Path | bytes | Image.Image) -> Image.Image:
    if isinstance(source, Image.Image):
        return source.copy()
    _allow_large_pictures()
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except Image.DecompressionBombError:
        raise ImageError(f"{_name(source)}: the header claims more than {PIXEL_LIMIT:,} pixels; not decoded") from None


def _check_size(size: tuple[int, int], name: str) -> None:
    if size[0] * size[1] > PIXEL_LIMIT:
        raise ImageError(f"{name}: {size[0]} x {size[1]} pixels are more than the limit of {PIXEL_LIMIT:,}")
    if min(size) < 1:
        raise ImageError(f"{name}: has no pixels ({size[0]} x {size[1]})")


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        return _from_array(np.asarray(image))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    if image.mode in ("LA", "La"):
        image = image.getchannel(0)
    return np.asarray(image.convert("RGB"))


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ImageError(f"an image array has the shape (height, width, 1, 3 or 4), not {array.shape}")
    array = array[:, :, :3]
    if array.dtype != np.uint8:
        array = _to_eight_bits(array)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _to_eight_bits(array: np.ndarray) -> np.ndarray:
    """Scale integers by the smallest common bit depth that holds the maximum, and floats by ``max(maximum, 1)``.

    A 12-bit picture in a 16-bit file then uses the full range, and a 16-bit picture keeps its black and white points.
    """
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind not in "iuf":
        raise ImageError(f"an image array holds integers or floats, not {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ImageError("an image array holds NaN or infinity")
    maximum = float(array.max())
    if array.dtype.kind == "f":
        full = max(maximum, 1.0)
    else:
        full = next(float(2**bits - 1) for bits in (8, 10, 12, 14, 16, 24, 32, 64) if maximum <= 2**bits - 1)
    return np.clip(np.round(array.astype(np.float64) * (255.0 / full)), 0, 255).astype(np.uint8)
