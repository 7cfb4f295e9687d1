"""Pair the classes of a model with those of data, by name before id, so that no class is scored as another.

Names decide if both sides have any: words, or other numbers than the ids. Otherwise ids decide, compared as text. Data
without a class column, and a model of such data, have one class without a name: it pairs with any single class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError
from maskrcnn.structures import UNNAMED_CLASS, Detections


class Classes(Protocol):
    """A model or data: K class ids and their names."""

    @property
    def class_ids(self) -> list[Any]: ...

    @property
    def class_names(self) -> list[str]: ...


@dataclass(frozen=True)
class ClassMatch:
    """The 1-based label in `data` of each class id of a model, as text; 0 for a class that the data lacks.

    `note` is a sentence about classes without a counterpart and about other ids, if there are any.
    """

    data: Dataset
    label_of: dict[str, int]
    note: str | None

    def in_data_classes(self, detections: Detections) -> Detections:
        """Return detections with the class ids and names of the data. Drop those of classes that the data lacks."""
        labels = np.array([self.label_of[str(c)] for c in detections.class_ids], np.int64)
        indices = labels[labels > 0] - 1
        return replace(
            detections[labels > 0],
            class_ids=np.array(self.data.class_ids)[indices],
            class_names=[self.data.class_names[k] for k in indices],
            vocabulary=tuple(self.data.class_names),
        )


def pair_classes(model: Classes, data: Classes) -> np.ndarray:
    """Return the 1-based label in `data` of each class of `model`, (K,) int64; 0 for none."""
    if _is_unnamed(model) or _is_unnamed(data):
        both_single = len(model.class_ids) == len(data.class_ids) == 1
        return np.full(len(model.class_ids), int(both_single))
    keys, data_keys = (_keys(side, _names_decide(model, data)) for side in (model, data))
    label_of = {key: label for label, key in enumerate(data_keys, 1)}
    return np.array([label_of.get(key, 0) for key in keys], np.int64)


def model_labels(model: Classes, data: Classes) -> dict[int, int]:
    """The model's label of each label in `data` that it knows."""
    return {int(label): k for k, label in enumerate(pair_classes(model, data), 1) if label}


def match_classes(model: Classes, data: Dataset) -> ClassMatch:
    """Match the classes of `model` with those of `data`.

    Raise `UserError` if they have nothing in common, or if ids decide and each side has ids that the other lacks: the
    same ids could then mean other classes.
    """
    labels = pair_classes(model, data)
    by_name = _names_decide(model, data)
    only_model = [_label(model, k) for k in range(len(labels)) if labels[k] == 0]
    only_data = [_label(data, k) for k in range(len(data.class_ids)) if k + 1 not in labels]
    if not labels.any() or (only_model and only_data and not by_name):
        remedy = "name the classes alike" if by_name else "give the data the model's ids, or class names to both"
        if _is_unnamed(data):
            remedy = "the data has no column of classes; name it with --column class=NAME"
        disagreement = "do not agree" if labels.any() else "have nothing in common"
        raise UserError(
            f"the classes of the model and of {data.source} {disagreement}: only the model has {_listed(only_model)}; "
            f"only the data has {_listed(only_data)}. Classes are compared by {'name' if by_name else 'id'}; {remedy} "
            "(--class-names)"
        )
    notes = []
    if by_name and any(str(data.class_ids[k - 1]) != str(c) for c, k in zip(model.class_ids, labels, strict=True) if k):
        notes.append(f"classes of the model and of {data.source} are matched by name: their ids differ")
    if only_data:
        notes.append(
            f"the model does not know {_listed(only_data)} of {data.source}: all their objects count as missed"
        )
    if only_model:
        notes.append(f"{data.source} lacks {_listed(only_model)} of the model: their detections are not scored")
    label_of = dict(zip(map(str, model.class_ids), labels.tolist(), strict=True))
    return ClassMatch(data, label_of, ". ".join(notes) or None)


def _names_decide(*sides: Classes) -> bool:
    return all(_has_names(side) for side in sides)


def _is_unnamed(side: Classes) -> bool:
    return list(side.class_names) == [UNNAMED_CLASS]


def _has_names(side: Classes) -> bool:
    """Return whether names tell the classes apart and say more than numeric ids."""
    ids, names = [str(c) for c in side.class_ids], list(side.class_names)
    are_ids = names == ids and all(name.isdecimal() for name in names)
    return len(set(names)) == len(names) and not are_ids and not _is_unnamed(side)


def _keys(side: Classes, by_name: bool) -> Sequence[str]:
    return side.class_names if by_name else [str(c) for c in side.class_ids]


def _label(side: Classes, k: int) -> str:
    class_id, name = str(side.class_ids[k]), side.class_names[k]
    return name if name == class_id else f"{name} (id {class_id})"


def _listed(labels: Sequence[str], max_labels: int = 6) -> str:
    if not labels:
        return "no others"
    kind = "class" if len(labels) == 1 else "classes"
    rest = f" and {len(labels) - max_labels} more" if len(labels) > max_labels else ""
    return f"{kind} {', '.join(labels[:max_labels])}{rest}"
