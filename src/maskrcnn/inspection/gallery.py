"""Thumbnails of the best and the worst images: ground truth and detections side by side."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from maskrcnn.data.dataset import read_pixels
from maskrcnn.detection.fit import resize
from maskrcnn.drawing import draw_instances, shrunk
from maskrcnn.errors import ImageError
from maskrcnn.evaluation import Evaluation
from maskrcnn.evaluation.tide import KINDS, Judgement
from maskrcnn.fonts import legible
from maskrcnn.rle import RLE
from maskrcnn.structures import Detections

SIDE = 420
"""Longer side of a thumbnail in pixels."""

JPEG_QUALITY = 80
MAX_IMAGES = 6  # of the best, and of the worst
RIGHT_COLOR, WRONG_COLOR = 2, 5
"""Bluish green and vermillion of `drawing.PALETTE`: distinguishable with any colour vision."""

MAX_LABELS = 12
"""An image with more labels than this shows none: they would hide it."""


@dataclass(frozen=True)
class Picture:
    """An image with its Kaggle score, thumbnails and counts of instances and of detections per kind of TIDE.

    `pictures` are ground truth and detections as data URIs, or None if the file cannot be read.
    """

    name: str
    score: float
    pictures: tuple[str, str] | None
    n_truth: int
    n_missed: int
    kinds: dict[str, int]


def best_and_worst(evaluation: Evaluation) -> tuple[list[int], list[int]]:
    """Return the best and worst image indices, disjoint; on ties, more instances come first: empty ones show little."""
    scores, counts = evaluation.image_scores, evaluation.data.without_crowd.counts
    worst = np.lexsort((-counts, scores))[: min(MAX_IMAGES, (len(scores) + 1) // 2)]
    best_first = np.lexsort((-counts, -scores))
    return [int(i) for i in best_first if i not in worst][:MAX_IMAGES], worst.tolist()


def picture(evaluation: Evaluation, judgement: Judgement, i: int) -> Picture:
    """Draw image i of the evaluation with the detections that `predict` would return."""
    data, detections = evaluation.data.without_crowd, evaluation.detections[i]
    threshold = evaluation.scores["kaggle"]["score_threshold"]
    selected = np.flatnonzero((judgement.images == i) & (judgement.scores >= threshold))
    kinds, rows = judgement.kinds[selected], judgement.rows[selected]
    missed = judgement.found_at[data.instances(i)] < threshold
    shown = [legible(name, c) for name, c in zip(data.class_names, data.class_ids, strict=True)]
    names = [shown[k - 1] for k in data.labels[data.instances(i)]] if len(shown) > 1 else None
    labels = [KINDS[k] if k else "" for k in kinds]
    if names is not None:
        found = [legible(detections.class_names[r], detections.class_ids[r]) for r in rows]
        labels = [" ".join(filter(None, pair)) for pair in zip(found, labels, strict=True)]
    try:
        pixels = read_pixels(data, i)
    except ImageError:
        pictures = None
    else:
        small = resize(pixels, _thumbnail_hw(data.hw(i)))
        masks = [detections.rles[r] for r in rows]
        pictures = _draw(small, data.rles(i), missed, names), _draw(small, masks, kinds > 0, labels)
    counts = np.bincount(kinds, minlength=len(KINDS))
    return Picture(
        data.names[i],
        float(evaluation.image_scores[i]),
        pictures,
        len(missed),
        int(missed.sum()),
        {name: int(n) for name, n in zip(KINDS, counts, strict=True) if n},
    )


def _thumbnail_hw(hw: tuple[int, int]) -> tuple[int, int]:
    factor = SIDE / max(hw)
    return max(1, round(hw[0] * factor)), max(1, round(hw[1] * factor))


def _draw(image: np.ndarray, masks: list[RLE], wrong: np.ndarray, labels: list[str] | None) -> str:
    """Outline the masks on the image, colour them by `wrong`, and return a data URI."""
    small = [shrunk(mask, (image.shape[0], image.shape[1])) for mask in masks]
    non_empty = [k for k, mask in enumerate(small) if len(mask.runs)]
    colors = np.where(wrong, WRONG_COLOR, RIGHT_COLOR)[non_empty]
    labels = [labels[k] for k in non_empty] if labels is not None else []
    shown_labels = labels if 0 < sum(map(bool, labels)) <= MAX_LABELS else None
    return data_uri(draw_instances(image, [small[k] for k in non_empty], None, shown_labels, colors))


def thumbnail(detections: Detections) -> str:
    """Return the picture of detections that keep their pixels, with the outlines of their masks, as a data URI."""
    assert detections.pixels is not None
    small = resize(detections.pixels, _thumbnail_hw(detections.hw))
    masks = [shrunk(mask, (small.shape[0], small.shape[1])) for mask in detections.rles]
    return data_uri(draw_instances(small, [mask for mask in masks if mask.area]))


def data_uri(image: Image.Image) -> str:
    """Return a picture as a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
