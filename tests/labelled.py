"""A small data set of hard masks, and how to write it in a format and read it again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from maskrcnn import RLE, open_dataset
from maskrcnn.data.convert import convert
from maskrcnn.data.table import Dataset
from maskrcnn.rle import RunTable


def hard_masks(rng: np.random.Generator, hw: tuple[int, int]) -> list[np.ndarray]:
    """Return masks (H, W): a disc, a ring, an island in a ring, two parts that meet at a corner, a pixel, a rectangle,
    noise, and the whole picture."""
    rows, columns = np.mgrid[: hw[0], : hw[1]]
    y, x = rng.uniform(0.3, 0.7, 2) * hw
    distance = np.hypot(rows - y, columns - x)
    disc, ring = distance <= 9, (distance <= 9) & (distance > 5)
    corner, pixel, rectangle = (np.zeros(hw, bool) for _ in range(3))
    corner[2:5, 3:6] = corner[5:8, 6:9] = True
    pixel[hw[0] - 1, hw[1] - 1] = True
    rectangle[1:4, 2:11] = True
    return [disc, ring, ring | (distance <= 2), corner, pixel, rectangle, rng.random(hw) < 0.3, np.ones(hw, bool)]


def hard_dataset(folder: Path, rng: np.random.Generator, **columns) -> Dataset:
    """Write pictures of several sizes to `folder` and return them with their masks, of two classes.

    One picture is empty, one in a subfolder, two differ in their suffix alone, and one has a name in other letters.
    `columns` are fields of `Dataset`.
    """
    names = ["a.png", "sub/b c.jpg", "a.jpg", "Übung 日本.png", "empty.png"]
    sizes = np.array([(31, 44), (40, 27), (25, 25), (64, 33), (20, 30)])
    masks, image_index = [], []
    for i, (name, hw) in enumerate(zip(names, sizes.tolist(), strict=True)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (*hw, 3), np.uint8)).save(folder / name)
        if name != "empty.png":
            masks += [RLE.from_mask(mask).runs for mask in hard_masks(rng, tuple(hw))]
            image_index += [i] * (len(masks) - len(image_index))
    n = len(masks)
    fields = {
        "source": folder,
        "names": names,
        "files": [folder / name for name in names],
        "sizes": sizes,
        "image_index": np.array(image_index),
        "labels": rng.integers(1, 3, n),
        "masks": RunTable.of(masks),
        "rows": np.arange(n),
        "class_ids": ["cat", "two words, ü"],
        "class_names": ["cat", "two words, ü"],
    }
    return Dataset(**(fields | columns))


def written(data: Dataset, target: Path, format: str) -> Path:
    """Write `data` and its pictures as the format lays them out."""
    return convert(data, target, format, pictures="copy").target


def opened(path: Path, **options) -> tuple[Dataset, str]:
    """Open a data set. Return it with what was said."""
    lines: list[str] = []
    return open_dataset(path, say=lines.append, **options), "\n".join(lines)


def by_picture(data: Dataset) -> dict[bytes, list[tuple[str, bytes]]]:
    """Return class name and runs of the instances of each picture, by the bytes of its file."""
    return {
        data.files[i].read_bytes(): [
            (data.class_names[label - 1], mask.runs.tobytes())
            for label, mask in zip(data.labels[data.instances(i)].tolist(), data.rles(i), strict=True)
        ]
        for i in range(len(data))
    }
