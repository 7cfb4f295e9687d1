"""Images and instances as an annotation file lists them, before any picture is opened.

Every format but the table of runs is read into `Annotations`. A mask is drawn once the size of its picture is known.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskrcnn.data.problem import Problem
from maskrcnn.rle import RLE

Draw = Callable[[tuple[int, int]], RLE]
"""Draws a mask on a picture of (height, width). Raises `RLEError`."""


class PolygonText(ABC):
    """A `Draw` whose polygons may be text, which is read for many masks at a time: alone, each costs ten times that."""

    __slots__ = ()

    @abstractmethod
    def __call__(self, hw: tuple[int, int]) -> RLE:
        """Draw the mask alone. Raise `RLEError`."""

    @property
    @abstractmethod
    def text(self) -> str | None:
        """JSON that may be ``[[x1, y1, x2, y2, ...], ...]``, polygons whose union is the mask; None for other masks."""


@dataclass(slots=True)
class Instance:
    """One object of an image: its class, the function that draws its mask, and its number in the source.

    `label` is a key of ``Annotations.class_names``. `row` counts as the format's users do. `box` (x1, y1, x2, y2) is
    what the source states beside the mask.
    """

    label: Any
    draw: Draw
    row: int
    attributes: str = ""
    is_crowd: bool = False
    score: float | None = None
    box: tuple[float, float, float, float] | None = None


@dataclass(slots=True)
class AnnotatedImage:
    """One image: its name in the source and its objects.

    `hw` is the (height, width) that the source states, `file` the picture where the format itself says which, `source`
    the annotation file of this image where each has its own, and `part` that of the source's own division. Where no
    picture has the name, the first of `other_names` that one has counts, and then the picture `embedded` in that file.
    `absent` and `incomplete` are classes, as in `Federated`.
    """

    name: str
    instances: list[Instance] = field(default_factory=list)
    hw: tuple[float | None, float | None] = (None, None)
    file: Path | None = None
    source: Path | None = None
    part: str = ""
    absent: list[Any] = field(default_factory=list)
    incomplete: list[Any] = field(default_factory=list)
    other_names: tuple[str, ...] = ()
    embedded: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All names by which the picture may be found, the best first."""
        return (self.name, *self.other_names)


@dataclass
class Annotations:
    """What a source lists. `format` is the format's name for people, `row_noun` what it calls an instance.

    `class_names` maps class ids to names in the order of the source; None means that the ids are the names. `left_out`
    counts what has no mask, such as "boxes", and `n_joined` how many shapes are further parts of an object. `notes` say
    what else the reader decided, `problems` what it could not read, and `warnings` what makes the data as a whole
    implausible. `mask_files` are pictures that are masks, and `folder_hint` is how the folder of the pictures may be
    called. `frequencies` are LVIS's groups of classes by class id, and `attribute_names` the meanings of attributes.
    """

    source: Path
    format: str
    images: list[AnnotatedImage]
    class_names: dict[Any, str] | None = None
    row_noun: str = "annotation"
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    n_joined: int = 0
    warnings: list[Problem] = field(default_factory=list)
    mask_files: frozenset[Path] = frozenset()
    folder_hint: str = ""
    frequencies: dict[Any, str] = field(default_factory=dict)
    attribute_names: dict[str, str] = field(default_factory=dict)

    def place(self, image: AnnotatedImage, instance: Instance | None = None) -> str:
        """Say where an image or an instance stands."""
        file = str(image.source or self.source)
        return f"{file}, image {image.name}" if instance is None else f"{file}, {self.row_noun} {instance.row}"


def draw_union(draws: Sequence[Draw], hw: tuple[int, int]) -> RLE:
    """Draw an object of several parts."""
    mask = draws[0](hw)
    for draw in draws[1:]:
        mask = mask.union(draw(hw))
    return mask
