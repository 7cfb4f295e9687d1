"""Draw instances over their image: outlines, a light fill, boxes and labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maskrcnn.rle import RLE

# Okabe and Ito's colour-blind-safe palette (jfly.uni-koeln.de/color) without black and grey.
PALETTE = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)],
    np.uint8,
)

MIN_SIDE = 640
"""Approximate minimum of the longer side, in pixels. Smaller images are enlarged by 2, 3 or 4: labels stay legible."""


def draw_instances(
    image: np.ndarray,
    masks: Sequence[RLE],
    boxes: np.ndarray | None = None,
    labels: Sequence[str] | None = None,
    colors: np.ndarray | None = None,
) -> Image.Image:
    """Draw on a copy of `image` (H, W, 3) uint8.

    `boxes` (N, 4) are xyxy in pixels. `colors` (N,) are indices into `PALETTE`, by default the instance numbers. Empty
    labels are skipped, as are labels wider than their boxes if there are over 40 instances: they would hide the image.
    """
    height, width = image.shape[:2]
    zoom = max(1, min(4, MIN_SIDE // max(height, width)))
    canvas = np.repeat(np.repeat(image, zoom, 0), zoom, 1).astype(np.uint8)
    colors = np.arange(len(masks)) if colors is None else np.asarray(colors)
    for mask, color in zip(masks, colors, strict=True):
        _paint(canvas, mask, PALETTE[color % len(PALETTE)], zoom)
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(11, round(max(picture.size) / 60)))
    crowded = len(masks) > 40
    for i, color in enumerate(colors):
        ink = tuple(int(v) for v in PALETTE[color % len(PALETTE)])
        x1, y1, x2, y2 = (float(v) * zoom for v in (boxes[i] if boxes is not None else masks[i].box))
        if boxes is not None:
            draw.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=ink, width=1)
        if labels is not None and labels[i] and (not crowded or x2 - x1 > draw.textlength(labels[i], font=font)):
            _label(draw, font, labels[i], (x1, y1), ink, picture.size)
    return picture


def _paint(canvas: np.ndarray, mask: RLE, color: np.ndarray, zoom: int) -> None:
    """Draw a light fill and an opaque outline, writing only inside the mask's box."""
    x1, y1, x2, y2 = mask.box
    if x2 == x1:
        return
    inside = np.repeat(np.repeat(mask.to_mask((x1 - 1, y1 - 1, x2 + 1, y2 + 1)), zoom, 0), zoom, 1)
    interior = inside.copy()
    for shift in range(1, 1 + max(1, zoom // 2)):
        interior[shift:] &= inside[:-shift]
        interior[:-shift] &= inside[shift:]
        interior[:, shift:] &= inside[:, :-shift]
        interior[:, :-shift] &= inside[:, shift:]
    trim = slice(zoom, -zoom)
    inside, interior = inside[trim, trim], interior[trim, trim]
    view = canvas[y1 * zoom : y2 * zoom, x1 * zoom : x2 * zoom]
    view[interior] = (0.75 * view[interior] + 0.25 * color).astype(np.uint8)
    view[inside & ~interior] = color


def _label(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    text: str,
    corner: tuple[float, float],
    ink: tuple[int, ...],
    size: tuple[int, int],
) -> None:
    """Draw text on a plate of colour `ink` above the box's top-left `corner`, kept inside the image."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    w, h = right - left + 4, bottom - top + 4
    x = min(max(corner[0], 0), max(size[0] - w, 0))
    y = corner[1] - h if corner[1] >= h else corner[1]
    dark = 0.299 * ink[0] + 0.587 * ink[1] + 0.114 * ink[2] < 140
    draw.rectangle((x, y, x + w, y + h), fill=ink)
    draw.text((x + 2 - left, y + 2 - top), text, font=font, fill=(255, 255, 255) if dark else (0, 0, 0))
