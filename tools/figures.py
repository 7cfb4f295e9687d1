"""Draw figures: panels with titles on a dark plate, legible in light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maskrcnn.rle import RLE

FINE = 2
"""Figures are drawn at twice their size and averaged down, which smooths lines and letters."""

MARGIN, TITLE, LINE, FONT = 14, 30, 21, 17
"""Space around the panels, height of a title, of a further line and of letters, in pixels of the finished figure."""

PLATE, INK, FAINT = (22, 26, 33), (236, 239, 244), (139, 148, 163)
GREEN, RED, YELLOW, BLUE, ORANGE = (64, 200, 120), (235, 90, 90), (245, 215, 70), (90, 170, 245), (245, 150, 50)

HEAT = np.array([(18, 14, 48), (84, 26, 110), (176, 48, 98), (238, 110, 56), (250, 196, 88), (255, 250, 212)], float)
"""Colours of a map from its lowest to its highest value."""

Color = tuple[int, int, int]


class View:
    """Shows the part `window` of pixels (H, W, 3) at a width, and draws on it in coordinates of the whole array."""

    def __init__(self, pixels: np.ndarray, width: int, window: Sequence[float] | None = None) -> None:
        x1, y1, x2, y2 = window if window is not None else (0, 0, pixels.shape[1], pixels.shape[0])
        self.corner = np.array([x1, y1])
        self.zoom = FINE * width / (x2 - x1)
        size = FINE * width, round(self.zoom * (y2 - y1))
        rule = Image.Resampling.NEAREST if self.zoom > 6 else Image.Resampling.BICUBIC
        self.image = Image.fromarray(pixels).resize(size, rule, (x1, y1, x2, y2))
        self.draw = ImageDraw.Draw(self.image)

    def boxes(self, boxes: np.ndarray, color: Color, width: float = 1.5) -> View:
        """Outline boxes (N, 4)."""
        for x1, y1, x2, y2 in self._placed(np.asarray(boxes, float).reshape(-1, 2, 2)).reshape(-1, 4).tolist():
            self.draw.rectangle((x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)), outline=color, width=round(FINE * width))
        return self

    def dots(self, points: np.ndarray, color: Color, radius: float = 2) -> View:
        """Mark points (N, 2)."""
        r = FINE * radius
        for x, y in self._placed(points).tolist():
            self.draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
        return self

    def lines(self, starts: np.ndarray, ends: np.ndarray, color: Color, width: float = 1) -> View:
        """Draw lines between pairs of points (N, 2)."""
        for start, end in zip(self._placed(starts).tolist(), self._placed(ends).tolist(), strict=True):
            self.draw.line((*start, *end), fill=color, width=round(FINE * width))
        return self

    def masks(self, masks: Sequence[RLE], colors: Sequence[Color]) -> View:
        """Outline masks along the edges of their pixels, without their holes."""
        for mask, color in zip(masks, colors, strict=True):
            for part in mask.to_polygons():
                points = self._placed(part.outer).ravel().tolist()
                self.draw.line([*points, *points[:2]], fill=color, width=2 * FINE)
        return self

    def _placed(self, points: np.ndarray) -> np.ndarray:
        return (np.asarray(points, float) - self.corner) * self.zoom


def heat(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Colour values (M, N), by default from their lowest to their highest -> (M, N, 3) uint8."""
    low, high = values.min() if low is None else low, values.max() if high is None else high
    position = ((values - low) / max(high - low, 1e-9)).clip(0, 1) * (len(HEAT) - 1)
    return np.stack([np.interp(position, range(len(HEAT)), HEAT[:, c]) for c in range(3)], -1).astype(np.uint8)


def heat_view(values: np.ndarray, width: int, low: float | None = None, high: float | None = None) -> View:
    """Show values (M, N) as colours, a block for each cell."""
    block = -(-7 * width // values.shape[1])  # large enough that the view does not blur the cells
    return View(np.repeat(np.repeat(heat(values, low, high), block, 0), block, 1), width)


def bars(values: Mapping[str, float], wh: tuple[int, int]) -> View:
    """Show named values as bars, the greatest as wide as the view."""
    width, height = wh
    view = View(np.full((height, width, 3), PLATE, np.uint8), width)
    font = ImageFont.load_default(FINE * FONT)
    step, greatest = FINE * height / len(values), max(values.values())
    for k, (name, value) in enumerate(values.items()):
        y = step * k
        view.draw.text((0, y), f"{name}  {value:.3f}", fill=INK, font=font)
        view.draw.rectangle((0, y + 0.42 * step, FINE * width * value / greatest, y + 0.65 * step), fill=BLUE)
    return view


def figure(panels: Sequence[tuple[str, View]], columns: int) -> Image.Image:
    """Lay panels out in rows, a title over each. A line break in a title makes two lines."""
    font = ImageFont.load_default(FINE * FONT)
    gap = FINE * MARGIN
    rows = [panels[k : k + columns] for k in range(0, len(panels), columns)]
    widths = [max(row[c][1].image.width for row in rows if c < len(row)) for c in range(columns)]
    heads = [FINE * (TITLE + LINE * max(title.count("\n") for title, _ in row)) for row in rows]
    heights = [max(view.image.height for _, view in row) for row in rows]
    size = sum(widths) + gap * (columns + 1), sum(heads) + sum(heights) + gap * len(rows) + gap // 2
    plate = Image.new("RGB", size, PLATE)
    draw = ImageDraw.Draw(plate)
    top = gap // 2
    for row, head, height in zip(rows, heads, heights, strict=True):
        left = gap
        for (title, view), width in zip(row, widths, strict=False):
            draw.multiline_text((left, top), title, fill=INK, font=font, spacing=4 * FINE)
            plate.paste(view.image, (left, top + head))
            left += width + gap
        top += head + height + gap
    return plate.resize((plate.width // FINE, plate.height // FINE), Image.Resampling.BOX)
