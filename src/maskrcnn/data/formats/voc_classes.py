"""Pascal VOC's palette, and the classes of a data set in its layout: numbers and colours of names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from maskrcnn.data.formats.source import read_bytes

BACKGROUND, VOID = 0, 255
"""Numbers in a palette picture that are no object: around objects, and on the border between them."""

MAX_NUMBER = 254
"""The largest number of an object or class in a palette picture of 8 bits."""

BACKGROUND_NAMES = {"background", "_background_"}
NOT_CLASSES = BACKGROUND_NAMES | {"ignored", "__ignore__", "void"}

VOC_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The classes 1 to 20 of Pascal VOC."""


def palette() -> np.ndarray:
    """Return VOC's colours of the numbers 0 to 255, (256, 3) uint8: the bits of a number, three to a level."""
    numbers = np.arange(256)
    colors = np.zeros((256, 3), np.uint8)
    for level in range(8):
        for channel in range(3):
            colors[:, channel] |= ((numbers >> (3 * level + channel) & 1) << (7 - level)).astype(np.uint8)
    return colors


def packed(color: tuple[int, int, int]) -> int:
    """Return a colour as the number that `labels.pack_colors` has for it."""
    return (color[0] << 16) | (color[1] << 8) | color[2]


@dataclass
class Classes:
    """Names of classes by number, and numbers by packed colour."""

    names: dict[int, str]
    numbers: dict[int, int] = field(default_factory=dict)
    are_vocs: bool = False

    def number_of(self, name: str) -> int:
        """Return the number of a class by name; a new name gets the next number."""
        known = {other: number for number, other in self.names.items()}
        if name not in known:
            self.names[max(self.names, default=0) + 1] = name
            return max(self.names)
        return known[name]


def read_classes(home: Path) -> Classes:
    """Return the classes of ``labelmap.txt`` (CVAT, Datumaro) or ``class_names.txt`` (LabelMe), else VOC's own.

    The classes of a label map count from 1 in its order. Background is 0 wherever it stands: CVAT may write it last.
    """
    colors = palette()
    if (home / "labelmap.txt").is_file():
        names, numbers = {}, {}
        entries = [line.rsplit(":", 3) for line in _lines(home / "labelmap.txt")]
        entries = [entry for entry in entries if len(entry) == 4 and _is_color(entry[1])]
        last = BACKGROUND
        for name, color, *_ in entries:
            stated = [int(v) for v in color.split(",")] if color else None
            is_background = name.lower() in BACKGROUND_NAMES or stated == [0, 0, 0]
            number = BACKGROUND if is_background else (last := last + 1)
            rgb = stated or colors[number % 256].tolist()
            numbers[packed((rgb[0], rgb[1], rgb[2]))] = number
            names[number] = name
        names = {i: n for i, n in names.items() if i != BACKGROUND and n.lower() not in NOT_CLASSES}
        return Classes(names, numbers)
    by_palette = {packed(tuple(color)): number for number, color in enumerate(colors.tolist())}
    if (home / "class_names.txt").is_file():
        lines = _lines(home / "class_names.txt")
        first = next((k for k, line in enumerate(lines) if line.lower() in BACKGROUND_NAMES), -1)
        names = {k - first: line for k, line in enumerate(lines) if k > first and line.lower() not in NOT_CLASSES}
        return Classes(names, by_palette)
    return Classes(dict(enumerate(VOC_NAMES, 1)), by_palette, are_vocs=True)


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in read_bytes(file).decode("utf-8", "replace").splitlines() if line.strip()]


def _is_color(text: str) -> bool:
    values = text.split(",")
    return not text or (len(values) == 3 and all(v.strip().isdecimal() and len(v) < 9 and int(v) < 256 for v in values))
