"""Pictures of results, for notebooks and plots: detections over their image, and the stages of a trace.

h x w pixels of the network's input, M x N cells of a map, k anchors a cell
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from maskrcnn.data.images import read_image
from maskrcnn.drawing import PALETTE
from maskrcnn.errors import ImageError, UserError, counted
from maskrcnn.inspection.trace import Trace
from maskrcnn.structures import Detections

MAX_PROPOSALS = 100
"""Boxes that the picture of the proposals shows, the best ones."""

DIM = 0.6
"""Brightness of the picture below a map or below boxes, as a factor."""

MAX_OPACITY = 0.7
"""Opacity of a map at objectness 1: the object stays visible below it."""

COLD, HOT = PALETTE[5].astype(np.float32), PALETTE[3].astype(np.float32)
"""Vermilion and yellow: the colours of objectness from 0 to 1."""


def with_pixels(found: Detections) -> Detections:
    """Return detections with their image, read again from its file if it was not kept.

    Raise `ImageError` if the file cannot be read or has another size now, `UserError` if there is none.
    """
    if found.pixels is not None:
        return found
    if found.image is None:
        raise UserError("these detections do not include their image; predict with keep_pixels=True")
    pixels = read_image(Path(found.image), found.reading)
    if pixels.shape[:2] != found.hw:
        raise ImageError(
            f"{found.image}: the file has changed since the prediction: (height, width) was {found.hw}, and is now "
            f"{pixels.shape[:2]}. Predict it again"
        )
    return replace(found, pixels=pixels)


def objectness_map(trace: Trace) -> np.ndarray:
    """Return the highest objectness of any anchor at each pixel of the picture in the input, (h, w) float32."""
    x1, y1, x2, y2 = (int(v) for v in trace.window)
    highest = np.zeros((y2, x2), np.float32)
    for probabilities, stride in zip(trace.rpn_class_probabilities, trace.strides, strict=True):
        _, rows, columns, _ = probabilities.shape
        cells = probabilities.reshape(rows, columns, -1, 2)[..., 1].max(-1)  # (1, M, N, 2k) -> (M, N)
        scaled = Image.fromarray(cells.astype(np.float32)).resize(
            (columns * stride, rows * stride), Image.Resampling.BILINEAR
        )
        level = np.zeros_like(highest)
        visible = np.asarray(scaled)[:y2, :x2]
        level[: visible.shape[0], : visible.shape[1]] = visible
        highest = np.maximum(highest, level)
    return highest[y1:y2, x1:x2]


def stage_overlays(trace: Trace, side: int) -> dict[str, Image.Image]:
    """Return four pictures by caption, up to `side` pixels long: input, objectness, best proposals and detections."""
    x1, y1, x2, y2 = (int(v) for v in trace.window)
    visible = trace.network_input[0, y1:y2, x1:x2].round().astype(np.uint8)  # some conventions scale to floats
    found = replace(trace.detections, pixels=trace.picture)
    n = len(trace.proposals.boxes)
    shown = f"the best {MAX_PROPOSALS} of {n:,} proposals" if n > MAX_PROPOSALS else counted(n, "proposal")
    return {
        f"input, {x2 - x1} x {y2 - y1} px": _fitted(Image.fromarray(visible), side),
        "objectness": _fitted(_heated(visible, objectness_map(trace)), side),
        shown: _with_proposals(trace, _fitted(Image.fromarray(_dimmed(visible)), side)),
        counted(len(found), "detection"): found.overlay(side, names=found.has_several_classes),
    }


def _fitted(picture: Image.Image, side: int) -> Image.Image:
    """Scale a picture so that its longer side has `side` pixels."""
    scale = side / max(picture.size)
    wh = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(wh, Image.Resampling.BILINEAR)


def _dimmed(pixels: np.ndarray) -> np.ndarray:
    """Return a dark gray copy of pixels (h, w, 3) uint8."""
    gray = pixels.mean(-1, keepdims=True) * DIM
    return np.repeat(gray, 3, -1).astype(np.uint8)


def _heated(pixels: np.ndarray, heat: np.ndarray) -> Image.Image:
    """Lay `heat` (h, w) in [0, 1] over dimmed pixels: the hotter, the brighter and the less transparent."""
    share = heat[..., None]
    color, opacity = (1 - share) * COLD + share * HOT, MAX_OPACITY * share
    return Image.fromarray(((1 - opacity) * _dimmed(pixels) + opacity * color).astype(np.uint8))


def _with_proposals(trace: Trace, picture: Image.Image) -> Image.Image:
    """Draw the best proposals on a picture of the window, each in the colour of its objectness."""
    x1, y1, x2, y2 = trace.window
    scale = np.array([picture.width / (x2 - x1), picture.height / (y2 - y1)] * 2)
    boxes = (trace.proposals.boxes[:MAX_PROPOSALS] - [x1, y1, x1, y1]) * scale
    draw = ImageDraw.Draw(picture)
    for box, objectness in reversed(list(zip(boxes.tolist(), trace.proposals.objectness.tolist(), strict=False))):
        left, top, right, bottom = box
        red, green, blue = (round(v) for v in ((1 - objectness) * COLD + objectness * HOT).tolist())
        draw.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=(red, green, blue))
    return picture
