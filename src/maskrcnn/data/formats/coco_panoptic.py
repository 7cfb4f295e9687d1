"""COCO's panoptic segments: a PNG for each image, whose colours number the segments that the JSON lists.

The colour of segment n is red + 256 green + 256^2 blue = n; 0 is nothing. Source: Kirillov et al., "Panoptic
Segmentation", CVPR 2019, and panopticapi.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from maskrcnn.data.formats.coco_entries import Id
from maskrcnn.data.formats.coco_files import CocoFile
from maskrcnn.data.formats.source import each
from maskrcnn.data.images import read_each, read_labels
from maskrcnn.data.names import PathIndex
from maskrcnn.data.pictures import image_files
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.errors import ImageError
from maskrcnn.labels import label_masks, pack_colors
from maskrcnn.rle import RLE


class Segment(msgspec.Struct):
    """An entry of ``segments_info``."""

    id: int
    category_id: Id | None = None
    iscrowd: bool | float | None = None


class SegmentsOfImage(msgspec.Struct):
    """An entry of ``annotations``: the segments of an image, and the name of its PNG."""

    image_id: Id
    file_name: str
    segments_info: list[Segment] = []


class PanopticFile:
    """The entries of a JSON file, and the PNG of each. An entry without a PNG becomes a problem."""

    def __init__(self, file: CocoFile, problems: list[Problem]) -> None:
        self.problems = problems
        folder = file.mask_folder
        found = image_files(folder)
        index = PathIndex([path.relative_to(folder).as_posix() for path in found])
        self.entries: dict[Path, tuple[str, SegmentsOfImage]] = {}
        for number, entry in each(file.entries, SegmentsOfImage, file.file, "annotation", problems):
            place = f"{file.file}, annotation {number}"
            matches = index.find(entry.file_name).indices
            if len(matches) != 1:
                message = f"the mask file {entry.file_name!r} is not in {folder}"
                problems.append(Problem(Kind.NO_FILE, place, message))
            elif self.entries.setdefault(found[matches[0]], (place, entry)) != (place, entry):
                message = f"the mask file {entry.file_name!r} is that of an earlier annotation"
                problems.append(Problem(Kind.BAD_ROW, place, message))

    def images(self) -> Iterator[tuple[str, SegmentsOfImage, dict[int, RLE]]]:
        """Yield the place of each entry, the entry, and the masks by segment. An unreadable PNG becomes a problem."""
        decoded = read_each(_read_masks, list(self.entries))
        for (place, entry), masks in zip(self.entries.values(), decoded, strict=True):
            if isinstance(masks, ImageError):
                self.problems.append(Problem(Kind.BAD_ROW, place, str(masks)))
            else:
                yield place, entry, masks


def _read_masks(file: Path) -> dict[int, RLE]:
    """Return the mask of each segment of a PNG by its number. Raise `ImageError`."""
    numbers = read_labels(file, gray_is_number=False)
    if numbers.ndim == 3:
        numbers = pack_colors(numbers[..., ::-1])  # red is the lowest byte
    hw = int(numbers.shape[0]), int(numbers.shape[1])
    ids, masks = label_masks(numbers)
    return {segment: RLE(masks[k], hw) for k, segment in enumerate(ids.tolist())}
