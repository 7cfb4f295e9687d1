"""Decoding: any picture that Pillow reads -> (H, W, 3) uint8 RGB, upright, never silently cut or modified.

Orientation of EXIF is applied, so width and height here are those that a viewer shows. Gray, palette and RGBA become
RGB; alpha is dropped, as annotation tools do. 16-bit gray is scaled by the sensor's depth, not cut to 8 bits; 16-bit
colour comes from Pillow as its upper 8 bits.
"""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from maskrcnn.errors import UserError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".jp2"})

PIXEL_LIMIT = 178_956_970
"""More pixels than this, Pillow's own limit, are refused before decoding: a few kilobytes can claim terabytes."""

# Pillow warns from half of the limit on; what is allowed is no cause for alarm.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

SIDEWAYS = {5, 6, 7, 8}
"""EXIF orientations that swap width and height."""

ORIENTATION = 0x0112


class ImageError(UserError, ValueError):
    """A picture that cannot be used: says which one and why."""


def read_image(source: str | Path | bytes | Image.Image | np.ndarray) -> np.ndarray:
    """Decode a path, the bytes of a file, a Pillow image or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).

    Returns (H, W, 3) uint8 RGB. Raises `ImageError` for what is missing, truncated, corrupt or too large.
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
        # Decoders raise whatever a damaged file leads them to (OSError, SyntaxError, struct.error, IndexError, ...).
        raise ImageError(f"{name}: truncated or corrupt ({str(error)[:120] or type(error).__name__})") from None


def read_size(path: str | Path) -> tuple[int, int]:
    """(height, width), upright, from the file's header alone. Raises `ImageError`."""
    try:
        with _opened(path) as image:
            _check_size(image.size, str(path))
            width, height = image.size
            # The base class's getexif: that of PNG would decode the whole picture to look for a late chunk. Pillow
            # turns TIFF's size itself.
            if image.format != "TIFF" and Image.Image.getexif(image).get(ORIENTATION) in SIDEWAYS:
                width, height = height, width
            return height, width
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: there is no such file") from None
    except Exception as error:
        raise ImageError(f"{path}: not a readable picture ({str(error)[:120] or type(error).__name__})") from None


def read_sizes(paths: list[Path]) -> list[tuple[int, int] | ImageError]:
    """`read_size` of many files at once; a bad one gives its error."""

    def one(path: Path) -> tuple[int, int] | ImageError:
        try:
            return read_size(path)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, paths))


def resize(image: np.ndarray, hw: tuple[int, int], window: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """Scale `image`, or the window ``(x1, y1, x2, y2)`` of it, to `hw`: bilinear, averaging where it shrinks.

    First along x, then along y: left to itself, Pillow from 13 on takes some high pictures the other way round, which
    rounds a tenth of their bytes differently.
    """
    x1, y1, x2, y2 = window or (0, 0, image.shape[1], image.shape[0])
    if (y2 - y1, x2 - x1) == tuple(hw):
        return image[y1:y2, x1:x2]
    rule = Image.Resampling.BILINEAR
    rows = Image.fromarray(image).resize((hw[1], y2 - y1), rule, (x1, y1, x2, y2))
    return np.asarray(rows.resize((hw[1], hw[0]), rule))


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else "the image"


def _opened(source: str | Path | bytes | Image.Image) -> Image.Image:
    if isinstance(source, Image.Image):
        return source.copy()
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except Image.DecompressionBombError:
        raise ImageError(f"{_name(source)}: claims more than {PIXEL_LIMIT:,} pixels; refused unread") from None


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
    """Scale integers by the smallest usual sensor depth (8, 10, 12, 14, 16, 24, 32 bits) that holds the maximum.

    A 12-bit picture in a 16-bit file uses the full range, and one of 16 bits keeps its relation to black and white.
    Floats are taken to lie in [0, 1] if none is larger, else they are scaled by their maximum.
    """
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind not in "iuf":
        raise ImageError(f"an image array holds integers or floats, not {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ImageError("an image array holds NaN or infinity")
    top = float(array.max())
    if array.dtype.kind == "f":
        full = max(top, 1.0)
    else:
        full = next(float(2**bits - 1) for bits in (8, 10, 12, 14, 16, 24, 32, 64) if top <= 2**bits - 1)
    return np.clip(np.round(array.astype(np.float64) * (255.0 / full)), 0, 255).astype(np.uint8)
