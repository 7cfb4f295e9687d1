"""Data in which annotators looked for some classes in each image and not for others, as in LVIS."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
"""LVIS's groups of classes, by the number of training images that have the class."""


@dataclass(frozen=True)
class Federated:
    """What is known about image i beside its instances, as 1-based labels.

    Annotators looked for the classes ``absent[i]`` and found none. Of the classes ``incomplete[i]``, they did not
    annotate every object. Whether the image has objects of a class that is neither in ``absent[i]`` nor annotated is
    unknown. ``frequencies[j - 1]`` is the group of label j, a key of `FREQUENCIES`, or "" without one.

    Source: Gupta, Dollar, Girshick, "LVIS: A Dataset for Large Vocabulary Instance Segmentation", CVPR 2019, section 3.
    """

    absent: list[frozenset[int]]
    incomplete: list[frozenset[int]]
    frequencies: list[str]

    def take(self, images: Sequence[int] | np.ndarray) -> Federated:
        """Return what is known about the given images, in that order."""
        return Federated([self.absent[i] for i in images], [self.incomplete[i] for i in images], self.frequencies)

    def renumbered(self, new_label: Mapping[int, int], kept_labels: Sequence[int]) -> Federated:
        """Return what is known after classes were merged or dropped.

        `new_label` is that of each label that remains or is merged, `kept_labels` the label that each new one had.
        """

        def renumber(sets: list[frozenset[int]]) -> list[frozenset[int]]:
            return [frozenset(new_label[label] for label in labels if label in new_label) for labels in sets]

        frequencies = [self.frequencies[label - 1] for label in kept_labels]
        return Federated(renumber(self.absent), renumber(self.incomplete), frequencies)

    def may_lack(self, i: int, label: int, annotated: np.ndarray) -> bool:
        """Whether image i may have objects of a class without an annotation. `annotated` are the labels that it has."""
        return label in self.incomplete[i] or (label not in self.absent[i] and label not in annotated)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the content."""
        labels = [[sorted(labels) for labels in column] for column in (self.absent, self.incomplete)]
        return hashlib.sha256(json.dumps([labels, self.frequencies]).encode()).hexdigest()
