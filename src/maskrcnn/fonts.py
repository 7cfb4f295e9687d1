"""Fonts for the labels of pictures: Pillow's if it has the letters of a text, else one of the system's."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from PIL import ImageFont, features

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "arial.ttf",
    "Arial.ttf",
    "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "msyh.ttc",
    "YuGothM.ttc",
    "malgun.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "AppleSDGothicNeo.ttc",
    "NotoSansArabic-Regular.ttf",
    "NotoSansHebrew-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "Nirmala.ttf",
    "NotoEmoji-Regular.ttf",
    "seguiemj.ttf",
    "unifont.ttf",
)
"""Files that Pillow looks for in the font folders of Linux, Windows and macOS, in order of preference."""

PROBE_SIZE = 20
"""Size in pixels at which glyphs are compared."""

BESIDE = string.ascii_letters + string.digits + "."
"""Letters of scores and kinds of errors, which stand beside a class name."""

NO_CHARACTER = "\U0010ffff"
"""A code point that no font has: it is drawn as the box that stands for any missing letter."""


def font_for(text: str, size: int) -> Font:
    """Return a font of `size` pixels that has the letters of `text`; Pillow's if none has them all."""
    return _opened(_font_name(text) or "", size)


def system_font(text: str) -> str | None:
    """Return the file of the system's font that `font_for` takes; None for Pillow's, or if none has the letters."""
    path = getattr(font_for(text, PROBE_SIZE), "path", None)
    return path if isinstance(path, str) else None


def legible(name: str, class_id: Any) -> str:
    """Return `name` in one line, or the id in brackets if no font here has its letters and those beside it."""
    line = " ".join(name.split())
    return line if _font_name(line + BESIDE) is not None else f"[{class_id}]"


@lru_cache(maxsize=4096)
def _font_name(text: str) -> str | None:
    """Return the first font with the letters of `text`, "" for Pillow's, None if there is none.

    Without raqm, Pillow draws text that runs from right to left in the wrong order and unjoined: no font has it.
    """
    if any(unicodedata.bidirectional(c) in ("R", "AL") for c in text) and not features.check("raqm"):
        return None
    letters = {c for c in text if not c.isspace() and unicodedata.category(c) not in ("Mn", "Cf")}
    return next((name for name in _installed(SYSTEM_FONTS) if letters <= _covered(name, frozenset(letters))), None)


def _installed(names: tuple[str, ...]) -> Iterator[str]:
    yield ""
    for name in names:
        if _opens(name):
            yield name


@lru_cache
def _opens(name: str) -> bool:
    try:
        _opened(name, PROBE_SIZE)
    except OSError:
        return False
    return True


@lru_cache
def _opened(name: str, size: int) -> Font:
    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)


def _covered(name: str, letters: frozenset[str]) -> set[str]:
    """Return the letters whose glyph is not that of a missing one."""
    font = _opened(name, PROBE_SIZE)

    def glyph(letter: str) -> tuple[tuple[int, int], bytes]:
        mask = font.getmask(letter)
        return mask.size, bytes(mask)

    missing = glyph(NO_CHARACTER)
    return {letter for letter in letters if glyph(letter) != missing}
