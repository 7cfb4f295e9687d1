"""Where a detection that matches no object is not false: in crowd regions, and for classes that were not annotated."""

from __future__ import annotations

import numpy as np

from maskrcnn.data.table import Dataset
from maskrcnn.rle import intersection_matrix
from maskrcnn.structures import Detections


def labels_of(data: Dataset, detections: Detections) -> np.ndarray:
    """Return the 1-based label in `data` of each detection, (D,) int64; 0 for a class that the data lacks."""
    label_of = {str(class_id): label for label, class_id in enumerate(data.class_ids, 1)}
    return np.array([label_of.get(str(class_id), 0) for class_id in detections.class_ids], np.int64)


def incomplete_labels(data: Dataset, i: int, labels: np.ndarray) -> set[int]:
    """Return those of `labels` of which image i may have objects that nobody annotated."""
    if data.federated is None:
        return set()
    annotated = data.labels[data.instances(i)]
    return {label for label in set(labels.tolist()) - {0} if data.federated.may_lack(i, label, annotated)}


def shares_in_crowds(data: Dataset, i: int, detections: Detections) -> np.ndarray:
    """Return the share of each detection's mask that one crowd region of its class in image i covers, (D,).

    It is 1 for classes that the image may have without an annotation. COCO calls the share the IoU with a crowd, and
    does not count a detection from the IoU threshold that matches no object.
    """
    shares = np.zeros(len(detections))
    if len(detections) == 0 or (data.crowd is None and data.federated is None):
        return shares
    labels = labels_of(data, detections)
    if data.crowd is not None and (crowd := data.crowd[data.instances(i)]).any():
        masks = [rle for rle, is_crowd in zip(data.rles(i), crowd, strict=True) if is_crowd]
        areas = np.array([rle.area for rle in detections.rles])
        covered = intersection_matrix(detections.rles, masks) / np.maximum(areas, 1)[:, None]
        shares = (covered * (labels[:, None] == data.labels[data.instances(i)][crowd])).max(1)
    shares[np.isin(labels, list(incomplete_labels(data, i, labels)))] = 1
    return shares
