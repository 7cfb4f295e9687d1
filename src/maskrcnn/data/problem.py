"""Findings about data: what is wrong, where, whether it hurts training, and whether `check --fix` repairs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from maskrcnn.errors import UserError


class Kind(StrEnum):
    """Kind of finding, as people read it; in the order in which they look at kinds: problems before notes."""

    BAD_ROW = "bad row"
    NO_FILE = "image file missing or ambiguous"
    UNREADABLE = "unreadable image"
    SIZE = "size that differs from the image"
    NO_OBJECTS = "data without objects"
    IN_PIECES = "masks in pieces that another option makes whole"
    CLASSES_AS_OBJECTS = "label pictures whose values may be classes"
    TURNED = "masks drawn in the other EXIF orientation"
    TRANSPOSED = "transposed masks"
    SHIFTED = "masks beside their objects"
    CUT = "mask cut by a spreadsheet"
    REPEATED = "repeated mask"
    NEARLY_REPEATED = "nearly repeated mask"
    COVERED = "mask mostly inside another of its class"
    FULL = "mask of the whole image"
    BOX = "stated box that differs from its mask"
    BACKGROUND = "background as a class"
    SPELLING = "class names that differ in case or spaces"
    LEAK = "image in training and in validation"
    SAME_IMAGE = "repeated image"
    ALIKE = "images that look the same"
    EMPTY = "mask without pixels"
    OUTSIDE = "shape or box beyond the image"
    TINY = "tiny mask"
    SLIT = "mask one pixel wide"
    DISTANT_PARTS = "mask of distant parts"
    OVERLAP = "masks that share pixels"
    ONE_LETTER = "class names that differ by a letter"
    UNUSED_CLASS = "class without objects"
    MISSING_IDS = "gaps in the class ids"
    UNLISTED = "images that the annotations do not list"
    MIXED = "images of different channels or depths"


class Severity(StrEnum):
    """Whether a finding costs training something."""

    PROBLEM = "problem"
    NOTE = "note"


class Repair(StrEnum):
    """What `maskrcnn check --fix` does about a kind of finding."""

    LEAVE_OUT = "left out"
    READ_AGAIN = "read with the option that the finding names"
    MOVE = "moved back"
    REMOVE_REPEATS = "removed, if of the same class"
    DROP_CLASS = "dropped with its masks"
    MERGE = "merged into the class with the most objects"
    CLIP = "clipped to the image"


@dataclass(frozen=True)
class Description:
    """Severity of a kind, what it is, why it hurts, what to do, and the repair, if there is one."""

    severity: Severity
    meaning: str
    harm: str
    remedy: str
    repair: Repair | None = None


def _problem(meaning: str, harm: str, remedy: str, repair: Repair | None = None) -> Description:
    return Description(Severity.PROBLEM, meaning, harm, remedy, repair)


def _note(meaning: str, harm: str, remedy: str, repair: Repair | None = None) -> Description:
    return Description(Severity.NOTE, meaning, harm, remedy, repair)


KINDS = {
    Kind.BAD_ROW: _problem(
        "A row or an annotation cannot be read as it is written.",
        "Its object is missing, so a model learns that it is background.",
        "Correct it at the place named, or leave such rows out with --bad skip.",
        Repair.LEAVE_OUT,
    ),
    Kind.NO_FILE: _problem(
        "The annotations name an image that is not in the folder, or that several files could be.",
        "The image and all its objects are lost.",
        "Pass the right folder with --images, or correct the name.",
        Repair.LEAVE_OUT,
    ),
    Kind.UNREADABLE: _problem(
        "The file is damaged, truncated, larger than the limit, or no image.",
        "The image and all its objects are lost.",
        "Copy the file again from where it came from.",
        Repair.LEAVE_OUT,
    ),
    Kind.SIZE: _problem(
        "The size in the annotations is not that of the image.",
        "The masks were drawn on another image, or on a scaled one, so the image is left out.",
        "Pass the option that the message names, or take the images that were annotated.",
        Repair.READ_AGAIN,
    ),
    Kind.NO_OBJECTS: _problem(
        "No image has an object.", "There is nothing to learn or to score.", "Check that the right columns are read."
    ),
    Kind.IN_PIECES: _problem(
        "Nearly all masks lie in pieces, and another option makes them whole.",
        "The masks are noise: a model learns nothing from them.",
        "Pass the option that the message names.",
        Repair.READ_AGAIN,
    ),
    Kind.CLASSES_AS_OBJECTS: _problem(
        "Values of label pictures lie in several pieces, as classes do, and each is read as one object.",
        "Several objects of a class become one, so a model learns to join them.",
        "Give each object a value of its own, or a mask file.",
    ),
    Kind.TURNED: _problem(
        "Masks follow the edges of the image better as the file stores it, or as its EXIF orientation turns it.",
        "The masks lie beside their objects.",
        "Pass the option that the message names.",
        Repair.READ_AGAIN,
    ),
    Kind.TRANSPOSED: _problem(
        "Masks of square images follow the edges better along the other axis.",
        "The masks lie beside their objects.",
        "Pass the option that the message names.",
        Repair.READ_AGAIN,
    ),
    Kind.SHIFTED: _problem(
        "All masks follow the edges better when they are moved by the same few pixels.",
        "Every mask that a model predicts will be as far off, and small objects lose much of their score.",
        "Pass the option that the message names, or let --fix move the masks.",
        Repair.MOVE,
    ),
    Kind.CUT: _problem(
        "The text of the mask is as long as a cell of a spreadsheet can be.",
        "The rest of the mask is lost.",
        "Export the table again without a spreadsheet.",
    ),
    Kind.REPEATED: _problem(
        "Two annotations of an image have the same mask.",
        "One object counts twice. If the classes differ, a model learns a contradiction.",
        "Delete one of the two.",
        Repair.REMOVE_REPEATS,
    ),
    Kind.NEARLY_REPEATED: _problem(
        "Two masks of an image have an IoU above 0.95.",
        "One object was drawn twice, and counts twice.",
        "Look at both and delete one.",
    ),
    Kind.COVERED: _problem(
        "More than half of a mask lies inside another mask of its class.",
        "Where masks may not overlap, as in submissions, the smaller one may be lost. It is often one object, drawn "
        "twice.",
        "Look at both and delete or cut one.",
    ),
    Kind.FULL: _problem(
        "The mask covers more than 99 % of the image.",
        "It is usually inverted: the background, in place of the object.",
        "Invert it, or delete it.",
    ),
    Kind.BOX: _problem(
        "The box that the annotation states is far from the box of its mask.",
        "One of the two is wrong. Training here takes the mask; other programs take the box.",
        "Look at the annotation, and export boxes and masks again.",
    ),
    Kind.BACKGROUND: _problem(
        "A class that is called background has objects.",
        "Everything that is no object is background already. A model learns regions of it as objects.",
        "Remove the class.",
        Repair.DROP_CLASS,
    ),
    Kind.SPELLING: _problem(
        "Two classes have one name but for case, spaces, hyphens or underscores.",
        "A model learns to tell apart what is the same.",
        "Give both one name.",
        Repair.MERGE,
    ),
    Kind.LEAK: _problem(
        "An image, or one that looks the same, is in training and in validation.",
        "The validation scores what was learned by heart, so the score is too high.",
        "Keep such images on one side.",
    ),
    Kind.SAME_IMAGE: _problem(
        "Two files are equal, byte for byte.",
        "A split may put one into training and the other into validation. Annotations that differ contradict.",
        "Delete one of the two.",
    ),
    Kind.ALIKE: _note(
        "Two images differ only slightly, like frames of a film or copies of another quality.",
        "A split may put one into training and the other into validation.",
        "Keep them on one side of a split (maskrcnn train --val-ids).",
    ),
    Kind.EMPTY: _note(
        "The annotation has a mask that covers no pixel of its image.",
        "The object is lost.",
        "Delete it, or draw it again.",
        Repair.LEAVE_OUT,
    ),
    Kind.OUTSIDE: _note(
        "A shape, or the box that is stated for it, goes beyond the image.",
        "What lies beyond is cut off.",
        "Nothing, if objects reach the border; otherwise, look whether the image was cropped or scaled.",
        Repair.CLIP,
    ),
    Kind.TINY: _note(
        "The mask has fewer than 4 pixels.", "It is usually a slip of the hand.", "Look at it, and delete slips."
    ),
    Kind.SLIT: _note(
        "The mask is one pixel wide or high.",
        "It is usually a line that was drawn by accident, or a polygon without area.",
        "Look at it, and delete slips.",
    ),
    Kind.DISTANT_PARTS: _note(
        "The mask has two parts of similar size with a wide gap between them.",
        "They may be two objects under one number. A model then learns boxes around both.",
        "Look at it, and split it if it is two objects.",
    ),
    Kind.OVERLAP: _note(
        "Two masks share pixels.",
        "It costs nothing for neighbours that share a border, and for parts of a thing of another class.",
        "Look at the largest shares.",
    ),
    Kind.ONE_LETTER: _note(
        "Two class names differ by one letter, or by two that are swapped.",
        "If it is a misprint, a model learns to tell apart what is the same.",
        "Give both one name, unless they are two classes.",
    ),
    Kind.UNUSED_CLASS: _note(
        "No object has the class.", "A model cannot learn it.", "Nothing, if other data have its objects."
    ),
    Kind.MISSING_IDS: _note(
        "The class ids are numbers with gaps.",
        "It costs nothing. A gap can be a class that an export lost.",
        "Look whether a class is missing.",
    ),
    Kind.UNLISTED: _note(
        "The folder has images that the annotations do not list.",
        "They are left out. Images without objects teach a model what is none.",
        "Pass --unlisted empty if they hold no objects.",
    ),
    Kind.MIXED: _note(
        "Some images are gray and others in colour, or some have more than 8 bits.",
        "A model may learn the kind of image in place of the object, and new images of one kind may do worse.",
        "Nothing, if new images are as mixed.",
    ),
}
"""Every kind of finding."""


class NoImageError(UserError):
    """No image of the data can be used. `problems` say why."""

    def __init__(self, message: str, problems: Sequence[Problem]) -> None:
        super().__init__(message)
        self.problems = problems


LOSSES = frozenset({Kind.BAD_ROW, Kind.NO_FILE, Kind.UNREADABLE, Kind.SIZE})
"""Kinds that cost an instance or an image when the data is opened."""


@dataclass(frozen=True)
class Problem:
    """Fault in the data: its kind, its place (file and row, or image) and what is wrong.

    `share` is the part of the mask, 0 to 1, that the fault concerns: of the smaller mask where two share pixels.
    `image` is the name of the image, `twin` the file that it repeats or looks like, and `instances` are the indices in
    the `Dataset` of the masks in question.
    `option` of the command line, or `move` of all masks by (dx, dy) pixels, mends the fault.
    """

    kind: Kind
    place: str
    message: str
    share: float | None = None
    image: str | None = None
    twin: str = ""
    instances: tuple[int, ...] = ()
    option: str = ""
    move: tuple[int, int] | None = None

    @property
    def severity(self) -> Severity:
        """Whether the fault costs training something."""
        return KINDS[self.kind].severity

    @property
    def is_problem(self) -> bool:
        return self.severity == Severity.PROBLEM

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


def worst_first(problems: Iterable[Problem]) -> dict[Kind, list[Problem]]:
    """Return the findings of each kind that has some, in the order of kinds, those of the largest share first."""
    of_kind: dict[Kind, list[Problem]] = {kind: [] for kind in Kind}
    for problem in sorted(problems, key=lambda problem: -(problem.share or 0.0)):
        of_kind[problem.kind].append(problem)
    return {kind: found for kind, found in of_kind.items() if found}
