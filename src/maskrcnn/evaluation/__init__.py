"""Detections and truth -> COCO's and Kaggle's scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maskrcnn.data.images import ImageError
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError
from maskrcnn.evaluation import kaggle
from maskrcnn.evaluation.coco import coco_scores
from maskrcnn.structures import Detections

if TYPE_CHECKING:
    from maskrcnn.inference.predictor import Predictor

EVALUATION_SCORE = 0.05
"""COCO's scores look at the whole precision-recall curve, so detections count from this score on."""


@dataclass(frozen=True)
class Evaluation:
    """Scores with what they were made from.

    `scores` is what `evaluate` returns; `data` holds the images that could be read, `detections` one `Detections` of
    each, from a score of 0.05 on, and `image_scores` (images,) the Kaggle metric of each.
    """

    scores: dict[str, Any]
    data: Dataset
    detections: list[Detections]
    image_scores: np.ndarray


def evaluate(
    model: Predictor,
    data: Dataset,
    *,
    on_image: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Run `model` over `data` and score it; see `score` for the keys, to which "inference_seconds" is added.

    COCO's scores use every detection from a score of 0.05 on; Kaggle's use those that `predict` would return. An
    unreadable picture is left out and listed under "unreadable". Raises `UserError` where model and data have no class
    id in common.
    """
    return examine(model, data, on_image=on_image).scores


def examine(
    model: Predictor,
    data: Dataset,
    *,
    on_image: Callable[[int], None] | None = None,
) -> Evaluation:
    """`evaluate`, with the detections handed over too."""
    started = time.perf_counter()
    found = find(model, data, range(len(data)), on_image=on_image)
    return judge_found(model, data, found, time.perf_counter() - started)


def find(
    model: Predictor,
    data: Dataset,
    images: Sequence[int],
    *,
    on_image: Callable[[int], None] | None = None,
) -> dict[int, Detections | str]:
    """What `model` finds in some `images` of `data`, by their index; the error of those that cannot be read."""
    require_common_classes(model.class_ids, data)
    threshold = min(EVALUATION_SCORE, model.config.predict.score_threshold)
    searching = model.changed(score_threshold=threshold)
    result: dict[int, Detections | str] = {}
    for done, i in enumerate(images, 1):
        path = data.files[i]
        try:
            found = searching.predict(path, keep_pixels=False)
            if found.hw != data.hw(i):
                raise ImageError(f"{path}: is now {found.hw} (height, width); it was {data.hw(i)}")
            result[i] = found
        except ImageError as error:
            result[i] = str(error)
        if on_image is not None:
            on_image(done)
    return result


def require_common_classes(class_ids: Sequence[Any], data: Dataset) -> None:
    """Raise `UserError` where a model of `class_ids` could find nothing in `data`."""
    known, wanted = {str(c) for c in class_ids}, {str(c) for c in data.class_ids}
    if not known & wanted:
        raise UserError(
            f"the model's class ids ({', '.join(sorted(known)[:5])}) and those of {data.source} "
            f"({', '.join(sorted(wanted)[:5])}) have nothing in common"
        )


def judge_found(
    model: Predictor, data: Dataset, found: dict[int, Detections | str], inference_seconds: float
) -> Evaluation:
    """What `examine` returns, from what `find` found in all images, in whatever order."""
    read = {i: dets for i, dets in sorted(found.items()) if isinstance(dets, Detections)}
    seen = data if len(read) == len(data) else data.take(list(read))
    detections = list(read.values())
    scores, image_scores = _score(seen, detections, model.config.predict.score_threshold)
    unreadable = [message for _, message in sorted(found.items()) if isinstance(message, str)]
    scores |= {"inference_seconds": inference_seconds, "unreadable": unreadable}
    return Evaluation(scores, seen, detections, image_scores)


def score(data: Dataset, detections: Iterable[Detections], score_threshold: float = 0.5) -> dict[str, Any]:
    """Score detections, one `Detections` an image of `data`, in its order.

    "box" and "mask": AP, AP50, AP75, APs, APm, APl, AR, per_class; "kaggle": mean, per_threshold (10 numbers, for IoU
    0.5 to 0.95), of detections from `score_threshold` on with overlaps removed; "max_detections", "seconds", "images",
    "instances". A score that nothing defines (no object of that size) is None.
    """
    return _score(data, list(detections), score_threshold)[0]


def _score(data: Dataset, found: list[Detections], score_threshold: float) -> tuple[dict[str, Any], np.ndarray]:
    """`score`, and the Kaggle metric of each image."""
    started = time.perf_counter()
    if len(found) != len(data):
        raise ValueError(f"{len(found)} detections for {len(data)} images")
    coco = coco_scores(data, found)
    per_image = [
        kaggle.image_scores(
            data.rles(i),
            [data.class_ids[k - 1] for k in data.labels[data.instances(i)]],
            dets[dets.scores >= score_threshold].without_overlaps(),
        )
        for i, dets in enumerate(found)
    ]
    table = np.reshape(per_image, (len(data), len(kaggle.THRESHOLDS)))
    per_threshold = table.mean(0) if len(table) else np.zeros(len(kaggle.THRESHOLDS))
    scores = {
        **coco,
        "kaggle": {
            "mean": float(per_threshold.mean()),
            "per_threshold": [float(v) for v in per_threshold],
            "score_threshold": score_threshold,
        },
        "seconds": time.perf_counter() - started,
        "images": len(data),
        "instances": data.n_instances,
    }
    return scores, table.mean(1)
