"""Predictions on disk, written while they come in: submission CSV, COCO results, label pictures, overlays."""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any, TextIO

import numpy as np
from PIL import Image

from maskrcnn.errors import UserError
from maskrcnn.files import atomic, named, write_image
from maskrcnn.rle import RLE
from maskrcnn.structures import Detections

MOST_LABELS = 65535
"""Instances that a 16-bit label picture can tell apart."""

MOST_WAITING = 4
"""Images that may wait to be written; a faster network then waits for the disk."""


class Writer:
    """Writes the detections of one image after the other in a thread of its own, while the next ones are found.

    The CSV and the JSON file appear under their names when all is done.
    """

    def __init__(self, folder: Path, *, overlays: bool, labels: bool, with_class: bool) -> None:
        self.folder = folder
        self.overlays = overlays
        self.labels = labels
        self.with_class = with_class
        self._submission, self._results_file = folder / "submission.csv", folder / "coco.json"
        self._csv: Any = None
        self._coco: TextIO | None = None
        self._results = 0
        self._waiting: deque[Future[None]] = deque()

    @contextmanager
    def open(self, *, submission: bool, coco: bool) -> Iterator[Writer]:
        """Keep ``submission.csv`` and ``coco.json`` open beside their places while images are added."""
        with ExitStack() as stack:
            if submission:
                self._csv = csv.writer(stack.enter_context(_written(self._submission)), lineterminator="\n")
                self._csv.writerow(["ImageId", "EncodedPixels"] + (["ClassId"] if self.with_class else []))
            if coco:
                self._coco = stack.enter_context(_written(self._results_file))
                self._coco.write("[")
            self._thread = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="maskrcnn-write"))
            yield self
            self.wait()
            if self._coco is not None:
                with named(self._results_file):
                    self._coco.write("\n]\n")

    def add(self, name: PurePath, image_id: str, detections: Detections) -> None:
        """`name` is the picture's path under the output folder, `image_id` what the submission calls it.

        Raises what went wrong with this image or one before it: `UserError` where a file cannot be written.
        """
        self._waiting.append(self._thread.submit(self._write, name, image_id, detections))
        self.wait(until=MOST_WAITING)

    def wait(self, until: int = 0) -> None:
        """Until at most so many images are still to be written. Raises as `add` does."""
        while len(self._waiting) > until:
            self._waiting.popleft().result()

    def _write(self, name: PurePath, image_id: str, detections: Detections) -> None:
        if self._csv is not None or self.labels:
            apart = detections.without_overlaps()
            if self._csv is not None:
                with named(self._submission):
                    self._add_rows(image_id, apart)
            if self.labels:
                write_image(label_picture(apart), self.folder / "labels" / name.with_suffix(".png"))
        if self._coco is not None:
            numbered = name.stem.isdecimal() and len(name.parts) == 1
            number = int(name.stem) if numbered else image_id
            with named(self._results_file):
                for entry in detections.to_coco(number):
                    self._coco.write(("," if self._results else "") + "\n" + json.dumps(entry))
                    self._results += 1
        if self.overlays:
            detections.save_overlay(self.folder / "overlays" / name.with_suffix(".png"))

    def _add_rows(self, image_id: str, apart: Detections) -> None:
        """One row an instance, or one with no object. Each text is read back before it is written."""
        taken = RLE.empty(apart.hw)
        for mask, class_id in zip(apart.rles, apart.class_ids, strict=True):
            text = mask.to_encoded_pixels()
            if RLE.from_encoded_pixels(text, apart.hw) != mask or taken.intersection(mask).area:
                raise RuntimeError(f"a mask of {image_id} does not survive its own encoding; nothing was written")
            taken = taken.union(mask)
            self._csv.writerow([image_id, text] + ([class_id] if self.with_class else []))
        if not apart.rles:
            self._csv.writerow([image_id, ""] + ([""] if self.with_class else []))


@contextmanager
def _written(path: Path) -> Iterator[TextIO]:
    """A text file that takes its place at the end; what is still to be written then may not fit on the disk."""
    with atomic(path) as beside:
        file = open(beside, "w", encoding="utf-8", newline="")  # noqa: SIM115
        try:
            yield file
        except BaseException:
            with suppress(OSError):
                file.close()
            raise
        with named(path):
            file.close()


def label_picture(detections: Detections) -> Image.Image:
    """16-bit gray: 0 is background, 1 the best detection, 2 the next. The masks must not overlap."""
    if len(detections) > MOST_LABELS:
        raise UserError(f"{detections.image}: {len(detections)} instances do not fit a 16-bit label picture")
    labels = np.zeros(detections.hw, np.uint16)
    for number, mask in enumerate(detections.rles, 1):
        x1, y1, x2, y2 = mask.box
        labels[y1:y2, x1:x2][mask.to_mask((x1, y1, x2, y2))] = number
    return Image.fromarray(labels)
