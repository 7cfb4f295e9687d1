"""Repair: findings -> changes -> a repaired data set. A log of the changes, one JSON object a line, repeats them.

`problem.KINDS` says which kinds are repaired, and how. What needs a person's judgement stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from maskrcnn.data.doctor.classes import spelled_alike
from maskrcnn.data.doctor.orientation import turned_images
from maskrcnn.data.images import TURNED_BACK, read_header
from maskrcnn.data.problem import KINDS, Kind, Problem, Repair
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError
from maskrcnn.files import write_text
from maskrcnn.rle import RLE, RunTable

UPRIGHT = {
    **TURNED_BACK,
    6: Image.Transpose.ROTATE_270,
    8: Image.Transpose.ROTATE_90,
}
"""From the stored pixels to the upright picture, by EXIF orientation."""


class Action(StrEnum):
    """What a change does."""

    READ_AGAIN = "read again"
    LEAVE_OUT = "leave out"
    REMOVE_IMAGE = "remove image"
    MERGE_CLASS = "merge class"
    DROP_CLASS = "drop class"
    REMOVE_MASK = "remove mask"
    MOVE_MASKS = "move masks"
    CLIP = "clip"
    TURN_UPRIGHT = "turn upright"


@dataclass(frozen=True)
class Change:
    """One change, the kind of finding that it is about, and its place. The other fields are those of its `action`.

    Masks are indices, and classes are labels, of the data as they are read after the last `READ_AGAIN`. `LEAVE_OUT` and
    `CLIP` say what reading has done already.
    """

    action: Action
    kind: Kind
    place: str
    option: str = ""
    image: str = ""
    mask: int | None = None
    label: int = 0
    into: int = 0
    name: str = ""
    move: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are set."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


def better_option(findings: Iterable[Problem], tried: Sequence[str]) -> Problem | None:
    """Return the first finding that another option of reading mends, of those that were not `tried`."""
    return next((finding for finding in findings if finding.option and finding.option not in tried), None)


def plan_changes(data: Dataset, findings: Sequence[Problem]) -> list[tuple[Problem, Change]]:
    """Return the changes of `data` that its findings call for, each with its finding."""
    merged = _merged_labels(data)
    planned: list[tuple[Problem, Change]] = []

    def at(finding: Problem) -> tuple[Kind, str]:
        return finding.kind, finding.place

    for finding in findings:
        repair = KINDS[finding.kind].repair
        if finding.kind == Kind.UNREADABLE and finding.image is not None:
            change = Change(Action.REMOVE_IMAGE, *at(finding), image=finding.image)
        elif repair == Repair.LEAVE_OUT or finding.kind == Kind.SIZE:
            change = Change(Action.LEAVE_OUT, *at(finding))
        elif repair == Repair.CLIP:
            change = Change(Action.CLIP, *at(finding))
        elif finding.move is not None:
            change = Change(Action.MOVE_MASKS, *at(finding), move=finding.move)
        elif finding.kind == Kind.REPEATED and len({merged[data.labels[k]] for k in finding.instances}) == 1:
            change = Change(Action.REMOVE_MASK, *at(finding), mask=finding.instances[0])
        else:
            continue
        planned.append((finding, change))
    names = data.class_names
    spelling = [finding for finding in findings if finding.kind == Kind.SPELLING]
    for finding, group in zip(spelling, spelled_alike(names) if spelling else [], strict=True):
        planned += [
            (finding, Change(Action.MERGE_CLASS, *at(finding), label=k, into=merged[k], name=names[k - 1]))
            for k in group
            if merged[k] != k
        ]
    for finding in (finding for finding in findings if finding.kind == Kind.BACKGROUND):
        label = int(data.labels[finding.instances[0]])
        planned.append((finding, Change(Action.DROP_CLASS, *at(finding), label=label, name=names[label - 1])))
    if data.reading.exif == "ignore":
        turned = [(data.names[i], str(data.files[i])) for i in turned_images(data)]
        finding = Problem(Kind.TURNED, str(data.source), "")
        planned += [(finding, Change(Action.TURN_UPRIGHT, Kind.TURNED, file, image=name)) for name, file in turned]
    return planned


def _merged_labels(data: Dataset) -> list[int]:
    """Return for each label, from 0, the label of the class that its class merges into."""
    labels = list(range(len(data.class_names) + 1))
    n_objects = np.bincount(data.labels, minlength=len(labels))
    for group in spelled_alike(data.class_names):
        for label in group:
            labels[label] = max(group, key=lambda k: (n_objects[k], -k))
    return labels


def apply_changes(data: Dataset, changes: Sequence[Change]) -> Dataset:
    """Return the changed data, whose pictures are read upright. Masks that a move takes off their image are removed.

    Raise `UserError` for masks or classes that the data lack.
    """
    n_masks, n_labels = data.n_instances, len(data.class_names) + 1
    if any(
        not 0 <= (c.mask or 0) < max(n_masks, 1) or not 0 <= min(c.label, c.into) <= max(c.label, c.into) < n_labels
        for c in changes
    ):
        raise UserError(f"the changes name masks or classes that {data.source} does not have")
    by_action: dict[Action, list[Change]] = {action: [] for action in Action}
    for change in changes:
        by_action[change.action].append(change)
    names = data.class_names
    labels = np.arange(len(names) + 1)
    for change in by_action[Action.MERGE_CLASS]:
        labels[change.label] = change.into
    for change in by_action[Action.DROP_CLASS]:
        labels[change.label] = 0
    kept_labels = np.flatnonzero(labels == np.arange(len(labels)))[1:]
    masks = [RLE(data.masks[k], data.hw(int(i))) for k, i in enumerate(data.image_index)]
    for change in by_action[Action.MOVE_MASKS]:
        dx, dy = change.move or (0, 0)
        masks = [mask.shift(dx, dy) for mask in masks]
    is_kept = np.array([mask.area > 0 for mask in masks], bool) & (labels[data.labels] > 0)
    is_kept[[change.mask for change in by_action[Action.REMOVE_MASK]]] = False
    sizes = _turn_upright(data, masks, {change.image for change in by_action[Action.TURN_UPRIGHT]})
    kept = np.flatnonzero(is_kept)

    renumbered = np.searchsorted(kept_labels, labels) + 1  # means nothing for a label that is dropped
    new_label = {int(label): int(renumbered[label]) for label in np.flatnonzero(labels)}

    def column(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[kept]

    changed = replace(
        data,
        sizes=sizes,
        image_index=data.image_index[kept],
        labels=renumbered[data.labels[kept]],
        masks=RunTable.of(masks[k].runs for k in kept),
        rows=data.rows[kept],
        class_ids=[data.class_ids[label - 1] for label in kept_labels],
        class_names=[names[label - 1] for label in kept_labels],
        attributes=column(data.attributes),
        crowd=column(data.crowd),
        scores=column(data.scores),
        stated_boxes=None,
        federated=data.federated and data.federated.renumbered(new_label, kept_labels.tolist()),
        reading=replace(data.reading, exif="turn"),
    )
    removed = {change.image for change in by_action[Action.REMOVE_IMAGE]}
    return changed.take([i for i, name in enumerate(data.names) if name not in removed]) if removed else changed


def _turn_upright(data: Dataset, masks: list[RLE], images: set[str]) -> np.ndarray:
    """Turn the masks of some images, in place, from the stored pixels to the upright picture. Return the sizes."""
    sizes = data.sizes.copy()
    for i in (i for i, name in enumerate(data.names) if name in images):
        header = read_header(data.files[i])
        sizes[i] = header.upright_hw
        span = data.instances(i)
        for k in range(span.start, span.stop):
            stored = Image.fromarray(masks[k].to_mask())
            masks[k] = RLE.from_mask(np.asarray(stored.transpose(UPRIGHT[header.orientation])))
    return sizes


def write_log(path: Path, data: Dataset, changes: Sequence[Change]) -> None:
    """Write the changes of `data`, which is as it was opened first. Raise `UserError`."""
    lines = [{"source": data.source.name, "fingerprint": data.fingerprint()}, *(change.to_json() for change in changes)]
    write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), path)


def read_log(path: Path, data: Dataset) -> list[Change]:
    """Return the changes in a log. Raise `UserError` if it is no log, or one of other data than `data`."""
    try:
        head, *lines = path.read_bytes().splitlines() or [b""]
        fingerprint = msgspec.json.decode(head, type=dict[str, str]).get("fingerprint")
        changes = [msgspec.json.decode(line, type=Change) for line in lines]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UserError(f"{path} is no log of repairs: `maskrcnn check DATA --fix OUT` writes one beside OUT") from None
    if fingerprint != data.fingerprint():
        raise UserError(
            f"{path} is of other data than {data.source}, or of the same opened with other options; pass what was "
            "passed with --fix"
        )
    return changes
