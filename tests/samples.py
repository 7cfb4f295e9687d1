"""A data set that has every trait: holes, parts, overlaps, crowd regions, attributes, scores, sparse ids, divisions,
and what LVIS and Fashionpedia add."""

import numpy as np
from PIL import Image

from maskrcnn import RLE, Dataset
from maskrcnn.data.federated import Federated
from maskrcnn.rle import RunTable

NAMES = ["train/first.png", "train/zweites Bild, größer.png", "val/empty.png", "val/last.png", "val/full.png"]
SIZES = [(40, 56), (31, 33), (20, 24), (64, 48), (9, 13)]
CLASS_IDS = [2, 7, 40, 51]
CLASS_NAMES = ["cell", 'größe, "x"', "细胞核", "debris"]


def disc(hw, row, column, radius):
    rows, columns = np.mgrid[: hw[0], : hw[1]]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def masks_of(hw):
    """Masks (H, W) bool of every kind that people draw, and some that they draw by mistake."""
    h, w = hw
    pixel, corners = np.zeros(hw, bool), np.zeros(hw, bool)
    pixel[h - 1, w - 1] = True
    corners[1, 1] = corners[2, 2] = corners[h - 3 : h, 0] = True
    return [
        disc(hw, h / 2, w / 2, 9.3),
        disc(hw, h / 2, w / 2, 12) & ~disc(hw, h / 2, w / 2, 5),  # a ring, whose hole is the disc's middle
        disc(hw, 6, 6, 3) | disc(hw, h - 7, w - 7, 4),
        disc(hw, h / 2 + 3, w / 2 + 6, 7),
        pixel,
        corners,
        np.ones(hw, bool),
    ]


def write_sample(folder, *, seed=0):
    """Write pictures to `folder` and return them with instances that have all traits."""
    rng = np.random.default_rng(seed)
    masks, image_index = [], []
    for i, (name, hw) in enumerate(zip(NAMES, SIZES, strict=True)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (*hw, 3), dtype=np.uint8)).save(folder / name)
        if "empty" not in name:
            drawn = [np.ones(hw, bool)] if "full" in name else masks_of(hw)
            masks += [RLE.from_mask(mask).runs for mask in drawn]
            image_index += [i] * len(drawn)
    n = len(masks)
    scores = rng.uniform(0, 1, n)
    scores[2] = np.nan
    return Dataset(
        source=folder,
        names=list(NAMES),
        files=[folder / name for name in NAMES],
        sizes=np.array(SIZES),
        image_index=np.array(image_index),
        labels=np.arange(n) % 3 + 1,
        masks=RunTable.of(masks),
        rows=np.arange(1, n + 1),
        class_ids=list(CLASS_IDS),
        class_names=list(CLASS_NAMES),
        attributes=np.array([("", "20 44", "7")[k % 3] for k in range(n)], object),
        crowd=np.arange(n) % 7 == 3,
        scores=scores,
        parts=[name.partition("/")[0] for name in NAMES],
        federated=Federated(
            absent=[frozenset(), frozenset(), frozenset({1, 3}), frozenset(), frozenset({2})],
            incomplete=[frozenset({2}), frozenset(), frozenset(), frozenset({1, 3}), frozenset()],
            frequencies=["r", "c", "f", "r"],
        ),
        attribute_names={"7": "spindle-shaped", "20": "mitotisch, früh", "44": "rund"},
    )
