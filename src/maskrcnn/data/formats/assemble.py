"""From what a source lists to a `Dataset`, the same for every format.

names -> pictures: files, headers, sizes -> masks in pixels -> problems said -> `Dataset`
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from maskrcnn.config import Exif
from maskrcnn.data.depth import find_reading
from maskrcnn.data.formats.classes import ClassNames
from maskrcnn.data.formats.mask_texts import Numbering
from maskrcnn.data.headers import KnownHeaders, read_headers
from maskrcnn.data.images import Header
from maskrcnn.data.names import PathIndex
from maskrcnn.data.parts import describe_parts
from maskrcnn.data.pictures import describe_pages, image_files, locate
from maskrcnn.data.problem import Kind, NoImageError, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.errors import ImageError, UserError, counted
from maskrcnn.rle import RunTable

MAX_SHOWN_PROBLEMS, MAX_EXAMPLES, MAX_NAMES = 8, 3, 12


@dataclass(frozen=True)
class OpenOptions:
    """How to open a source; `open_dataset` explains each."""

    images: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    class_names: ClassNames | None = None
    numbering: Numbering = field(default_factory=Numbering)
    unlisted: Literal["ignore", "empty"] = "ignore"
    bad: Literal["error", "skip"] = "error"
    depth: int | None = None
    exif: Exif = "turn"
    known_headers: KnownHeaders = field(default_factory=dict)
    part: str = ""


@dataclass(frozen=True)
class Pictures:
    """The pictures that a source names: for each its file and header, None without one, and (height, width) in `sizes`.

    A size of 0 0 marks a picture that cannot be used; `problems` or `unreadable` say why. `unlisted` is a finding about
    the pictures of the folder that are left out, if there are any.
    """

    folder: Path
    names: list[str]
    files: list[Path | None]
    headers: list[Header | None]
    sizes: np.ndarray
    problems: list[Problem]
    unreadable: list[Problem]
    notes: list[str]
    unlisted: list[Problem]

    @property
    def usable(self) -> np.ndarray:
        """Which pictures can be used, (n,) bool."""
        return self.sizes[:, 0] > 0

    def sizes_of(self, exif: Exif) -> np.ndarray:
        """Return the (height, width) of each picture as `exif` turns it, (n, 2) int64; 0 0 without a header."""
        return np.array([(0, 0) if h is None else h.hw(exif) for h in self.headers], np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Instances:
    """Columns of instances: image k of the pictures, label (0: none), mask, row of the source.

    `valid` (N,) bool leaves out what some problem is about. Optional columns are those of `Dataset`.
    """

    image: np.ndarray
    labels: np.ndarray
    masks: RunTable
    rows: np.ndarray
    valid: np.ndarray
    attributes: np.ndarray | None = None
    crowd: np.ndarray | None = None
    scores: np.ndarray | None = None
    stated_boxes: np.ndarray | None = None


def find_pictures(
    names: list[str],
    places: Sequence[str],
    folder: Path,
    options: OpenOptions,
    *,
    known_files: Sequence[Path | None] = (),
    other_names: Sequence[Sequence[str]] = (),
    embedded: Sequence[Path | None] = (),
    no_pictures: AbstractSet[Path] = frozenset(),
) -> Pictures:
    """Find and open the picture that each name means.

    ``places[k]`` says where name k stands, ``known_files[k]`` is its file where the source itself says so. For a name
    without a picture, the first of ``other_names[k]`` that has one counts, and then the file ``embedded[k]``, which has
    the picture in it. Files in `no_pictures` (resolved) are masks.
    """
    known = list(known_files) or [None] * len(names)
    paths = [path for path in image_files(folder) if not no_pictures or path.resolve() not in no_pictures]
    naming_notes: list[str] = []
    if any(other_names) or any(embedded):
        index = PathIndex([path.relative_to(folder).as_posix() for path in paths])
        names, known, naming_notes = _settle_names(index, names, known, other_names, embedded)
    unknown = [k for k, file in enumerate(known) if file is None]
    files, problems, notes = locate([names[k] for k in unknown], [places[k] for k in unknown], paths, folder)
    notes = [*naming_notes, *notes]
    for k, file in zip(unknown, files, strict=True):
        known[k] = file
    unlisted = sorted(set(paths) - {file for file in known if file is not None})
    if unlisted and options.unlisted == "empty":
        names = [*names, *(str(file.relative_to(folder)) for file in unlisted)]
        known += unlisted
    if unlisted:
        action = "kept as images without objects" if options.unlisted == "empty" else "left out"
        notes.append(f"{folder}: images that the annotations do not list ({len(unlisted):,}) are {action}")
    unlisted_finding = []
    if unlisted and options.unlisted == "ignore":
        message = (
            f"{counted(len(unlisted), 'image is', 'images are')} left out, such as {unlisted[0].relative_to(folder)}"
        )
        unlisted_finding = [Problem(Kind.UNLISTED, str(folder), message)]
    headers, unreadable = _read_headers(known, options.known_headers)
    sizes = np.array([(0, 0) if h is None else h.hw(options.exif) for h in headers], np.int64).reshape(-1, 2)
    return Pictures(folder, names, known, headers, sizes, problems, unreadable, notes, unlisted_finding)


def _settle_names(
    index: PathIndex,
    names: Sequence[str],
    known: Sequence[Path | None],
    other_names: Sequence[Sequence[str]],
    embedded: Sequence[Path | None],
) -> tuple[list[str], list[Path | None], list[str]]:
    """Return for each picture the name by which `index` finds it, the known files, and notes for people."""
    names, known = list(names), list(known)
    renamed, n_embedded = [], 0
    for k, name in enumerate(names):
        if known[k] is not None or len(index.find(name).indices) == 1:
            continue
        found = [other for other in other_names[k] if len(index.find(other).indices) == 1]
        if found:
            renamed.append(f"{name!r} as {found[0]!r}")
            names[k] = found[0]
        elif embedded[k] is not None:
            known[k] = embedded[k]
            n_embedded += 1
    notes = []
    if renamed:
        subject = counted(len(renamed), "picture is", "pictures are")
        notes.append(f"{subject} found under another name, such as {renamed[0]}")
    if n_embedded:
        subject = counted(n_embedded, "picture is", "pictures are")
        notes.append(f"{subject} read from the annotation files, which have them embedded")
    return names, known, notes


def _read_headers(files: list[Path | None], known: KnownHeaders) -> tuple[list[Header | None], list[Problem]]:
    """Return the header of each file, None if unusable, and the unreadable images."""
    located = [i for i, f in enumerate(files) if f is not None]
    headers: list[Header | None] = [None] * len(files)
    unreadable = []
    for i, header in zip(located, read_headers([f for f in files if f is not None], known), strict=True):
        if isinstance(header, ImageError):
            unreadable.append(Problem(Kind.UNREADABLE, "unreadable image", str(header)))
        else:
            headers[i] = header
    return headers, unreadable


def other_exif(exif: Exif) -> Exif:
    """Return the other value of the option."""
    return "ignore" if exif == "turn" else "turn"


def check_sizes(
    pictures: Pictures,
    image: np.ndarray,
    stated: np.ndarray,
    exif: Exif,
    *,
    n_masks: np.ndarray,
    place: Callable[[int], str],
    text: Callable[[int], str],
    swap_option: str = "",
) -> np.ndarray:
    """Compare ``stated[j]``, (height, width) of picture ``image[j]``, with the picture; NaN is not compared.

    A picture that differs from all its sizes becomes a problem and unusable, with its ``n_masks[i]`` masks. Where some
    agree, each of the others is a problem of its own; return which these are, (k,) indices j. ``place(j)`` and
    ``text(j)`` say where the size stands and how; `swap_option` reads a size whose numbers are swapped, if any does.
    """
    is_different = ((stated != pictures.sizes[image]) & ~np.isnan(stated)).any(1) & pictures.usable[image]
    agrees = np.zeros(len(pictures.sizes), bool)
    agrees[image[(stated == pictures.sizes[image]).all(1)]] = True
    deviating = np.flatnonzero(is_different & agrees[image])
    for j in deviating.tolist():
        h, w = pictures.sizes[image[j]].tolist()
        message = f"{text(j)}, but other rows and the image {pictures.files[image[j]]} say {h} high and {w} wide"
        pictures.problems.append(Problem(Kind.BAD_ROW, place(j), message))
    mismatched = np.flatnonzero(is_different & ~agrees[image])
    _, first_of_image = np.unique(image[mismatched], return_index=True)
    upright_or_not = pictures.sizes_of(other_exif(exif))
    for j in mismatched[np.sort(first_of_image)].tolist():
        i = int(image[j])
        h, w = pictures.sizes[i].tolist()
        message = f"{text(j)}, but the image {pictures.files[i]} is {h} high and {w} wide"
        header, option = pictures.headers[i], ""
        if header is not None and header.is_turned and (stated[j] == upright_or_not[i]).all():
            state = "as its EXIF orientation turns it" if exif == "turn" else "without its EXIF orientation"
            option = f"--exif {other_exif(exif)}"
            message += f" {state}. If masks were drawn on the other reading, pass {option}"
        elif h != w and (stated[j] == (w, h)).all():
            option = swap_option
            message += f". The two are swapped: {f'pass {option}' if option else 'correct the annotations'}"
        if n_masks[i]:
            message += f". The masks of the image ({n_masks[i]:,}) are left out with it"
        pictures.problems.append(Problem(Kind.SIZE, place(j), message, option=option))
    pictures.sizes[np.unique(image[mismatched])] = 0
    return deviating


def build_dataset(
    source: Path,
    pictures: Pictures,
    instances: Instances,
    class_ids: list[Any],
    class_names: list[str],
    options: OpenOptions,
    *,
    notes: Sequence[str] = (),
    warnings: Sequence[Problem] = (),
    hint: str = "",
    **columns: Any,
) -> Dataset:
    """Return the data set of the usable pictures and valid instances. Raise `UserError` for problems or no images.

    `notes` are lines for the user, `warnings` what makes the data as a whole implausible, and `hint` the end of the
    message about problems. `columns` are further fields of `Dataset`; `parts` and `sources` are lists over all
    pictures.
    """
    problems, unreadable, usable = pictures.problems, pictures.unreadable, pictures.usable
    valid = instances.valid & (instances.labels > 0) & (instances.masks.areas > 0) & usable[instances.image]
    lines = [*notes, *pictures.notes, *_report_problems(problems, unreadable, options.bad, hint, source)]
    images = np.flatnonzero(usable)
    if len(images) == 0:
        reasons = "".join(f"\n  {problem}" for problem in [*problems, *unreadable][:MAX_EXAMPLES])
        message = (
            f"{source}: of {counted(len(pictures.names), 'image')}, none can be read from {pictures.folder}{reasons}"
        )
        raise NoImageError(message, [*problems, *unreadable])
    image_index = (np.cumsum(usable) - 1)[instances.image]
    selected = np.flatnonzero(valid)
    selected = selected[np.argsort(image_index[selected], kind="stable")]
    warnings = list(warnings)
    if not (valid if instances.crowd is None else valid & ~instances.crowd).any():
        message = "no image has an object, so there is nothing to learn or to score"
        warnings.insert(0, Problem(Kind.NO_OBJECTS, str(source), message))
    lines += _describe_warnings(warnings)
    files = [f for i in images if (f := pictures.files[i]) is not None]
    headers = [h for i in images if (h := pictures.headers[i]) is not None]
    reading, reading_notes = find_reading(files, [h.mode for h in headers], options.depth, options.exif)
    lines += reading_notes
    names = [pictures.names[i] for i in images]
    if page_note := describe_pages({name: h.n_pages for name, h in zip(names, headers, strict=True)}):
        lines.append(page_note)
    for key in ("parts", "sources"):
        if columns.get(key) is not None:
            columns[key] = [columns[key][i] for i in images]

    def column(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[selected]

    is_complete = np.array_equal(selected, np.arange(len(instances.masks)))
    data = Dataset(
        source=source,
        names=names,
        files=files,
        sizes=pictures.sizes[images],
        image_index=image_index[selected],
        labels=instances.labels[selected],
        masks=instances.masks if is_complete else instances.masks.take(selected),
        rows=instances.rows[selected],
        class_ids=class_ids,
        class_names=class_names,
        attributes=column(instances.attributes),
        crowd=column(instances.crowd),
        scores=column(instances.scores),
        headers=headers,
        stated_boxes=column(instances.stated_boxes),
        reading=reading,
        notes=lines,
        problems=[*problems, *unreadable, *warnings, *pictures.unlisted],
        **columns,
    )
    objects = data.without_crowd
    empty = int((objects.counts == 0).sum())
    if data.part_sizes:
        lines.append(f"parts: {describe_parts(data.part_sizes)}")
    n_crowd = data.n_instances - objects.n_instances
    crowds = f"{counted(n_crowd, 'crowd region')}, " if n_crowd else ""
    lines.append(
        f"{counted(len(data), 'image')} ({empty:,} without objects), "
        f"{counted(objects.n_instances, 'instance')}, {crowds}"
        f"{counted(len(class_ids), 'class', 'classes')}: {_join_names(data.class_names)}"
    )
    return data


def _report_problems(
    problems: list[Problem], unreadable: list[Problem], bad: str, hint: str, source: Path
) -> list[str]:
    """Raise `UserError` for problems if `bad` is "error". Otherwise return lines about them and unreadable images.

    `hint`, the end of a message, is about all problems.
    """
    if problems and bad == "error":
        listing = "\n".join(f"  {p}" for p in problems[:MAX_SHOWN_PROBLEMS])
        n_hidden = len(problems) - MAX_SHOWN_PROBLEMS
        more = f"\n  ... and {n_hidden:,} more" if n_hidden > 0 else ""
        raise UserError(
            f"{source} has {counted(len(problems), 'problem')}:\n{listing}{more}\n"
            f"`maskrcnn check {shlex.quote(str(source))} --all-problems` lists them all; "
            f"--bad skip leaves them out{hint}"
        )
    lines = []
    for kind, items, end in (("problem", problems, hint), ("unreadable image", unreadable, "")):
        if items:
            lines.append(f"skipped {counted(len(items), kind)}, such as {items[0]}{end}")
    return lines


def _describe_warnings(warnings: list[Problem]) -> list[str]:
    """Return a line for each kind of warning, with its first place."""
    of_kind: dict[Kind, list[Problem]] = {}
    for warning in warnings:
        of_kind.setdefault(warning.kind, []).append(warning)
    lines = []
    for first, *others in of_kind.values():
        more = f"; {len(others):,} more like it" if others else ""
        lines.append(f"warning: {first}{more}")
    return lines


def _join_names(names: Sequence[str]) -> str:
    quoted = [repr(name) if "," in name else name for name in names[:MAX_NAMES]]
    return ", ".join(quoted) + (f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else "")
