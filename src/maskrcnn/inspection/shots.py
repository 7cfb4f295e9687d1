"""Pictures of findings: the image around the masks in question, the masks outlined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from maskrcnn.data.dataset import read_pixels
from maskrcnn.data.images import read_image
from maskrcnn.data.problem import Problem
from maskrcnn.data.table import Dataset
from maskrcnn.detection.fit import resize
from maskrcnn.drawing import draw_instances, shrunk
from maskrcnn.errors import ImageError
from maskrcnn.evaluation.suspects import Suspect
from maskrcnn.inspection.gallery import RIGHT_COLOR, WRONG_COLOR, data_uri
from maskrcnn.rle import RLE

SIDE = 300
"""Longer side of a picture in pixels, before it is enlarged so that outlines stay thin."""

MIN_WINDOW = 32
"""Smallest side, in pixels, of what a picture shows of its image."""

ROOM = 2.5
"""Side of what a picture shows over that of the masks in question."""

MIN_WHITE, MAX_GAIN = 160, 6
"""Brightness that a dark picture gets, and the largest factor to get there. Microscopes leave much of 8 bits unused."""

OTHER_COLOR, SECOND_COLOR = 1, 3
"""Sky blue of other masks and yellow of the second mask of a pair (`drawing.PALETTE`)."""


def shot_of(data: Dataset, finding: Problem) -> list[str]:
    """Return pictures of a finding as data URIs: none where it names no image, or where the image cannot be read."""
    try:
        if finding.move is not None:
            return _moved(data, finding.move)
        if finding.twin and finding.image is not None:
            pair = read_pixels(data, data.names.index(finding.image)), read_image(Path(finding.twin), data.reading)
            return [data_uri(draw_instances(_brightened(_fitted(pixels)), [])) for pixels in pair]
        if not finding.instances:
            return [] if finding.image is None else [data_uri(whole_image(data, data.names.index(finding.image)))]
        images = {int(data.image_index[k]) for k in finding.instances}
        return [_around(data, i, [k for k in finding.instances if data.image_index[k] == i]) for i in sorted(images)]
    except ImageError:
        return []


def shot_of_suspect(data: Dataset, suspect: Suspect) -> str | None:
    """Return a picture of a disagreement, the label yellow and what the model sees vermilion; None if unreadable."""
    i, first = suspect.image, data.instances(suspect.image).start
    masks = data.rles(i)
    colors = np.full(len(masks) + 1, OTHER_COLOR)
    in_question = []
    if suspect.instance is not None:
        in_question.append(suspect.instance - first)
        colors[in_question] = SECOND_COLOR
    if suspect.mask is not None:
        in_question.append(len(masks))
        masks, colors[-1] = [*masks, suspect.mask], WRONG_COLOR
    try:
        return crop(read_pixels(data, i), masks, colors, in_question)
    except ImageError:
        return None


def typical_images(data: Dataset, n: int) -> list[int]:
    """Return up to `n` images spread over the data by their number of objects, from most to fewest."""
    order = np.argsort(-data.counts, kind="stable")
    return order[np.unique(np.linspace(0, len(order) - 1, min(n, len(order))).astype(int))].tolist()


def whole_image(data: Dataset, i: int, colors: np.ndarray | None = None) -> Image.Image:
    """Return image i, small, with the outlines of its masks. Raise `ImageError`."""
    pixels = read_pixels(data, i)
    return _drawn(pixels, data.rles(i), (0, 0, pixels.shape[1], pixels.shape[0]), colors)


def crop(pixels: np.ndarray, masks: Sequence[RLE], colors: np.ndarray, in_question: Sequence[int]) -> str:
    """Return what lies around the masks in question, indices of `masks`, as a data URI."""
    boxes = np.array([masks[k].box for k in in_question], float)
    (x1, y1), (x2, y2) = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    height, width = pixels.shape[:2]
    side = max(MIN_WINDOW, ROOM * max(x2 - x1, y2 - y1))
    left, right = _span((x1 + x2) / 2, side, width)
    top, bottom = _span((y1 + y2) / 2, side, height)
    return data_uri(_drawn(pixels, masks, (left, top, right, bottom), colors))


def _around(data: Dataset, i: int, instances: Sequence[int]) -> str:
    """Draw the surroundings of some masks of image i: vermilion, the second one yellow, all others blue."""
    first = data.instances(i).start
    colors = np.full(int(data.counts[i]), OTHER_COLOR)
    in_question = [k - first for k in instances]
    colors[in_question] = [WRONG_COLOR, *[SECOND_COLOR] * (len(in_question) - 1)]
    return crop(read_pixels(data, i), data.rles(i), colors, in_question)


def _moved(data: Dataset, move: tuple[int, int]) -> list[str]:
    """Draw the mask in the middle of the image with the most masks: as it is, and moved by (dx, dy)."""
    i = int(np.argmax(data.counts))
    masks, pixels = data.rles(i), read_pixels(data, i)
    centers = np.array([np.add(mask.box[:2], mask.box[2:]) / 2 for mask in masks])
    height, width = data.hw(i)
    middle = [int(np.hypot(*(centers - (width / 2, height / 2)).T).argmin())]
    moved = [mask.shift(*move) for mask in masks]
    wrong, right = (np.full(len(masks), color) for color in (WRONG_COLOR, RIGHT_COLOR))
    return [crop(pixels, masks, wrong, middle), crop(pixels, moved, right, middle)]


def _span(middle: float, side: float, length: int) -> tuple[int, int]:
    """Return the start and end of `side` pixels around `middle`, inside of `length` pixels."""
    side = min(side, length)
    start = int(min(max(middle - side / 2, 0), length - side))
    return start, int(np.ceil(start + side))


def _drawn(
    pixels: np.ndarray, masks: Sequence[RLE], window: tuple[int, int, int, int], colors: np.ndarray | None
) -> Image.Image:
    x1, y1, x2, y2 = window
    small = _brightened(_fitted(pixels[y1:y2, x1:x2]))
    hw = (small.shape[0], small.shape[1])
    visible = [(k, mask.crop(window)) for k, mask in enumerate(masks)]
    visible = [(k, shrunk(mask, hw)) for k, mask in visible if mask.area]
    shown = [k for k, mask in visible if mask.area]
    return draw_instances(
        small, [mask for _, mask in visible if mask.area], None, None, None if colors is None else colors[shown]
    )


def _brightened(pixels: np.ndarray) -> np.ndarray:
    """Make dark pixels visible: the brightest hundredth becomes at least `MIN_WHITE`, by a factor up to `MAX_GAIN`."""
    gain = min(MIN_WHITE / max(float(np.quantile(pixels, 0.99)), 1.0), MAX_GAIN)
    return pixels if gain <= 1 else np.minimum(pixels * gain, 255).astype(np.uint8)


def _fitted(pixels: np.ndarray) -> np.ndarray:
    """Scale pixels (H, W, 3) so that the longer side has `SIDE` pixels."""
    factor = SIDE / max(pixels.shape[:2])
    return resize(pixels, (max(1, round(pixels.shape[0] * factor)), max(1, round(pixels.shape[1] * factor))))
