"""Draw instances over their image: outlines, a light fill, boxes and labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from maskrcnn.fonts import font_for
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

Rectangle = tuple[int, int, int, int]
"""Half-open, (x1, y1, x2, y2) in pixels."""


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
    font_size = max(11, round(max(picture.size) / 60))
    inks = [tuple(int(v) for v in PALETTE[color % len(PALETTE)]) for color in colors]
    corners = np.array([m.box for m in masks] if boxes is None else boxes, float).reshape(-1, 4) * zoom
    if boxes is not None:
        for (x1, y1, x2, y2), ink in zip(corners.tolist(), inks, strict=True):
            draw.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=ink, width=1)
    if labels is not None:
        widths = corners[:, 2] - corners[:, 0] if len(masks) > CROWDED else np.full(len(masks), np.inf)
        lengths = [draw.textlength(text, font=font_for(text, font_size)) if text else 0 for text in labels]
        fitting = [i for i, text in enumerate(labels) if text and lengths[i] < widths[i]]
        _draw_labels(draw, font_size, [labels[i] for i in fitting], corners[fitting], [inks[i] for i in fitting])
    return picture


def shrink_to(
    image: np.ndarray, masks: Sequence[RLE], boxes: np.ndarray, max_side: int
) -> tuple[np.ndarray, Sequence[RLE], np.ndarray]:
    """Shrink an image (H, W, 3) uint8 with its instances until its longer side has `max_side` pixels or less."""
    height, width = image.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return image, masks, boxes
    hw = max(1, round(height * scale)), max(1, round(width * scale))
    small = np.asarray(Image.fromarray(image).resize((hw[1], hw[0]), Image.Resampling.BILINEAR))
    return small, [shrunk(mask, hw) for mask in masks], boxes * np.tile([hw[1] / width, hw[0] / height], 2)


def shrunk(mask: RLE, hw: tuple[int, int]) -> RLE:
    """Resize `mask` to `hw` by sampling its runs at the new pixel centres: the image size does not affect the cost."""
    height, width = mask.hw
    x1, y1, x2, y2 = mask.box
    rows = ((np.arange(hw[0]) + 0.5) * height / hw[0]).astype(np.int64)
    columns = ((np.arange(hw[1]) + 0.5) * width / hw[1]).astype(np.int64)
    (top, bottom), (left, right) = np.searchsorted(rows, [y1, y2]), np.searchsorted(columns, [x1, x2])
    if top == bottom or left == right:
        return RLE.empty(hw)
    index = columns[left:right][None] * height + rows[top:bottom][:, None]
    run = np.searchsorted(mask.runs[:, 0], index, "right") - 1
    inside = (run >= 0) & (index < mask.runs[run].sum(-1))  # a run's start and length add up to its end
    return RLE.from_mask(inside).shift(int(left), int(top), hw)


def place_labels(boxes: np.ndarray, sizes: np.ndarray, picture_wh: tuple[int, int]) -> list[Rectangle | None]:
    """Place a label of `sizes` (N, 2) width and height at each of `boxes` (N, 4) int64 xyxy, the first box first.

    Labels lie inside the picture and cover no earlier label. Each takes the first free place: above its box, below it,
    beside it, inside it. None stands for a label that finds no place.
    """
    plates: list[Rectangle | None] = []
    taken = np.empty((0, 4), np.int64)
    for box, size in zip(boxes, sizes, strict=True):
        places = _places(box, size, picture_wh)
        # (n, 1, 2) against (placed, 2)
        overlaps = (places[:, None, :2] < taken[:, 2:]) & (taken[:, :2] < places[:, None, 2:])
        free = np.flatnonzero(~np.any(np.all(overlaps, axis=2), axis=1))
        if len(free):
            taken = np.concatenate([taken, places[free[:1]]])
            x1, y1, x2, y2 = places[free[0]].tolist()
            plates.append((x1, y1, x2, y2))
        else:
            plates.append(None)
    return plates


def _places(box: np.ndarray, size: np.ndarray, picture_wh: tuple[int, int]) -> np.ndarray:
    """Return the places (n, 4) xyxy for a label of `size` at `box` that lie inside the picture, best first.

    The first is on the box's upper edge, or below that edge if the picture ends above it.
    """
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


def _draw_labels(
    draw: ImageDraw.ImageDraw, font_size: int, texts: Sequence[str], boxes: np.ndarray, inks: Sequence[tuple[int, ...]]
) -> None:
    """Draw each text on a plate of its colour `inks` at its box (N, 4), where it finds a place."""
    fonts = [font_for(text, font_size) for text in texts]
    bounds = [draw.textbbox((0, 0), text, font=font) for text, font in zip(texts, fonts, strict=True)]
    extents = np.array(bounds, float).reshape(-1, 4)
    sizes = np.ceil(extents[:, 2:] - extents[:, :2]).astype(np.int64) + 2 * PADDING + 1
    plates = place_labels(boxes.astype(np.int64), sizes, draw.im.size)
    for text, font, extent, plate, ink in zip(texts, fonts, extents.tolist(), plates, inks, strict=True):
        if plate is None:
            continue
        x1, y1, x2, y2 = plate
        dark = 0.299 * ink[0] + 0.587 * ink[1] + 0.114 * ink[2] < 140
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=ink)
        origin = (x1 + PADDING - extent[0], y1 + PADDING - extent[1])
        draw.text(origin, text, font=font, fill=(255, 255, 255) if dark else (0, 0, 0))
