"""Rows of a submission: image by image as they come, or in the columns, ids and order of a sample submission."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, TextIO

from maskrcnn.data.names import PathIndex
from maskrcnn.errors import UserError, counted
from maskrcnn.rle import RLE, are_disjoint
from maskrcnn.structures import UNNAMED_CLASS, Detections


@dataclass(frozen=True)
class Sample:
    """A sample submission: its columns, its rows, and for each row the image id and the class text ("" for any).

    `image`, `rle` and `class_` are indices of columns. `combined` rows name an image and a class in one cell; each gets
    one mask, the union of the instances. `text_of_class` has the class text of each class id of a model, as text.
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
    text_of_class: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Sample:
        """Read a CSV whose columns are named like those of training data. Raise `UserError`."""
        from maskrcnn.data.formats.classes import without_decimals
        from maskrcnn.data.formats.columns import find_columns
        from maskrcnn.data.formats.encoded_pixels import split_combined
        from maskrcnn.data.formats.separated import read_table

        if not path.is_file():
            raise UserError(f"{path}: there is no such sample submission")
        table = read_table(path, ()).table
        try:
            layout = find_columns(table, path, {})
        except UserError:
            raise UserError(
                f"{path} is no sample submission that is recognised: it needs a column of images, such as ImageId, and "
                f"one of masks, such as EncodedPixels; its columns are {', '.join(table.columns)}"
            ) from None
        cells = table[layout.image].fill_null("").str.strip_chars()
        images, classes = split_combined(cells) if layout.combined else (cells, None)
        image_ids = images.to_list()
        class_texts = [""] * len(image_ids)
        if classes is not None:
            class_texts = without_decimals(classes).to_list()
        elif layout.class_ and len(set(image_ids)) < len(image_ids):
            texts = without_decimals(table[layout.class_].fill_null("").str.strip_chars()).to_list()
            if _same_classes(image_ids, texts):
                class_texts = texts
        return cls(
            path=path,
            columns=table.columns,
            rows=[[cell or "" for cell in row] for row in table.rows()],
            image_ids=image_ids,
            class_texts=class_texts,
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
            if len(found) == 1 and found[0] not in id_of:
                id_of[found[0]] = image_id
                continue
            examples = ", ".join(str(pictures[k]) for k in found[:3])
            if not found:
                fault = "is not among the pictures to predict; add it to them, or remove its rows"
            elif len(found) > 1:
                fault = f"fits several pictures: {examples}; write more of its path, or predict one of them"
            else:
                fault = f"and {id_of[found[0]]!r} both name {examples}; keep the rows of one"
            raise UserError(f"{self.path}: {image_id!r} {fault}")
        unknown = [str(path) for k, path in enumerate(pictures) if k not in id_of]
        if unknown:
            raise UserError(
                f"{self.path} has no row for {counted(len(unknown), 'picture')}, such as {unknown[0]}; add rows, or "
                "leave these pictures out"
            )
        return [id_of[k] for k in range(len(pictures))]

    def matched(self, class_ids: Sequence[Any], class_names: Sequence[str]) -> Sample:
        """Return the sample with the class text of each class of a model: its name, else its id.

        Raise `UserError` if rows name classes, but an image has none for a class of the model.
        """
        texts_of_image: dict[str, set[str]] = {}
        for image_id, text in zip(self.image_ids, self.class_texts, strict=True):
            texts_of_image.setdefault(image_id, set()).add(text)
        known = set(self.class_texts) - {""}
        if not known:
            return self
        if len(known) == len(class_ids) == 1 and class_names[0] == UNNAMED_CLASS:
            return replace(self, text_of_class={str(class_ids[0]): next(iter(known))})
        text_of_class = {}
        for class_id, name in zip(map(str, class_ids), class_names, strict=True):
            text = name if name in known else class_id
            lacking = next((image for image, texts in texts_of_image.items() if text not in texts), None)
            if lacking is not None:
                label = name if name == class_id else f"{name} (id {class_id})"
                raise UserError(
                    f"{self.path} has no row for {lacking!r} and the model's class {label}; its classes are "
                    f"{', '.join(sorted(known)[:8])}"
                )
            text_of_class[class_id] = text
        return replace(self, text_of_class=text_of_class)


def _same_classes(image_ids: Sequence[str], class_texts: Sequence[str]) -> bool:
    """Whether every image has a row for each of the same classes. Otherwise the rows only show the format."""
    of_image: dict[str, set[str]] = {}
    for image_id, text in zip(image_ids, class_texts, strict=True):
        of_image.setdefault(image_id, set()).add(text)
    first, *others = of_image.values()
    return "" not in first and all(texts == first for texts in others)


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

    def finish(self) -> list[str]:
        """Do nothing: rows are written as images are added."""
        return []


class SampleSubmission:
    """Collect the masks of all images, then write them in the rows of a sample submission."""

    def __init__(self, file: TextIO, sample: Sample) -> None:
        self._csv = csv.writer(file, lineterminator="\n")
        self._sample = sample
        self._instances: dict[str, list[tuple[Any, str]]] = {}

    def add(self, image_id: str, detections: Detections) -> None:
        """Keep the encoded masks of an image, which must be disjoint."""
        masks, class_ids = detections.rles, list(detections.class_ids)
        if self._sample.combined:
            unique = list(dict.fromkeys(class_ids))
            of_class = [[m for m, c in zip(masks, class_ids, strict=True) if c == key] for key in unique]
            masks, class_ids = [functools.reduce(RLE.union, group) for group in of_class], unique
        self._instances[image_id] = list(zip(class_ids, encoded(image_id, masks), strict=True))

    def finish(self) -> list[str]:
        """Write all rows. Return the ids of images that were not added: their rows are empty."""
        sample = self._sample
        self._csv.writerow(sample.columns)
        written = set()
        for row, image_id, class_text in zip(sample.rows, sample.image_ids, sample.class_texts, strict=True):
            if (image_id, class_text) in written:  # a sample may show several instances of an image
                continue
            written.add((image_id, class_text))
            instances = self._instances.get(image_id, [])
            fitting = [(c, t) for c, t in instances if not class_text or sample.text_of_class[str(c)] == class_text]
            for class_id, text in fitting or [(None, "")]:
                self._csv.writerow(self._filled(row, class_id, text, class_text))
        return [image_id for image_id in dict.fromkeys(sample.image_ids) if image_id not in self._instances]

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
