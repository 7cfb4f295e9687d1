"""Findings about the list of classes: names that may mean one class, background, classes and ids without objects."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import numpy as np

from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.errors import counted

MIN_LETTERS = 4
"""Letters of the longer of two words that may be one word with a misprint. Shorter ones, "car" and "cat", are two."""

MAX_LISTED = 12


def check_classes(data: Dataset) -> list[Problem]:
    """Return the findings about the classes of `data`."""
    names, n_objects = data.class_names, np.bincount(data.labels, minlength=len(data.class_names) + 1)[1:]
    place = str(data.source)
    problems = []

    def examples(*labels: int) -> tuple[int, ...]:
        """Return an instance of each class that has some."""
        return tuple(int(np.argmax(data.labels == label)) for label in labels if n_objects[label - 1])

    for labels in spelled_alike(names):
        listed = ", ".join(f"{names[k - 1]!r} ({counted(int(n_objects[k - 1]), 'object')})" for k in labels)
        problems.append(
            Problem(Kind.SPELLING, place, f"the classes {listed} have one name", instances=examples(*labels))
        )
    words_of = {name: _folded(name).split() for name in sorted({_folded(name): name for name in names}.values())}
    for a, b in combinations(words_of, 2):
        if _differ_by_a_letter(words_of[a], words_of[b]):
            message = f"the classes {a!r} and {b!r} differ by one letter, or by two that are swapped"
            instances = examples(names.index(a) + 1, names.index(b) + 1)
            problems.append(Problem(Kind.ONE_LETTER, place, message, instances=instances))
    for k in background_labels(names):
        if n := int(n_objects[k - 1]):
            message = f"the class {names[k - 1]!r} (id {data.class_ids[k - 1]}) has {counted(n, 'object')}"
            problems.append(Problem(Kind.BACKGROUND, place, message, instances=examples(k)))
    if len(names) > 1 and (unused := [name for name, n in zip(names, n_objects, strict=True) if n == 0]):
        subject = "the class" if len(unused) == 1 else f"{len(unused):,} classes"
        verb = "has" if len(unused) == 1 else "have"
        problems.append(Problem(Kind.UNUSED_CLASS, place, f"{subject} {_joined(unused)} {verb} no object"))
    if missing := _missing_ids(data.class_ids):
        problems.append(Problem(Kind.MISSING_IDS, place, f"no class has the id {_joined(missing)}"))
    return problems


def spelled_alike(names: list[str]) -> list[list[int]]:
    """Return the labels of classes that have one name but for case, spaces, hyphens and underscores, as groups."""
    groups: dict[str, list[int]] = {}
    for label, name in enumerate(names, 1):
        groups.setdefault(_folded(name), []).append(label)
    return [labels for labels in groups.values() if len(labels) > 1]


def background_labels(names: list[str]) -> list[int]:
    """Return the labels of classes that are called background. The id 0 alone tells nothing: many data begin there."""
    return [label for label, name in enumerate(names, 1) if _folded(name) == "background"]


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold() or name


def _differ_by_a_letter(a: list[str], b: list[str]) -> bool:
    """Whether one of the words differs, by a letter that is added, lost, another, or swapped with the next one.

    Numbers are no misprints.
    """
    if len(a) != len(b):
        return False
    different = [(x, y) for x, y in zip(a, b, strict=True) if x != y]
    if len(different) != 1:
        return False
    short, long = sorted(different[0], key=len)
    if len(long) < MIN_LETTERS or len(long) - len(short) > 1 or not (short + long).isalpha():
        return False
    start = next((k for k, (x, y) in enumerate(zip(short, long, strict=False)) if x != y), len(short))
    is_swapped = short[start : start + 2] == long[start : start + 2][::-1] and short[start + 2 :] == long[start + 2 :]
    return is_swapped or short[start + (len(short) == len(long)) :] == long[start + 1 :]


def _missing_ids(class_ids: list[Any]) -> list[str]:
    if not class_ids or not all(isinstance(i, int) for i in class_ids):
        return []
    # ids that are far apart are codes, not a count
    if len(class_ids) < 2 or max(class_ids) - min(class_ids) > 2 * len(class_ids):
        return []
    return [str(i) for i in sorted(set(range(min(class_ids), max(class_ids))) - set(class_ids))]


def _joined(texts: list[str]) -> str:
    more = f" and {len(texts) - MAX_LISTED:,} more" if len(texts) > MAX_LISTED else ""
    return ", ".join(texts[:MAX_LISTED]) + more
