"""Arrays and pictures inside a page: typed arrays as base64 text, feature maps as small grey PNGs.

M x N cells of a map, C channels, k anchors a cell
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from maskrcnn.inspection.gallery import shrunk
from maskrcnn.rle import RLE

TYPES = {np.dtype(name): name for name in ("float32", "int32", "int16", "int8", "uint16", "uint8")}
"""Types that a page's script reads, by the names of JavaScript's arrays in small letters without "Array"."""


def packed(array: np.ndarray, dtype: Any) -> dict[str, str]:
    """Return an array as base64 of its little-endian bytes in `dtype`, row by row."""
    values = np.ascontiguousarray(array, np.dtype(dtype).newbyteorder("<"))
    return {"type": TYPES[np.dtype(dtype)], "bytes": base64.b64encode(values.tobytes()).decode("ascii")}


def script_json(value: Any) -> str:
    """Return JSON that can stand inside a script element: no text in it can end the element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def packed_outlines(masks: Sequence[RLE], hw: tuple[int, int]) -> dict[str, Any]:
    """Return the outlines of masks, scaled to `hw`: points x and y of all rings, and where rings and masks start."""
    rings, ring_starts, mask_starts = [np.zeros((0, 2), np.int64)], [0], [0]
    for mask in masks:
        for part in shrunk(mask, hw).to_polygons() if mask.area else []:
            for ring in (part.outer, *part.holes):
                rings.append(ring)
                ring_starts.append(ring_starts[-1] + len(ring))
        mask_starts.append(len(ring_starts) - 1)
    return {
        "height": hw[0],
        "width": hw[1],
        "points": packed(np.concatenate(rings), "int16"),
        "rings": packed(np.array(ring_starts), "int32"),
        "masks": packed(np.array(mask_starts), "int32"),
    }


def tenths(logits: np.ndarray) -> np.ndarray:
    """Logits as tenths in int8, rounded away from 0 so that the side of 0 stays, up to 12.7."""
    return (np.sign(logits) * np.ceil(np.abs(logits) * 10).clip(max=127)).astype(np.int8)


def norms(feature: np.ndarray) -> np.ndarray:
    """The length of the feature vector of each cell, (M, N, C) -> (M, N)."""
    return np.sqrt(np.square(feature, dtype=np.float32).sum(-1))


def grey(values: np.ndarray, low: float, high: float) -> str:
    """Return values (M, N) as a grey PNG, black at `low` and white at `high`, as a data URI."""
    scaled = ((values - low) / max(high - low, 1e-12)).clip(0, 1) * 255
    return _png(Image.fromarray(scaled.round().astype(np.uint8)))


def spread(values: np.ndarray) -> str:
    """Return values (M, N) as a grey PNG from their 1st to their 99th percentile, as a data URI."""
    low, high = np.percentile(values, [1, 99])
    return grey(values, float(low), float(high))


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
