"""The objects that a model misses in a data set, by cause, and what other settings would find and cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maskrcnn.config import PredictConfig
from maskrcnn.data.table import Dataset
from maskrcnn.detection.select import DEFAULT_DETECTIONS
from maskrcnn.evaluation import Evaluation, find
from maskrcnn.evaluation.classes import pair_classes
from maskrcnn.evaluation.tide import CORRECT, FOREGROUND, judge
from maskrcnn.inspection.explain import CAUSES, FOUND, REMEDIES, Explanation, explain
from maskrcnn.inspection.trace import Trace
from maskrcnn.inspection.tracer import trace
from maskrcnn.rle import iou_matrix
from maskrcnn.structures import Detections

if TYPE_CHECKING:
    from maskrcnn.inference.predictor import Predictor


@dataclass(frozen=True)
class Miss:
    """Object `instance` of the data, in image `image`, and why it was missed."""

    image: int
    instance: int
    explanation: Explanation


@dataclass(frozen=True)
class Misses:
    """The missed objects of the examined images, and how many images and missed objects there are in all."""

    misses: list[Miss]
    n_examined: int
    n_images: int
    n_missed: int

    @property
    def counts(self) -> dict[str, int]:
        """Missed objects of each cause, in the order of the stages."""
        causes = [miss.explanation.cause for miss in self.misses]
        return {cause: causes.count(cause) for cause in CAUSES}


@dataclass(frozen=True)
class Trial:
    """Objects found and false detections with a setting at `value`, over the data."""

    setting: str
    value: float
    n_found: int
    n_false: int


def found_objects(data: Dataset, detections: list[Detections], min_score: float) -> np.ndarray:
    """Whether a detection of its class that scores at least `min_score` overlaps each object, (T,) bool.

    Masks overlap if their IoU is at least 0.5. Detections have the classes of the data.
    """
    found = np.zeros(data.n_instances, bool)
    label_of = {str(class_id): k for k, class_id in enumerate(data.class_ids, 1)}
    for i, dets in enumerate(detections):
        span, rows = data.instances(i), np.flatnonzero(dets.scores >= min_score)
        labels = np.array([label_of[str(dets.class_ids[k])] for k in rows], np.int64)
        overlap = iou_matrix(data.rles(i), [dets.rles[k] for k in rows])
        found[span] = ((overlap >= FOREGROUND) & (data.labels[span][:, None] == labels)).any(1)
    return found


def explain_misses(model: Predictor, evaluation: Evaluation, max_images: int | None = None) -> Misses:
    """Explain the objects of an evaluation that `model` misses at its score threshold.

    Images with missed objects are predicted once more and traced, at most `max_images` of them, evenly chosen.
    """
    data = evaluation.data
    threshold = model.config.predict.score_threshold
    missed = np.flatnonzero(~found_objects(data, evaluation.detections, threshold))
    images = np.unique(data.image_index[missed])
    chosen = images
    if max_images is not None and len(images) > max_images:
        chosen = images[np.linspace(0, len(images) - 1, max_images).astype(np.int64)]
    misses: list[Miss] = []
    for i in chosen.tolist():
        misses += traced_misses(data, i, trace(model.oriented(data.reading.exif), data.files[i]), model)
    return Misses(misses, len(chosen), len(images), len(missed))


def traced_misses(data: Dataset, i: int, traced: Trace, model: Predictor) -> Iterator[Miss]:
    """Yield the objects of image i that its trace misses. Objects of classes that the model lacks are left out."""
    labels = {int(label): k for k, label in enumerate(pair_classes(model, data), 1) if label}
    span = data.instances(i)
    for instance, mask in zip(range(span.start, span.stop), data.rles(i), strict=True):
        label = labels.get(int(data.labels[instance]))
        if label is None:
            continue
        explanation = explain(traced, mask, label)
        if explanation.cause != FOUND:
            yield Miss(i, instance, explanation)


def alternatives(model: Predictor, causes: list[str]) -> dict[str, float]:
    """Return the settings that would keep objects lost for `causes`, each with a value to try."""
    predict, network = model.config.predict, model.config.model
    values: dict[str, float] = {
        "proposal_nms_threshold": round(min(network.proposal_nms_threshold + 0.1, 0.95), 2),
        "proposals": 2 * network.proposals,
        "score_threshold": round(predict.score_threshold / 2, 3),
        "nms_threshold": round(min(predict.nms_threshold + 0.1, 0.95), 2),
        "detections": 2 * (predict.detections or DEFAULT_DETECTIONS),
    }
    chosen = {REMEDIES[cause] for cause in causes if cause in REMEDIES}
    return {name: value for name, value in values.items() if name in chosen}


def try_settings(
    model: Predictor, data: Dataset, settings: dict[str, float], say: Callable[[str], Any] = lambda _: None
) -> list[Trial]:
    """Measure objects found and false detections over `data`, first as the model is, then with each setting alone."""
    trials = []
    for name, value in [("as it is", 0.0), *settings.items()]:
        changed = with_setting(model, name, value) if name in settings else model
        results = find(changed, data, range(len(data)))
        readable = [i for i, result in sorted(results.items()) if isinstance(result, Detections)]
        detections = [result for _, result in sorted(results.items()) if isinstance(result, Detections)]
        trials.append(Trial(name, value, *count(data.take(readable), detections, changed)))
        say(f"{name} {value:g}: {trials[-1].n_found} found, {trials[-1].n_false} false")
    return trials


def with_setting(model: Predictor, name: str, value: float) -> Predictor:
    """Return `model` with one setting of prediction, or of its proposals, changed."""
    if name in PredictConfig.model_fields:
        return model.changed(**{name: value})
    return model.with_proposals(int(value)) if name == "proposals" else model.proposing(**{name: value})


def count(data: Dataset, detections: list[Detections], model: Predictor) -> tuple[int, int]:
    """Objects found, and detections that are not correct by TIDE, at the model's score threshold."""
    threshold = model.config.predict.score_threshold
    judgement = judge(data, detections)
    n_false = int(((judgement.kinds != CORRECT) & (judgement.scores >= threshold)).sum())
    return int(found_objects(data, detections, threshold).sum()), n_false
