"""What a data set has that not every format can hold. A writer says what its format holds; the rest is counted."""

from __future__ import annotations

from enum import StrEnum


class Trait(StrEnum):
    """Something that masks or images of a data set have, as people read it."""

    HOLES = "holes in masks"
    SEVERAL_PARTS = "masks of several parts"
    OVERLAPS = "overlapping masks"
    CLASSES = "several classes"
    CLASS_IDS = "class ids that differ from the order of the names"
    ATTRIBUTES = "attributes"
    SCORES = "scores"
    CROWD = "crowd regions"
    DIVISION = "a division into parts such as train and val"
    EMPTY_IMAGES = "images without objects"
