"""Labels that a model disagrees with, ranked: the annotators may be wrong, or the model. Pictures decide.

detections -> judged against the labels (`tide`) -> disagreements of confident detections and labels that none finds

The model must not have learned these labels by heart: take one that was trained on other images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from maskrcnn.data.table import Dataset
from maskrcnn.evaluation.tide import CORRECT, FOREGROUND, ON_BACKGROUND, WRONG_CLASS, judge
from maskrcnn.rle import RLE, iou_matrix
from maskrcnn.structures import Detections

CONFIDENT = 0.7
"""Minimum score of a detection that disagrees with the labels."""

SAME_OBJECT = 0.7
"""Minimum IoU of a detection and a label of different classes that are about one object."""

MAX_LOOSE = 0.75
"""IoU below which a confident detection and the label that it finds have different outlines."""


class SuspectKind(StrEnum):
    """How model and label disagree, as people read it."""

    UNLABELLED = "object without a label"
    UNFOUND = "label that the model does not find"
    OTHER_CLASS = "label of another class than the model sees"
    LOOSE = "outline that the model draws differently"


@dataclass(frozen=True)
class Suspect:
    """A disagreement about image `image`; `doubt`, 0 to 1, ranks it.

    `instance` is the label's index in the data and `mask` is what the model sees; either may be None.
    """

    kind: SuspectKind
    image: int
    doubt: float
    message: str
    instance: int | None = None
    mask: RLE | None = None

    def to_json(self, data: Dataset) -> dict[str, Any]:
        """Return values for JSON, with the mask as COCO's runs."""
        return {
            "kind": str(self.kind),
            "doubt": round(self.doubt, 4),
            "image": data.names[self.image],
            "place": None if self.instance is None else data.place(self.instance),
            "message": self.message,
            "segmentation": None if self.mask is None else self.mask.to_coco(),
        }


def find_suspects(data: Dataset, detections: Sequence[Detections]) -> list[Suspect]:
    """Return the disagreements of `data` with one `Detections` per image, in its classes, the strongest doubt first.

    Doubt is the score of a detection where no label is; times the IoU where the class differs; times the part of the
    union that the two outlines do not share. For a label that nothing finds, it is the share of the labels of its class
    that the model does find, times that of its image: where a model misses many, a miss says little.
    """
    judgement = judge(data, detections)
    n_labels = len(data.class_names) + 1
    n_found = np.bincount(data.labels[judgement.found_at >= 0], minlength=n_labels)
    recall = n_found / np.maximum(np.bincount(data.labels, minlength=n_labels), 1)
    suspects = []
    for i, found in enumerate(detections):
        first = data.instances(i).start
        n_found_here = int((judgement.found_at[data.instances(i)] >= 0).sum())
        recall_here = (n_found_here + 1) / (int(data.counts[i]) + 2)  # Laplace's estimate: few labels tell little
        iou = iou_matrix(found.rles, data.rles(i))  # (detections, labels)
        is_crowd = np.zeros(iou.shape[1], bool) if data.crowd is None else data.crowd[data.instances(i)]
        crowds = [mask for mask, crowd in zip(data.rles(i), is_crowd, strict=True) if crowd]
        for k in np.flatnonzero((iou.max(0, initial=0.0) < FOREGROUND) & ~is_crowd).tolist():
            label = int(data.labels[first + k])
            message = (
                f"the model finds {n_found_here:,} of the {int(data.counts[i]):,} labels of the image, not this one"
            )
            doubt = float(recall[label] * recall_here * (1 - iou[:, k].max(initial=0.0)))
            suspects.append(Suspect(SuspectKind.UNFOUND, i, doubt, message, first + k))
        of_image = np.flatnonzero((judgement.images == i) & (judgement.scores >= CONFIDENT))
        for d in of_image.tolist():
            row, score, truth = int(judgement.rows[d]), float(judgement.scores[d]), int(judgement.truth[d])
            overlap = float(iou[row, truth - first]) if truth >= 0 else 0.0
            opinion, mask = f"the model sees {found.class_names[row]} (score {score:.2f})", found.rles[row]
            kind = judgement.kinds[d]
            if any(mask.intersection(crowd).area > mask.area / 2 for crowd in crowds):
                continue  # nobody outlined the objects of a crowd one by one
            if kind == ON_BACKGROUND:
                suspects.append(Suspect(SuspectKind.UNLABELLED, i, score, f"{opinion} where no label is", None, mask))
            elif kind == WRONG_CLASS and overlap >= SAME_OBJECT and judgement.found_at[truth] < score:
                message = f"{opinion}; the label says {data.class_names[data.labels[truth] - 1]}"
                suspects.append(Suspect(SuspectKind.OTHER_CLASS, i, score * overlap, message, truth, mask))
            elif kind == CORRECT and overlap < MAX_LOOSE:
                message = f"{opinion} whose outline has an IoU of {overlap:.2f} with that of the label"
                suspects.append(Suspect(SuspectKind.LOOSE, i, score * (1 - overlap), message, truth, mask))
    return sorted(suspects, key=lambda suspect: -suspect.doubt)


def readable_part(data: Dataset, results: Mapping[int, Detections | str]) -> tuple[Dataset, list[Detections]]:
    """Return the images of `evaluation.find` that could be read, and their detections."""
    readable = [i for i in sorted(results) if isinstance(results[i], Detections)]
    return data.take(readable), [found for i in readable if isinstance(found := results[i], Detections)]
