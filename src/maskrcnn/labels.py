"""Label pictures: an integer or a colour for each pixel <-> runs of every label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskrcnn.kernels import labels as kernel
from maskrcnn.runs import RLEError, RunTable

NO_LABEL = -(2**63)
"""A number that no label picture of up to 32 bits contains."""


def label_masks(labels: np.ndarray, background: int | None = 0) -> tuple[np.ndarray, RunTable]:
    """Return the labels of a picture (H, W), increasing int64 (n,), and the mask of each, in one pass over its pixels.

    `labels` has an integer type. `background` is no label; None makes every value one.
    """
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or labels.dtype == np.uint64:
        raise RLEError(
            f"a label picture is a (height, width) array of integers of up to 32 bits, not {labels.shape} of "
            f"{labels.dtype}"
        )
    native = np.require(labels, labels.dtype.newbyteorder("="), ["C", "W"])
    runs, label_of_run = kernel.runs_of_labels(native, NO_LABEL if background is None else background)
    order = np.argsort(label_of_run, kind="stable")
    values, counts = np.unique(label_of_run, return_counts=True)
    return values, RunTable(runs[order], np.concatenate([[0], np.cumsum(counts)]))


def pack_colors(picture: np.ndarray) -> np.ndarray:
    """Return colours (H, W, 3 or more) uint8 as ``65536 * red + 256 * green + blue``, (H, W) uint32, for `label_masks`.

    Further channels, such as alpha, do not count.
    """
    if picture.ndim != 3 or picture.shape[2] < 3 or picture.dtype != np.uint8:
        raise RLEError(
            f"a colour picture is a (height, width, 3) array of uint8, not {picture.shape} of {picture.dtype}"
        )
    red, green, blue = (picture[..., k].astype(np.uint32) for k in range(3))
    return (red << 16) | (green << 8) | blue


def paint_labels(
    masks: RunTable, values: np.ndarray, hw: tuple[int, int], order: Sequence[int] | np.ndarray | None = None
) -> np.ndarray:
    """Return a picture (H, W) of the dtype of `values` (n,) with ``values[i]`` on mask i and 0 elsewhere.

    A pixel goes to the first mask in `order` that covers it, by default to the first mask. Masks that `order` omits are
    not painted.
    """
    picture = np.zeros(hw, values.dtype)
    order = np.arange(len(masks)) if order is None else np.asarray(order, np.int64)
    kernel.paint_labels(masks.runs, masks.offsets, order[::-1].copy(), values, picture)
    return picture
