"""Rows of a submission: image by image as they come, or in the columns, ids and order of a sample submission."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TextIO

from maskrcnn.data.names import PathIndex
from maskrcnn.errors import UserError
from maskrcnn.rle import RLE, are_disjoint
from maskrcnn.structures import Detections


@dataclass(frozen=True)
class Sample:
    """A sample submission: its columns, its rows, and for each row the image id and the class text ("" for any).

    `image`, `rle` and `class_` are indices of columns. `combined` rows name an image and a class in one cell; each gets
    one mask, the union of the instances.
    """

    path: Path
    columns: list[str]
    rows: list[list[str]]
    image_ids: list[str]
    class_texts: list[str]
    image: int
    rle: int
    class_: int | None
    combined: bool

    @classmethod
    def read(cls, path: Path) -> Sample:
        """Read a CSV whose columns are named like those of training data. Raise `UserError`."""
        from maskrcnn.data.formats.columns import find_columns
        from maskrcnn.data.formats.encoded_pixels import split_combined
        from maskrcnn.data.formats.separated import read_table

        if not path.is_file():
            raise UserError(f"{path}: there is no such sample submission")
        table = read_table(path, ()).table
        layout = find_columns(table, path, {})
        cells = table[layout.image].fill_null("").str.strip_chars()
        images, classes = split_combined(cells) if layout.combined else (cells, None)
        image_ids = images.to_list()
        # Rows of one class each, if an image has several; otherwise a row stands for all instances of its image.
        if classes is None and layout.class_ and len(set(image_ids)) < len(image_ids):
            classes = table[layout.class_].fill_null("").str.strip_chars()
        return cls(
            path=path,
            columns=table.columns,
            rows=[[cell or "" for cell in row] for row in table.rows()],
            image_ids=image_ids,
            class_texts=classes.to_list() if classes is not None else [""] * len(image_ids),
            image=table.columns.index(layout.image),
            rle=table.columns.index(layout.rle),
            class_=table.columns.index(layout.class_) if layout.class_ else None,
            combined=layout.combined,
        )

    def ids_of(self, pictures: Sequence[Path]) -> list[str]:
        """Return the image id of each picture. Raise `UserError` for ids without one picture, or the reverse."""
        index = PathIndex([path.as_posix() for path in pictures])
        id_of: dict[int, str] = {}
        for image_id in dict.fromkeys(self.image_ids):
            found = index.find(image_id).indices
            if len(found) != 1 or found[0] in id_of:
                state = "is no picture" if not found else "is several pictures" if len(found) > 1 else "is named twice"
                examples = ", ".join(str(pictures[k]) for k in found[:3])
                raise UserError(
                    f"{self.path}: {image_id!r} {state} of those to predict" + f": {examples}" * bool(found)
                )
            id_of[found[0]] = image_id
        unknown = [str(path) for k, path in enumerate(pictures) if k not in id_of]
        if unknown:
            raise UserError(f"{self.path} names no row for {len(unknown)} pictures, such as {unknown[0]}")
        return [id_of[k] for k in range(len(pictures))]

    def check_classes(self, class_ids: Sequence[Any], class_names: Sequence[str]) -> None:
        """Raise `UserError` if rows name classes, but none for a class of the model."""
        known = set(self.class_texts) - {""}
        lacking = [str(c) for c, name in zip(class_ids, class_names, strict=True) if not {str(c), name} & known]
        if known and lacking:
            raise UserError(
                f"{self.path} has no row for the model's class {lacking[0]}; its classes are "
                f"{', '.join(sorted(known)[:8])}"
            )


class PlainSubmission:
    """Write ImageId, EncodedPixels and perhaps ClassId as images are added; no instance gives an empty row."""

    def __init__(self, file: TextIO, with_class: bool) -> None:
        self._csv = csv.writer(file, lineterminator="\n")
        self._with_class = with_class
        self._csv.writerow(["ImageId", "EncodedPixels"] + (["ClassId"] if with_class else []))

    def add(self, image_id: str, detections: Detections) -> None:
        """Write the rows of an image, whose masks must be disjoint."""
        texts = encoded(image_id, detections.rles)
        for text, class_id in zip(texts, detections.class_ids, strict=True):
            self._csv.writerow([image_id, text] + ([class_id] if self._with_class else []))
        if not texts:
            self._csv.writerow([image_id, ""] + ([""] if self._with_class else []))

    def finish(self) -> None:
        """All rows are written."""


class SampleSubmission:
    """Collect the masks of all images, then write them in the rows of a sample submission."""

    def __init__(self, file: TextIO, sample: Sample) -> None:
        self._csv = csv.writer(file, lineterminator="\n")
        self._sample = sample
        self._instances: dict[str, list[tuple[set[str], Any, str]]] = {}

    def add(self, image_id: str, detections: Detections) -> None:
        """Keep the encoded masks of an image, which must be disjoint."""
        masks, classes = detections.rles, list(zip(detections.class_ids, detections.class_names, strict=True))
        if self._sample.combined:
            unique = list(dict.fromkeys((str(c), name) for c, name in classes))
            of_class = [[m for m, c in zip(masks, classes, strict=True) if str(c[0]) == key] for key, _ in unique]
            masks, classes = [functools.reduce(RLE.union, group) for group in of_class], list(unique)
        texts = encoded(image_id, masks)
        self._instances[image_id] = [({str(c), name}, c, t) for (c, name), t in zip(classes, texts, strict=True)]

    def finish(self) -> None:
        """Write all rows. Raise `UserError` if an image of the sample was not added."""
        sample = self._sample
        lacking = [image_id for image_id in dict.fromkeys(sample.image_ids) if image_id not in self._instances]
        if lacking:
            raise UserError(
                f"the submission was not written: {len(lacking)} of the pictures that {sample.path} names could not be "
                f"predicted, such as {lacking[0]!r}"
            )
        self._csv.writerow(sample.columns)
        written = set()
        for row, image_id, class_text in zip(sample.rows, sample.image_ids, sample.class_texts, strict=True):
            if (image_id, class_text) in written:  # a sample may show several instances of an image
                continue
            written.add((image_id, class_text))
            fitting = [(c, t) for names, c, t in self._instances[image_id] if not class_text or class_text in names]
            for class_id, text in fitting or [(None, "")]:
                self._csv.writerow(self._filled(row, class_id, text, class_text))

    def _filled(self, row: list[str], class_id: Any, text: str, class_text: str) -> list[Any]:
        cells: list[Any] = list(row)
        cells[self._sample.rle] = text
        if self._sample.class_ is not None and not class_text:
            cells[self._sample.class_] = "" if class_id is None else class_id
        return cells


def encoded(image_id: str | PurePath, masks: Iterable[RLE]) -> list[str]:
    """Encode masks. Raise `RuntimeError` if they share pixels or do not survive the encoding."""
    masks = list(masks)
    if not are_disjoint(masks):
        raise RuntimeError(f"masks of {image_id} share pixels; nothing was written")
    texts = [mask.to_encoded_pixels() for mask in masks]
    if any(RLE.from_encoded_pixels(text, mask.hw) != mask for text, mask in zip(texts, masks, strict=True)):
        raise RuntimeError(f"a mask of {image_id} does not survive its own encoding; nothing was written")
    return texts
