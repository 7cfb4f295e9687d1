"""A small data set with every kind of mask: discs, rings, several parts, single pixels, borders, images without objects."""

from pathlib import Path

import numpy as np
from PIL import Image

from maskrcnn import RLE
from maskrcnn.data.formats import encoded_pixels, open_dataset
from maskrcnn.data.table import Dataset


def disc(hw, center, radius) -> np.ndarray:
    """Return the pixels whose centres lie within `radius` of `center` (x, y), (H, W) bool."""
    y, x = np.mgrid[: hw[0], : hw[1]] + 0.5
    return np.hypot(x - center[0], y - center[1]) <= radius


def masks_of_kinds(hw) -> dict[str, np.ndarray]:
    """Return a mask of each kind for a picture of at least 30 x 40 pixels."""
    h, w = hw
    ring = disc(hw, (14.2, 13.1), 11) & ~disc(hw, (12, 12), 4)
    pixel, corner, diagonal = (np.zeros(hw, bool) for _ in range(3))
    pixel[h // 2, w - 1] = True
    corner[h - 3 :, w - 5 :] = True
    diagonal[[3, 4, 5], [20, 21, 22]] = True
    return {
        "disc": disc(hw, (20.5, 15), 9),
        "ring": ring,
        "island in a ring": ring | disc(hw, (12, 12), 1.6),
        "two parts": disc(hw, (8, 8), 5) | disc(hw, (30, 20), 6.5),
        "two parts, one with a hole": ring | disc(hw, (34, 6), 3),
        "pixel": pixel,
        "corner": corner,
        "diagonal": diagonal,
        "whole": np.ones(hw, bool),
    }


def write_drawn(folder: Path, seed: int = 0) -> Dataset:
    """Write pictures and a table of masks, and open it: two images of all kinds, one without objects, one in a folder."""
    rng = np.random.default_rng(seed)
    rows = []
    for name, hw in (("größe 1.png", (32, 44)), ("b.jpg", (45, 41)), ("empty.png", (30, 40)), ("sub/b.png", (33, 47))):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (*hw, 3), np.uint8)).save(folder / "images" / name)
        masks = [] if "empty" in name else list(masks_of_kinds(hw).values())
        rows += [(name, RLE.from_mask(mask), ("äpfel", "nut")[k % 2]) for k, mask in enumerate(masks)]
        rows += [] if masks else [(name, None, "")]
    encoded_pixels.write(folder / "train.csv", rows, with_class=True)
    return open_dataset(folder / "train.csv", say=lambda _: None)


def contents(data: Dataset) -> dict[str, list[tuple[str, RLE]]]:
    """Return the class name and the mask of each instance, by the name of the image."""
    return {
        name: [
            (data.class_names[label - 1], rle)
            for label, rle in zip(data.labels[data.instances(i)].tolist(), data.rles(i), strict=True)
        ]
        for i, name in enumerate(data.names)
    }
