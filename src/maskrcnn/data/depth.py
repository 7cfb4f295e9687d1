"""The range of pictures of more than 8 bits is a property of their data set: files -> `Reading` and notes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskrcnn.config import Exif
from maskrcnn.data.images import is_deep, read_each, read_maximum
from maskrcnn.errors import ImageError, UserError
from maskrcnn.reading import BIT_DEPTHS, MAX_DEPTH, Reading, full_scale


def find_reading(files: list[Path], modes: list[str], depth: int | None, exif: Exif) -> tuple[Reading, list[str]]:
    """Return how to read `files`, whose headers give `modes`, and notes for people. Raise `UserError`.

    Only pictures of more than 8 bits are decoded, once, and none of them if `depth` is given. Integers up to 16 bits
    get the smallest usual depth that holds all of them; for wider integers and floats, the largest value is white.
    """
    if depth is not None and not 1 <= depth <= MAX_DEPTH:
        raise UserError(f"the depth is a number of bits from 1 to {MAX_DEPTH}, not {depth}")
    deep = [(file, mode) for file, mode in zip(files, modes, strict=True) if is_deep(mode)]
    if not deep:
        unused = f"depth {depth} is not used: no picture has more than 8 bits a channel as Pillow decodes it"
        return Reading(exif=exif), [] if depth is None else [unused]
    is_float = np.array([mode == "F" for _, mode in deep])
    if depth is not None:
        given = full_scale(depth)
        note = f"pictures of more than 8 bits: {depth} bits, as --depth says"
        return Reading(None if is_float.all() else given, given if is_float.any() else None, exif), [note]
    results = read_each(read_maximum, [file for file, _ in deep])
    maxima = np.array([-np.inf if isinstance(result, ImageError) else result for result in results])
    integer_maximum = float(maxima[~is_float].max(initial=-np.inf))
    float_maximum = float(maxima[is_float].max(initial=-np.inf))
    white: float | None = None
    float_white: float | None = None
    notes = []
    if np.isfinite(integer_maximum):
        bits = next((bits for bits in BIT_DEPTHS if integer_maximum <= full_scale(bits)), None)
        white = integer_maximum if bits is None else full_scale(bits)
        kind, use = ("32-bit", "the largest value is white") if bits is None else ("16-bit", f"{bits} bits are used")
        notes.append(f"{kind} pictures: {use} (largest value {integer_maximum:,.0f}); --depth N sets another")
    if float_maximum > 0:
        float_white = float_maximum
        notes.append(f"float pictures: the largest value, {float_maximum:,.6g}, is white; --depth N sets 2^N - 1")
    return Reading(white, float_white, exif), notes
