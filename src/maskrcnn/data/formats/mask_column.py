"""A mask column, whatever it holds: runs, masks in another dialect, or names of mask files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from maskrcnn.data.formats.dialects import translate
from maskrcnn.data.formats.mask_files import name_files, read_mask_files
from maskrcnn.data.formats.mask_texts import MaskTexts, Numbering
from maskrcnn.data.reading import Exif
from maskrcnn.rle import BadRuns, RunTable


@dataclass(frozen=True)
class MaskColumn:
    """Masks, one for each text, and what was found about them.

    `note` says how the column was read if not as runs, `hint` what all `bad` texts share, as the end of a message, and
    `advice` which option makes masks whole that lie in pieces.
    """

    masks: RunTable
    bad: list[BadRuns]
    note: str | None = None
    hint: str = ""
    advice: str | None = None


def read_mask_column(
    texts: pl.Series,
    hw: np.ndarray,
    numbering: Numbering,
    *,
    hw_of_option: dict[str, np.ndarray],
    folders: Sequence[Path],
    exif: Exif,
) -> MaskColumn:
    """Read the texts of a mask column. Raise nothing: a bad text gives an empty mask and a `BadRuns`.

    `hw` (n, 2) are the (height, width) of the images, ``hw_of_option[option]`` those that another option gives. Mask
    files are looked for in `folders`, and turned by their EXIF orientation as `exif` says.
    """
    if name_files(cells := texts.to_list()):
        masks, bad = read_mask_files(cells, hw, folders, exif)
        n_empty = int((masks.areas == 0).sum()) - len(bad)
        empty = f"; {n_empty:,} of {len(texts):,} have none" if n_empty else ""
        return MaskColumn(masks, bad, f"is read as the name of a mask file, whose nonzero pixels are the object{empty}")
    mask_texts, note = MaskTexts(texts, hw), None
    masks, bad = mask_texts.parse(numbering)
    if 0 < len(bad) == len(texts) and (translation := translate(texts, hw, numbering)):
        mask_texts, note = MaskTexts(translation[0], hw), f"is read as {translation[1]}"
        masks, bad = mask_texts.parse(numbering)
    hint, advice = mask_texts.fault_of_all(numbering, bad), mask_texts.better_reading(numbering, hw_of_option)
    return MaskColumn(masks, bad, note, hint, advice)
