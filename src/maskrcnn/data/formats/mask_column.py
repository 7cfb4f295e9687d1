"""A mask column, whatever it holds: runs, masks in another dialect, polygons, or names of mask files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from maskrcnn.config import Exif
from maskrcnn.data.formats.dialects import MIN_OF_FORM, Translated, read_coco, translate_numbers
from maskrcnn.data.formats.mask_files import describe_object, read_mask_files
from maskrcnn.data.formats.mask_texts import MaskTexts, Numbering, find_better_option
from maskrcnn.data.formats.polygons import read_polygons
from maskrcnn.kernels.runs import count_pieces
from maskrcnn.rle import BadRuns, RunTable


@dataclass(frozen=True)
class MaskColumn:
    """Masks, one for each text, and what was found about them.

    `note` says how the column was read if not as runs, `hint` what all `bad` texts share, as the end of a message, and
    `advice` which option makes masks whole that lie in pieces, as a sentence and as the option alone. `is_numbered`
    says whether the texts number pixels, so that the options of `Numbering` hold.
    """

    masks: RunTable
    bad: list[BadRuns]
    note: str | None = None
    hint: str = ""
    advice: tuple[str, str] | None = None
    is_numbered: bool = True


def read_mask_column(
    texts: pl.Series,
    hw: np.ndarray,
    numbering: Numbering,
    *,
    are_files: bool,
    hw_of_option: dict[str, np.ndarray],
    folders: Sequence[Path],
    exif: Exif,
) -> MaskColumn:
    """Read the texts of a mask column. Raise nothing: a bad text gives an empty mask and a `BadRuns`.

    `hw` (n, 2) are the (height, width) of the images, ``hw_of_option[option]`` those that another option gives. With
    `are_files`, the texts name mask files, which lie in `folders` and are turned by their EXIF orientation as `exif`
    says.
    """
    if are_files:
        masks, bad = read_mask_files(texts.to_list(), hw, folders, exif)
        n_empty = int((masks.areas == 0).sum()) - len(bad)
        empty = f"; {n_empty:,} of {len(texts):,} have none" if n_empty else ""
        is_read = f"is read as the name of a mask file, {describe_object(texts.to_list())}{empty}"
        return MaskColumn(masks, bad, is_read, is_numbered=False)
    mask_texts = MaskTexts(texts, hw)
    note, numbers = None, None
    masks, bad = mask_texts.parse(numbering)
    if bad:
        numbers = translate_numbers(texts)
        if numbers is not None:
            mask_texts = MaskTexts(numbers.texts, hw)
        if len(bad) >= MIN_OF_FORM * len(texts):
            if (coco := read_coco(texts, hw)) is not None:
                return _of_coco(coco, texts, hw, hw_of_option)
            if (polygons := read_polygons(texts, hw, mask_texts.are_runs(numbering))) is not None:
                return MaskColumn(polygons.masks, polygons.bad, polygons.note, is_numbered=False)
        if numbers is not None:
            masks, bad = mask_texts.parse(numbering)
            note = numbers.note
    hint = mask_texts.fault_of_all(numbering, [b for b in bad if numbers is None or numbers.is_number[b.index]])
    advice = mask_texts.better_reading(numbering, hw_of_option)
    return MaskColumn(masks, bad if numbers is None else numbers.explained(bad), note, hint, advice)


def _of_coco(coco: Translated, texts: pl.Series, hw: np.ndarray, hw_of_option: dict[str, np.ndarray]) -> MaskColumn:
    """Return the masks of a COCO column, with the option that makes bad texts valid or broken masks whole, if any."""
    others = [(option, other, read_coco(texts, other)) for option, other in hw_of_option.items()]
    fitting = [(option, other) for option, other, column in others if column and len(column.bad) <= len(coco.bad)]
    valid_options = [option for option, _, column in others if column and not column.bad]
    hint = f"; every row is valid with {valid_options[0]}" if coco.bad and valid_options else ""

    def pieces(sizes: np.ndarray) -> np.ndarray:
        return count_pieces(coco.masks.runs, coco.masks.offsets, sizes[:, 0].copy())

    advice = find_better_option(pieces(hw), ((option, pieces(other)) for option, other in fitting))
    return MaskColumn(coco.masks, coco.bad, coco.note, hint, advice, is_numbered=False)
