"""Do all masks lie a pixel or more beside their objects? Outlines that are moved back follow edges better.

outlines -> mean step of brightness across them, moved by -3 to 3 pixels -> a finding, if one move is clearly better
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskrcnn.data.formats.mask_texts import Numbering
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.rle import RLE

REACH = 3
"""Largest move that is tried, in pixels."""

MAX_CROSSINGS = 4_000
"""Places of an image at which a step is measured: pairs of neighbours, of which one is inside the mask."""


MIN_RATIO = 1.04
"""Step across the moved outlines over that across the outlines as they are, as the geometric mean over the images.

Measured on 166 images of nuclei (BBBC038), whose edges are soft, on 18 photos with polygons drawn by hand, and on
generated shapes, whose edges are sharp. Masks in place: no move is better than 1.00. Masks moved by one pixel: the move
back is 1.15 to 1.19 times as good with the first, 1.05 to 1.06 with the second, 3.2 with the third.
"""

MIN_AGREEING = 0.75
"""Share of the images whose best move is the best of all. 0.91 and 0.94 of the nuclei and photos agree to a pixel."""

MIN_IMAGES, MANY_IMAGES = 3, 8
"""Images needed to decide anything, and images from which moves may differ by one pixel and still agree.

Masks that have nothing to do with their images agree by chance in 5 of 10,000 sets of 3 to 7 images, and in 20 of
10,000 sets of 8.
"""


@dataclass(frozen=True)
class Shift:
    """The move, in pixels to the right and down, that takes all masks to their objects, and how clear it is.

    For `agreeing` of `compared` images it is the best move, or about the best. `option` moves the masks so, if there is
    such an option.
    """

    dx: int
    dy: int
    ratio: float
    agreeing: int
    compared: int
    option: str

    def finding(self, data: Dataset) -> Problem:
        """Return the finding about `data`."""
        moves = [
            f"{abs(d)} px {words[d > 0]}"
            for d, words in ((self.dx, ("to the left", "to the right")), (self.dy, ("up", "down")))
            if d
        ]
        advice = f"pass {self.option}" if self.option else "`--fix` moves them"
        message = (
            f"in {self.agreeing:,} of {self.compared:,} images, masks follow the edges best when they are moved "
            f"{' and '.join(moves)}, with {self.ratio:.2f} times the step of brightness (mean): {advice}"
        )
        return Problem(Kind.SHIFTED, str(data.source), message, option=self.option, move=(self.dx, self.dy))


def find_shift(data: Dataset, steps_of_images: Sequence[np.ndarray], numbering: Numbering) -> Shift | None:
    """Return the move that all masks need, if one is clearly better than none.

    `steps_of_images` are results of `steps_across`, `numbering` is how the runs of `data` were read.
    """
    if len(steps_of_images) < MIN_IMAGES:
        return None
    steps, side = np.stack(steps_of_images), 2 * REACH + 1
    ratios = np.exp(np.log(steps / steps[:, REACH, REACH][:, None, None]).mean(0))
    best = int(ratios.argmax())
    move, moves = np.array(divmod(best, side)), np.stack(np.divmod(steps.reshape(len(steps), -1).argmax(1), side), 1)
    tolerance = 1 if len(steps) >= MANY_IMAGES else 0
    agreeing = int((np.abs(moves - move).max(1) <= tolerance).sum())
    ratio = float(ratios.ravel()[best])
    if ratio < MIN_RATIO or agreeing < MIN_AGREEING * len(steps):
        return None
    dy, dx = (move - REACH).tolist()
    other = 1 - numbering.origin
    along, across = (dy, dx) if numbering.order == "column" else (dx, dy)
    explains = data.is_numbered and across == 0 and along == numbering.origin - other
    return Shift(dx, dy, ratio, agreeing, len(steps), f"--origin {other}" if explains else "")


def steps_across(pixels: np.ndarray, masks: Sequence[RLE]) -> np.ndarray | None:
    """Return the mean step of brightness across the outlines of `masks`, moved by (dy, dx), (2 REACH + 1,) * 2.

    `pixels` are (H, W, 3). Outlines near the border, which a move would take out of the picture, do not count. None
    stands for a picture without any other outline, or without steps.
    """
    gray = pixels.mean(2, dtype=np.float32)
    height, width = gray.shape
    moves = np.arange(-REACH, REACH + 1)
    total, n = np.zeros((len(moves), len(moves))), 0
    for axis, (rows, columns) in enumerate(_crossings(masks)):
        steps = np.abs(np.diff(gray, axis=axis))
        limits = height - REACH - (axis == 0), width - REACH - (axis == 1)
        valid = (rows >= REACH) & (columns >= REACH) & (rows < limits[0]) & (columns < limits[1])
        index = (rows * steps.shape[1] + columns)[valid]
        index = index[:: -(-len(index) // MAX_CROSSINGS) or 1]
        if not len(index):
            continue
        offsets = moves[:, None] * steps.shape[1] + moves
        total += steps.ravel()[index[:, None, None] + offsets].sum(0)
        n += len(index)
    return total / n if n and total.min() > 0 else None


def _crossings(masks: Sequence[RLE]) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return rows and columns of the upper pixel, and of the left one, of each pair of neighbours at an outline."""
    vertical, horizontal = [np.empty((0, 2), np.int64)], [np.empty((0, 2), np.int64)]
    for mask in masks:
        x1, y1, x2, y2 = mask.box
        inside = mask.to_mask((x1 - 1, y1 - 1, x2 + 1, y2 + 1))
        corner = np.array([y1 - 1, x1 - 1])
        vertical.append(corner + np.argwhere(inside[1:] != inside[:-1]))
        horizontal.append(corner + np.argwhere(inside[:, 1:] != inside[:, :-1]))
    upper, left = np.concatenate(vertical).T, np.concatenate(horizontal).T
    return (upper[0], upper[1]), (left[0], left[1])
