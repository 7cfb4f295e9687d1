"""What goes wrong in a data set: missed objects and false detections, each with its cause, and what settings change.

evaluation -> images with errors -> a trace of each -> causes -> other settings -> `Diagnosis`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from maskrcnn.data.table import Dataset
from maskrcnn.errors import ImageError
from maskrcnn.evaluation import Evaluation
from maskrcnn.evaluation.classes import model_labels
from maskrcnn.evaluation.tide import judge
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inspection.explain import CAUSES, FOUND, UNKNOWN_CLASS, Explanation, explain
from maskrcnn.inspection.false_detections import FALSE_CAUSES, FalseDetection, false_detections
from maskrcnn.inspection.trace import Trace
from maskrcnn.inspection.tracer import trace
from maskrcnn.inspection.trials import Trials, alternatives, evenly_chosen, found_objects, try_settings
from maskrcnn.rle import RLE

MAX_EXAMINED = 24
"""Images that a report traces, and images on which it tries settings."""

PREDICTIONS_PER_IMAGE = 5
"""An examined image takes at most as long as this many predictions: one for its trace, and four that try settings.

A lower score threshold, the fifth setting, needs none of its own."""


@dataclass(frozen=True)
class Miss:
    """A missed object in image `image` of the data: why, and its mask."""

    image: int
    explanation: Explanation
    mask: RLE

    @property
    def box(self) -> tuple[float, float, float, float]:
        return self.mask.box


@dataclass(frozen=True)
class Diagnosis:
    """Missed objects and false detections of the `n_examined` images, and how many there are in all `n_images`.

    Only images with errors are counted: `n_images` of them have `n_missed` missed objects and `n_false` detections.
    `trials` has the settings that would have kept missed objects.
    """

    missed: list[Miss]
    false: list[FalseDetection]
    n_examined: int
    n_images: int
    n_missed: int
    n_false: int
    trials: Trials

    @property
    def missed_counts(self) -> dict[str, int]:
        """Missed objects of each cause, in the order of the stages."""
        causes = [miss.explanation.cause for miss in self.missed]
        return {cause: causes.count(cause) for cause in CAUSES}

    @property
    def false_counts(self) -> dict[str, int]:
        """False detections of each cause, in the order of the stages."""
        causes = [detection.explanation.cause for detection in self.false]
        return {cause: causes.count(cause) for cause in FALSE_CAUSES}


def diagnose(
    model: Predictor,
    evaluation: Evaluation,
    max_images: int | None = None,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> Diagnosis:
    """Explain the objects that `model` misses at its score threshold and its false detections, and try settings.

    Images with errors are traced, at most `max_images` of them, evenly chosen. The settings that would have kept missed
    objects are tried on at most as many images of all. `on_image` is handed how many images are done, of at most how
    many. An image that can no longer be read is left out.
    """
    data, threshold = evaluation.data, model.config.predict.score_threshold
    objects, judgement = data.without_crowd, judge(data, evaluation.detections)
    is_missed = ~found_objects(objects, evaluation.detections, threshold)
    is_false = ~judgement.hits & (judgement.scores >= threshold)
    images = np.union1d(objects.image_index[is_missed], judgement.images[is_false])
    chosen = evenly_chosen(images, max_images).tolist()
    total = len(chosen) + len(evenly_chosen(np.arange(len(data)), max_images))
    missed: list[Miss] = []
    false: list[FalseDetection] = []
    n_examined = 0
    for k, i in enumerate(chosen):
        try:
            traced = trace(model.oriented(data.reading.exif), data.files[i])
        except ImageError:
            continue
        missed += missed_objects(traced, objects, i, model)
        false += false_detections(traced, data, i, model)
        n_examined += 1
        on_image(k + 1, total)
    settings = alternatives(model, {miss.explanation.cause for miss in missed})
    trials = try_settings(model, evaluation, settings, max_images, lambda n: on_image(len(chosen) + n, total))
    return Diagnosis(missed, false, n_examined, len(images), int(is_missed.sum()), int(is_false.sum()), trials)


def images_within(seconds: float, prediction_seconds: float) -> int:
    """Return how many images of a data set, at most `MAX_EXAMINED`, can be examined in `seconds`."""
    return int(min(max(seconds, 0.0) / max(PREDICTIONS_PER_IMAGE * prediction_seconds, 1e-9), MAX_EXAMINED))


def missed_objects(traced: Trace, objects: Dataset, i: int, model: Predictor) -> Iterator[Miss]:
    """Explain the objects of image i of `objects`, without crowd regions, that its trace misses."""
    model_label = model_labels(model, objects)
    for data_label, mask in zip(objects.labels[objects.instances(i)].tolist(), objects.rles(i), strict=True):
        label = model_label.get(data_label)
        if label is None:
            name = objects.class_names[data_label - 1]
            yield Miss(i, Explanation(UNKNOWN_CLASS, f"the model does not know {name}"), mask)
            continue
        explanation = explain(traced, mask, label)
        if explanation.cause != FOUND:
            yield Miss(i, explanation, mask)
