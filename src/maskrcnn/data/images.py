"""Decoding: any picture that Pillow reads -> (H, W, 3) uint8 RGB.

Gray, palette and RGBA become RGB; alpha is dropped, as annotation tools do. `Reading` says how gray of more than 8 bits
is scaled and whether the EXIF orientation counts. Pillow decodes 16-bit colour as its upper 8 bits. Of several frames,
the first is read. A path that ends in ``.json`` is an annotation file of LabelMe's with a picture in it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError, features

from maskrcnn.config import Exif
from maskrcnn.data.embedded import EMBEDDING, ORIENTATION, embedded_picture
from maskrcnn.errors import ImageError
from maskrcnn.reading import BY_ITSELF, Reading

T = TypeVar("T")

PIXEL_LIMIT = 178_956_970
"""Pillow's own limit. Larger pictures are refused before decoding: a few kilobytes can claim terabytes."""

CODECS = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}
"""Formats that Pillow registers though it may be built without their codec, with its name."""

NOT_DECODED = {"EPS", "MPEG"}
"""EPS is a program that another program would run, and of MPEG Pillow reads the header alone."""

NO_PAGES = {"MPO", "PSD"}
"""Formats whose frames are a camera's previews, or layers."""

WITH_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}
"""Pillow's modes whose last channel is alpha."""

NUMBERED_MODES = {"1", "L", "P", "RGB", *WITH_ALPHA}
"""Pillow's modes of up to 8 bits whose values are numbers of a palette or colours as they are."""

LOSSY = {".avif", ".avifs", ".jfif", ".jpe", ".jpeg", ".jpg", ".webp"}
"""Suffixes of files that may blur their pixels, so that not all beside an object are zero."""

SIDEWAYS = {5, 6, 7, 8}
"""EXIF orientations that swap width and height."""

TURNED_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""From the upright picture to the stored pixels, by EXIF orientation."""


@dataclass(frozen=True)
class Header:
    """What a file says about its picture: upright (height, width), EXIF orientation, Pillow's mode of its pixels, and
    how many pages or frames follow one another, of which the first is read."""

    upright_hw: tuple[int, int]
    orientation: int
    mode: str
    n_pages: int = 1

    @property
    def is_turned(self) -> bool:
        """Whether the EXIF orientation moves pixels."""
        return self.orientation in TURNED_BACK

    def hw(self, exif: Exif) -> tuple[int, int]:
        """Return (height, width) of the picture that `read_image` returns."""
        swap = exif == "ignore" and self.orientation in SIDEWAYS
        return (self.upright_hw[1], self.upright_hw[0]) if swap else self.upright_hw


@cache
def picture_suffixes() -> frozenset[str]:
    """Return the lower-case suffixes of the files that Pillow decodes here, which depends on how it was built."""
    decoded = set(_decoded_formats())
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in decoded)


@cache
def _decoded_formats() -> list[str]:
    """Return Pillow's names of the formats that it decodes here, the usual ones first.

    The content of a file decides its format, whatever its suffix: EPS in a file ``a.png`` would run as a program.
    """
    Image.init()
    built_without = {name for name, codec in CODECS.items() if not features.check(codec)}
    return [name for name in Image.ID if name not in NOT_DECODED | built_without and not _is_stub(Image.OPEN[name][0])]


def _is_stub(opener: object) -> bool:
    """Whether Pillow only recognises the format, and leaves its decoding to another package."""
    return isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile)


def read_image(source: str | Path | bytes | Image.Image | np.ndarray, reading: Reading = BY_ITSELF) -> np.ndarray:
    """Decode a path, the bytes of a file, a Pillow image or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).

    `reading` is that of the data set or of the model; by default, the picture is scaled by its own maximum. Return
    (H, W, 3) uint8 RGB. Raise `ImageError` if the picture is missing, truncated, corrupt or too large.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, reading)
    orient = _stored if reading.exif == "ignore" else _upright
    return _decoded(source, lambda image: _to_rgb(orient(image), reading))


def read_mask(source: Path | bytes, exif: Exif, max_hw: tuple[int, int] | None = None) -> np.ndarray:
    """Return the nonzero pixels of a mask file, (H, W) bool; alpha does not count. Raise `ImageError`.

    `source` is a path or the bytes of a file. In a path whose format may be `LOSSY`, they are the pixels of more than
    half of the maximum. A mask larger than `max_hw` is not decoded.
    """
    orient = _stored if exif == "ignore" else _upright
    may_blur = isinstance(source, Path) and source.suffix.lower() in LOSSY

    def nonzero(image: Image.Image) -> np.ndarray:
        values = np.asarray(orient(image))
        colors = values[:, :, :-1] if image.mode in WITH_ALPHA else np.atleast_3d(values)
        is_object = colors > colors.max() / 2 if may_blur else colors != 0
        return is_object.any(2)

    return _decoded(source, nonzero, max_hw)


def read_labels(path: Path, *, gray_is_number: bool = True) -> np.ndarray:
    """Return the numbers of a label picture, (H, W) integers, or its colours, (H, W, 3) uint8. Raise `ImageError`.

    Palette pictures have numbers. Alpha does not count. Colours that are all gray are numbers if `gray_is_number`.
    """

    def labels(image: Image.Image) -> np.ndarray:
        image = _upright(image)
        if image.mode not in NUMBERED_MODES and not is_deep(image.mode):
            image = image.convert("RGB")
        values = np.asarray(image)
        if image.mode in WITH_ALPHA:
            values = values[:, :, :-1]
        if values.ndim == 3 and (image.mode == "LA" or (gray_is_number and (values == values[:, :, :1]).all())):
            values = values[:, :, 0]
        if values.dtype.kind == "f":
            if not (values == np.round(values)).all():
                raise ImageError(f"{path}: a label picture holds integers, and this one has fractions")
            values = values.astype(np.int64)
        return values.astype(np.uint8 if values.dtype == bool else values.dtype.newbyteorder("="))

    return _decoded(path, labels)


def read_opaque(source: Path | bytes, max_hw: tuple[int, int] | None = None) -> np.ndarray:
    """Return the pixels of a picture that are not wholly transparent, (H, W) bool. Raise `ImageError`.

    A picture larger than `max_hw` is not decoded.
    """
    return _decoded(source, lambda image: np.asarray(image.convert("RGBA").getchannel("A")) > 0, max_hw)


def read_maximum(path: Path) -> float:
    """Return the largest finite value of a gray picture before any scaling, or -inf. Raise `ImageError`."""

    def maximum(image: Image.Image) -> float:
        values = np.asarray(image)
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        return float(finite.max()) if finite.size else -np.inf

    return _decoded(path, maximum)


def read_header(path: str | Path) -> Header:
    """Read the header alone. Raise `ImageError`."""
    try:
        with _opened(path) as image:
            _check_size(image.size, str(path))
            # PNG's own getexif would decode the whole picture to look for a late chunk, so call the base class's.
            orientation = Image.Image.getexif(image).get(ORIENTATION, 1)
            width, height = image.size
            # Pillow has already turned the size of a TIFF.
            if image.format != "TIFF" and orientation in SIDEWAYS:
                width, height = height, width
            return Header((height, width), orientation, image.mode, _count_pages(image))
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: there is no such file") from None
    except Exception as error:
        raise ImageError(f"{path}: not a readable picture ({str(error)[:120] or type(error).__name__})") from None


def _count_pages(image: Image.Image) -> int:
    """Return the number of pages or frames; 1 if the later ones are damaged, or are parts or previews of the first."""
    if image.format in NO_PAGES:
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # as in `_decoded`, a damaged file raises anything; its first page may be whole
        return 1


def read_each(read: Callable[[Path], T], paths: list[Path], n_threads: int = 4) -> list[T | ImageError]:
    """Call `read` on many files in parallel. A file for which it raises `ImageError` yields that error."""
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(partial(result_or_error, read), paths))


def result_or_error(read: Callable[[Path], T], path: Path) -> T | ImageError:
    """Return what `read` returns, or the `ImageError` that it raises."""
    try:
        return read(path)
    except ImageError as error:
        return error


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else "the image"


@cache
def _allow_large_pictures() -> None:
    """Silence Pillow's warning about pictures above half of its limit, which `PIXEL_LIMIT` allows."""
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@contextmanager
def _opened(source: str | Path | bytes | Image.Image) -> Iterator[Image.Image]:
    """Yield a Pillow image. One that the caller opened stays open; a TIFF also stays undecoded."""
    page = 0
    if isinstance(source, Image.Image):
        if source.format != "TIFF" or not getattr(source, "tile", None):
            yield source
            return
        # Decoding turns a TIFF and drops its orientation, so that the next reading would find another picture.
        page, source = source.tell(), _content(source)
    is_embedded = isinstance(source, str | Path) and str(source).lower().endswith(EMBEDDING)
    if isinstance(source, str | Path) and is_embedded:
        source = embedded_picture(Path(source))
    _allow_large_pictures()
    # Given a path, Pillow 13 maps an uncompressed TIFF into memory and scrambles it if its orientation is sideways.
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        try:
            image = Image.open(file, formats=_decoded_formats())
        except Image.DecompressionBombError:
            claim = f"the header claims more than {PIXEL_LIMIT:,} pixels; not decoded"
            raise ImageError(f"{_name(source)}: {claim}") from None
        with image:
            if page:
                image.seek(page)
            if is_embedded:
                Image.Image.getexif(image)[ORIENTATION] = 1
            yield image


def _content(image: Image.Image) -> bytes:
    """Return the bytes of the file behind an image that is not decoded yet."""
    file = image.fp  # type: ignore[attr-defined]
    position = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(position)
    return content


def _decoded(
    source: str | Path | bytes | Image.Image,
    convert: Callable[[Image.Image], T],
    max_hw: tuple[int, int] | None = None,
) -> T:
    """Open a picture, check its size and return what `convert` makes of it. Raise `ImageError`."""
    name = _name(source)
    try:
        with _opened(source) as image:
            _check_size(image.size, name)
            if max_hw is not None and (image.size[1] > max_hw[0] or image.size[0] > max_hw[1]):
                size, limit = (f"{h} x {w}" for h, w in (image.size[::-1], max_hw))
                raise ImageError(f"{name}: it is {size}, larger than the picture of {limit} (h x w)")
            return convert(image)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: there is no such file") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a picture, or one in an unknown format") from None
    except Exception as error:
        # A damaged file makes decoders raise almost anything: OSError, SyntaxError, struct.error, IndexError, ...
        raise ImageError(f"{name}: truncated or corrupt ({str(error)[:120] or type(error).__name__})") from None


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image)


def _stored(image: Image.Image) -> Image.Image:
    """Return the pixels as the file stores them. Pillow turns a TIFF when it decodes it, so turn everything back."""
    turn_back = TURNED_BACK.get(image.getexif().get(ORIENTATION, 1))
    upright = _upright(image)
    return upright if turn_back is None else upright.transpose(turn_back)


def _check_size(size: tuple[int, int], name: str) -> None:
    if size[0] * size[1] > PIXEL_LIMIT:
        raise ImageError(f"{name}: {size[0]} x {size[1]} pixels are more than the limit of {PIXEL_LIMIT:,}")
    if min(size) < 1:
        raise ImageError(f"{name}: has no pixels ({size[0]} x {size[1]})")


def _to_rgb(image: Image.Image, reading: Reading) -> np.ndarray:
    if is_deep(image.mode):
        return _from_array(np.asarray(image), reading)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    if image.mode in ("LA", "La"):
        image = image.getchannel(0)
    return np.asarray(image.convert("RGB"))


def is_deep(mode: str) -> bool:
    """Whether Pillow's mode has more than 8 bits."""
    return mode.startswith("I") or mode == "F"


def _from_array(array: np.ndarray, reading: Reading) -> np.ndarray:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ImageError(f"an image array has the shape (height, width, 1, 3 or 4), not {array.shape}")
    array = reading.to_eight_bits(array[:, :, :3])
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))
