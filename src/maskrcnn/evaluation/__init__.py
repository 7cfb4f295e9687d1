"""Run a model over a data set and score it: images -> detections -> COCO and Kaggle scores."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maskrcnn.data.table import Dataset
from maskrcnn.errors import ImageError, say
from maskrcnn.evaluation import kaggle
from maskrcnn.evaluation.classes import match_classes
from maskrcnn.evaluation.coco import coco_scores
from maskrcnn.evaluation.crowds import shares_in_crowds
from maskrcnn.evaluation.metrics import Metrics
from maskrcnn.inference.limits import limit_note
from maskrcnn.reading import Reading, range_text
from maskrcnn.structures import Detections

if TYPE_CHECKING:
    from maskrcnn.inference.predictor import Predictor

MIN_SCORE = 0.05
"""Minimum score of an evaluated detection. It is low because COCO's AP integrates the full precision-recall curve."""


@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate`, the readable images, and for each its detections (for COCO) and Kaggle score (images,).

    `limit_note` is a sentence about limits that may have cost objects.
    """

    scores: Metrics
    data: Dataset
    detections: list[Detections]
    image_scores: np.ndarray
    limit_note: str | None = None


def evaluate(
    model: Predictor,
    data: Dataset,
    *,
    on_image: Callable[[int], None] | None = None,
    say: Callable[[str], None] = say,
) -> Metrics:
    """Run `model` over `data` and score it. Add "inference_seconds" and "unreadable" to the keys of `score`.

    COCO scores use all detections with a score of at least 0.05, or the model's threshold if lower. Kaggle scores use
    those that `predict` returns, without overlaps. "unreadable" lists the errors of images that could not be read; they
    are not scored. The model's range of 16-bit pictures is used; if the data's differs, `say` gets a line about it.
    Classes are matched by name, or by id if either side has no names; `say` gets a line about those without a
    counterpart. Raise `UserError` if the classes do not agree (`match_classes`).
    """
    return examine(model, data, on_image=on_image, say=say).scores


def examine(
    model: Predictor,
    data: Dataset,
    *,
    on_image: Callable[[int], None] | None = None,
    say: Callable[[str], None] = say,
) -> Evaluation:
    """Evaluate like `evaluate`, and keep the detections and the score of each image."""
    for note in (match_classes(model, data).note, differing_range(model.reading, data)):
        if note:
            say(note)
    started = time.perf_counter()
    detections = find(model, data, range(len(data)), on_image=on_image)
    evaluation = judge_found(model, data, detections, time.perf_counter() - started)
    if evaluation.limit_note:
        say(evaluation.limit_note)
    return evaluation


def find(
    model: Predictor,
    data: Dataset,
    images: Sequence[int],
    *,
    batch_size: int = 1,
    on_image: Callable[[int], None] | None = None,
) -> dict[int, Detections | str]:
    """Return the detections of the images with indices `images`, or the error message if unreadable, by index.

    Detections have the class ids and names of `data`; those of classes that the data lacks are dropped. Up to
    `batch_size` images pass the network together. The next ones are decoded meanwhile.
    """
    match = match_classes(model, data)
    predictor = model.changed(score_threshold=min(MIN_SCORE, model.config.predict.score_threshold))
    predictor = predictor.oriented(data.reading.exif)  # that of the masks
    result: dict[int, Detections | str] = {}
    pending = deque(images)
    errors: dict[str, str] = {}

    def note(path: Any, error: ImageError) -> None:
        errors[str(path)] = str(error)

    paths = (data.files[i] for i in images)
    for detections in predictor.predict_many(paths, batch_size=batch_size, on_error=note):
        while (path := str(data.files[i := pending.popleft()])) != detections.image:
            result[i] = errors[path]  # no detections came of the images before this one
        unchanged = detections.hw == data.hw(i)
        change = f"{path}: (height, width) changed from {data.hw(i)} to {detections.hw}"
        result[i] = match.in_data_classes(detections) if unchanged else change
        if on_image is not None:
            on_image(len(images) - len(pending))
    if pending and on_image is not None:
        on_image(len(images))
    return result | {i: errors[str(data.files[i])] for i in pending}


def differing_range(reading: Reading, data: Dataset) -> str | None:
    """Return a sentence if a model of `reading` scales pictures of more than 8 bits unlike `data`, else None."""
    ranges = (
        ("16-bit", reading.white, data.reading.white),
        ("float", reading.float_white, data.reading.float_white),
    )
    differences = [
        f"{kind} pictures are read with the model's range, {range_text(used)}; {data.source} has {range_text(found)}"
        for kind, used, found in ranges
        if found not in (None, used)
    ]
    return ". ".join(differences) or None


def judge_found(
    model: Predictor, data: Dataset, results: dict[int, Detections | str], inference_seconds: float
) -> Evaluation:
    """Score the results of `find` for all images of `data`, in any order."""
    by_image = {i: result for i, result in sorted(results.items()) if isinstance(result, Detections)}
    readable = data if len(by_image) == len(data) else data.take(list(by_image))
    detections = list(by_image.values())
    scores, image_scores = _score(readable, detections, model.config.predict.score_threshold)
    unreadable = [message for _, message in sorted(results.items()) if isinstance(message, str)]
    scores |= {"inference_seconds": inference_seconds, "unreadable": unreadable}
    return Evaluation(scores, readable, detections, image_scores, limit_note(detections, model.config))


def score(data: Dataset, detections: Iterable[Detections], score_threshold: float = 0.5) -> Metrics:
    """Score one `Detections` per image of `data`, in the same order. An undefined score (no object of a size) is None.

    Detections in crowd regions of their class, and of classes that an image may have without an annotation (LVIS), are
    not false.

    "box" and "mask": AP, AP50, AP75, APs, APm, APl, AR, per_class, and per_threshold, which is AP at each IoU from 0.5
    to 0.95 (10 numbers). "kaggle": mean, per_threshold and score_threshold, after dropping detections below
    `score_threshold` and removing overlaps. Also "max_detections", "seconds", "images" and "instances".
    """
    return _score(data, list(detections), score_threshold)[0]


def _score(data: Dataset, detections: list[Detections], score_threshold: float) -> tuple[Metrics, np.ndarray]:
    """Return the result of `score`, and the Kaggle metric of each image, (images,)."""
    started = time.perf_counter()
    if len(detections) != len(data):
        raise ValueError(f"expected {len(data)} `Detections`, one per image, got {len(detections)}")
    coco = coco_scores(data, detections)
    objects = data.without_crowd
    per_image = []
    for i, dets in enumerate(detections):
        returned = dets[dets.scores >= score_threshold].without_overlaps()
        classes = [data.class_ids[k - 1] for k in objects.labels[objects.instances(i)]]
        per_image.append(kaggle.image_scores(objects.rles(i), classes, returned, shares_in_crowds(data, i, returned)))
    table = np.reshape(per_image, (len(data), len(kaggle.THRESHOLDS)))
    per_threshold = table.mean(0) if len(table) else np.zeros(len(kaggle.THRESHOLDS))
    means = {"mean": float(per_threshold.mean()), "per_threshold": per_threshold.tolist()}
    scores = Metrics(
        coco,
        kaggle={**means, "score_threshold": score_threshold},
        seconds=time.perf_counter() - started,
        images=len(data),
        instances=objects.n_instances,
    )
    return scores, table.mean(1)
