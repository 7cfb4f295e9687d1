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

CROWDED = 40
"""With more instances than this, a label must be narrower than its box."""

PADDING = 2
"""Pixels between a label's text and the edge of its plate."""


def draw_instances(
    image: np.ndarray,
    masks: Sequence[RLE],
    boxes: np.ndarray | None = None,
    labels: Sequence[str] | None = None,
    colors: np.ndarray | None = None,
) -> Image.Image:
    """Draw on a copy of `image` (H, W, 3) uint8.

    `boxes` (N, 4) are xyxy in pixels. `colors` (N,) are indices into `PALETTE`, by default the instance numbers. Labels
    do not cover each other: the first instances get theirs first, and one that finds no place is skipped. Empty labels
    are skipped, as are labels wider than their boxes if there are over 40 instances: they would hide the image.
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
    outlined = boxes is not None
    boxes = np.array([m.box for m in masks]).reshape(-1, 4) if boxes is None else boxes
    zoomed = boxes * zoom
    inks = [tuple(int(v) for v in PALETTE[color % len(PALETTE)]) for color in colors]
    if outlined:
        for (x1, y1, x2, y2), ink in zip(zoomed.tolist(), inks, strict=True):
            draw.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=ink, width=1)
    texts = list(labels) if labels is not None else [""] * len(masks)
    if len(masks) > CROWDED:
        widths = zoomed[:, 2] - zoomed[:, 0]
        texts = [t if draw.textlength(t, font=font) < width else "" for t, width in zip(texts, widths, strict=True)]
    labelled = [i for i, text in enumerate(texts) if text]
    text_boxes = [draw.textbbox((0, 0), texts[i], font=font) for i in labelled]
    sizes = [
        (right - left + 2 * PADDING + 1, bottom - top + 2 * PADDING + 1) for left, top, right, bottom in text_boxes
    ]
    plates = place_labels(zoomed[labelled].astype(np.int64), np.array(sizes, np.int64).reshape(-1, 2), picture.size)
    for i, (left, top, *_), plate in zip(labelled, text_boxes, plates, strict=True):
        if plate is not None:
            _draw_label(draw, font, texts[i], (plate[0] + PADDING - left, plate[1] + PADDING - top), plate, inks[i])
    return picture


Rectangle = tuple[int, int, int, int]
"""Half-open, (x1, y1, x2, y2) in pixels."""


def place_labels(boxes: np.ndarray, sizes: np.ndarray, picture_wh: tuple[int, int]) -> list[Rectangle | None]:
    """Place a label of `sizes` (N, 2) width and height at each of `boxes` (N, 4) int64 xyxy, the first box first.

    Labels lie inside the picture and cover no earlier label. Each takes the first free place: above its box, below it,
    beside it, inside it. None stands for a label that finds no place.
    """
    plates: list[Rectangle | None] = []
    taken = np.empty((0, 4), np.int64)
    for box, size in zip(boxes, sizes, strict=True):
        places = _places(box, size, picture_wh)
        covers = (places[:, None, :2] < taken[None, :, 2:]).all(2) & (taken[None, :, :2] < places[:, None, 2:]).all(2)
        free = np.flatnonzero(~covers.any(1))
        if len(free):
            taken = np.concatenate([taken, places[free[:1]]])
            x1, y1, x2, y2 = places[free[0]].tolist()
            plates.append((x1, y1, x2, y2))
        else:
            plates.append(None)
    return plates


def _places(box: np.ndarray, size: np.ndarray, picture_wh: tuple[int, int]) -> np.ndarray:
    """Return the places (n, 4) xyxy for a label of `size` at `box` that lie inside the picture, best first."""
    (x1, y1, x2, y2), (w, h) = box.tolist(), size.tolist()
    above, below, inside_top, inside_bottom = y1 - h + 1, y2 - 1, y1, y2 - h
    along = (x1, x2 - w, (x1 + x2 - w) // 2, x1 - w // 2, x2 - w // 2)  # flush with a side, centred, or past a corner
    corners = [
        (x1, above if above >= 0 else inside_top),
        *((x, above) for x in along),
        *((x, below) for x in along),
        *((x, y) for x in (x2, x1 - w) for y in (inside_top, inside_bottom, above, below)),
        *((x, y) for y in (inside_top, inside_bottom) for x in along[:3]),
    ]
    low = np.array(corners, np.int64)
    low[:, 0] = np.clip(low[:, 0], 0, max(picture_wh[0] - w, 0))
    places = np.concatenate([low, low + size], 1)
    return places[(places[:, 1] >= 0) & (places[:, 2] <= picture_wh[0]) & (places[:, 3] <= picture_wh[1])]


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


def _draw_label(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    text: str,
    origin: tuple[float, float],
    plate: Rectangle,
    ink: tuple[int, ...],
) -> None:
    """Draw text at `origin` on a plate of colour `ink`."""
    x1, y1, x2, y2 = plate
    dark = 0.299 * ink[0] + 0.587 * ink[1] + 0.114 * ink[2] < 140
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=ink)
    draw.text(origin, text, font=font, fill=(255, 255, 255) if dark else (0, 0, 0))
