"""Findings about data: what is wrong, where, and whether it hurts training."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Kind of finding, as people read it; in the order in which they look at kinds."""

    BAD_ROW = "bad row"
    NO_FILE = "image file missing or ambiguous"
    UNREADABLE = "unreadable image"
    SIZE = "size that differs from the image"
    NO_OBJECTS = "data without objects"
    IN_PIECES = "masks in pieces that another option makes whole"
    CLASSES_AS_OBJECTS = "label pictures whose values may be classes"
    TURNED = "masks drawn in the other EXIF orientation"
    TRANSPOSED = "transposed masks"
    EMPTY = "mask without pixels"
    CUT = "mask cut by a spreadsheet"
    REPEATED = "repeated mask"
    COVERED = "mask mostly inside another of its class"
    FULL = "mask of the whole image"
    TINY = "tiny mask"
    OVERLAP = "masks that share pixels"


NOTES = frozenset({Kind.EMPTY, Kind.TINY, Kind.OVERLAP})
"""Kinds that training can live with. Masks may overlap, and one of few pixels or none costs nothing but itself."""


LOSSES = frozenset({Kind.BAD_ROW, Kind.NO_FILE, Kind.UNREADABLE, Kind.SIZE})
"""Kinds that cost an instance or an image when the data is opened."""


@dataclass(frozen=True)
class Problem:
    """Fault in the data: its kind, its place (file and row, or image) and what is wrong.

    `share` is the part of the mask, 0 to 1, that the fault concerns: of the smaller mask where two share pixels.
    """

    kind: Kind
    place: str
    message: str
    share: float | None = None

    @property
    def is_problem(self) -> bool:
        """Whether the fault costs training something."""
        return self.kind not in NOTES

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"
