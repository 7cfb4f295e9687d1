"""Write predictions while the next ones are computed: submission CSV, COCO results, label pictures, overlays."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePath
from typing import TextIO

import numpy as np
from PIL import Image

from maskrcnn.errors import UserError
from maskrcnn.files import atomic, named, write_image
from maskrcnn.inference.submission import PlainSubmission, Sample, SampleSubmission
from maskrcnn.labels import paint_labels
from maskrcnn.runs import RunTable
from maskrcnn.structures import Detections

MAX_LABELS = 65535
"""Maximum number of instances in a 16-bit label picture."""

MAX_PENDING = 4
"""Maximum number of images that wait to be written. Beyond it, prediction waits for the disk."""


class Writer:
    """Write detections image by image in a background thread. CSV and JSON files appear when all are written.

    With a `sample`, the submission has its columns, ids and order of rows; `left_empty` has the ids of images that were
    not added, whose rows are empty.
    """

    def __init__(
        self, folder: Path, *, overlays: bool, labels: bool, with_class: bool, sample: Sample | None = None
    ) -> None:
        self.folder = folder
        self.overlays = overlays
        self.labels = labels
        self.with_class = with_class
        self.sample = sample
        self.left_empty: list[str] = []
        self._submission, self._results_file = folder / "submission.csv", folder / "coco.json"
        self._rows: PlainSubmission | SampleSubmission | None = None
        self._coco: TextIO | None = None
        self._results = 0
        self._pending: deque[Future[None]] = deque()

    @contextmanager
    def open(self, *, submission: bool, coco: bool) -> Iterator[Writer]:
        """Open ``submission.csv`` and ``coco.json`` under temporary names while images are added."""
        with ExitStack() as stack:
            if submission:
                file = stack.enter_context(_atomic_text(self._submission))
                self._rows = (
                    SampleSubmission(file, self.sample) if self.sample else PlainSubmission(file, self.with_class)
                )
            if coco:
                self._coco = stack.enter_context(_atomic_text(self._results_file))
                self._coco.write("[")
            self._thread = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="maskrcnn-write"))
            yield self
            self.wait()
            if self._rows is not None:
                with named(self._submission):
                    self.left_empty = self._rows.finish()
            if self._coco is not None:
                with named(self._results_file):
                    self._coco.write("\n]\n")

    def add(self, name: PurePath, image_id: str, detections: Detections) -> None:
        """Queue an image: `name` is its path relative to the output folder, `image_id` its id in the submission.

        Raises the error of an image queued before, `UserError` if a file cannot be written.
        """
        self._pending.append(self._thread.submit(self._write, name, image_id, detections))
        self.wait(until=MAX_PENDING)

    def wait(self, until: int = 0) -> None:
        """Wait until at most `until` images are pending. Raises the error of an image that could not be written."""
        while len(self._pending) > until:
            self._pending.popleft().result()

    def _write(self, name: PurePath, image_id: str, detections: Detections) -> None:
        if self._rows is not None or self.labels:
            without_overlaps = detections.without_overlaps()
            if self._rows is not None:
                with named(self._submission):
                    self._rows.add(image_id, without_overlaps)
            if self.labels:
                write_image(label_picture(without_overlaps), self.folder / "labels" / name.with_suffix(".png"))
        if self._coco is not None:
            has_number = name.stem.isdecimal() and len(name.parts) == 1
            coco_id = int(name.stem) if has_number else image_id
            with named(self._results_file):
                for entry in detections.to_coco(coco_id):
                    self._coco.write(("," if self._results else "") + "\n" + json.dumps(entry))
                    self._results += 1
        if self.overlays:
            detections.save_overlay(self.folder / "overlays" / name.with_suffix(".png"))


@contextmanager
def _atomic_text(path: Path) -> Iterator[TextIO]:
    """Open a text file and rename it to `path` at the end. Closing flushes it, so it may find the disk full."""
    with atomic(path) as part_file:
        file = open(part_file, "w", encoding="utf-8", newline="")  # noqa: SIM115
        try:
            yield file
        except BaseException:
            with suppress(OSError):
                file.close()
            raise
        with named(path):
            file.close()


def label_picture(detections: Detections) -> Image.Image:
    """Return a 16-bit grayscale image: 0 is background, 1 the best detection, 2 the next. The best takes a pixel."""
    if len(detections) > MAX_LABELS:
        raise UserError(f"{detections.image}: {len(detections)} instances do not fit a 16-bit label picture")
    numbers = np.arange(1, len(detections) + 1, dtype=np.uint16)
    return Image.fromarray(paint_labels(RunTable.of(r.runs for r in detections.rles), numbers, detections.hw))
