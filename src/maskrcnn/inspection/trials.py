"""What other settings find and cost: objects found and false detections in a sample of images, with each setting alone.

A setting acts behind the trunk, so the trunk of an image runs once for all settings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from maskrcnn.config import PredictConfig
from maskrcnn.data.table import Dataset
from maskrcnn.detection.detect import Network
from maskrcnn.detection.select import DEFAULT_DETECTIONS, detection_limit
from maskrcnn.detection.stages import Array, Observe, Trunk, ignore
from maskrcnn.evaluation import MIN_SCORE, Evaluation, find
from maskrcnn.evaluation.tide import FOREGROUND, judge
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes import Runtime
from maskrcnn.inspection.explain import REMEDIES
from maskrcnn.rle import iou_matrix
from maskrcnn.structures import Detections


@dataclass(frozen=True)
class Trial:
    """Objects found and false detections with `setting` at `value` in place of `previous`."""

    setting: str
    previous: float
    value: float
    n_found: int
    n_false: int


@dataclass(frozen=True)
class Trials:
    """A sample of `n_images` with `n_objects`: objects found and false detections as the model is, and each trial."""

    n_images: int
    n_objects: int
    n_found: int
    n_false: int
    trials: list[Trial]

    def of(self, setting: str | None) -> Trial | None:
        """Return the trial of a setting, or None."""
        return next((trial for trial in self.trials if trial.setting == setting), None)


def alternatives(model: Predictor, causes: Collection[str]) -> dict[str, float]:
    """Return the settings that would keep objects lost for `causes`, each with a value to try."""
    predict, network = model.config.predict, model.config.model
    values: dict[str, float] = {
        "proposal_nms_threshold": round(min(network.proposal_nms_threshold + 0.1, 0.95), 2),
        "proposals": 2 * max(network.proposals, network.proposals_per_level),
        "score_threshold": round(predict.score_threshold / 2, 3),
        "nms_threshold": round(min(predict.nms_threshold + 0.1, 0.95), 2),
        "detections": 2 * detection_limit(predict),
    }
    chosen = {REMEDIES[cause] for cause in causes if cause in REMEDIES}
    return {name: value for name, value in values.items() if name in chosen}


def try_settings(
    model: Predictor,
    evaluation: Evaluation,
    settings: dict[str, float],
    max_images: int | None = None,
    on_image: Callable[[int], None] = lambda _: None,
) -> Trials:
    """Count objects found and false detections in images of an evaluation, as it is and with each setting alone.

    Takes at most `max_images`, evenly chosen. `on_image` is handed the number of images that are done. An image that
    can no longer be read is left out.
    """
    images = evenly_chosen(np.arange(len(evaluation.data)), max_images)
    sample = evaluation.data.take(images)
    as_it_is = [evaluation.detections[i] for i in images]
    shared = model.running(_SharedTrunk(model.runtime))
    changed = {name: with_setting(shared, name, value) for name, value in settings.items()}
    results: dict[str, list[Detections]] = {name: [] for name in settings}
    readable: list[int] = []
    for k, known in enumerate(as_it_is):
        found = {
            name: known if _only_counts_more(name, settings[name]) else find(other, sample, [k])[k]
            for name, other in changed.items()
        }
        detections = {name: result for name, result in found.items() if isinstance(result, Detections)}
        if len(detections) == len(settings):
            readable.append(k)
            for name, result in detections.items():
                results[name].append(result)
        on_image(k + 1)
    sample = sample.take(readable)
    trials = [
        Trial(name, setting_of(model, name), value, *count(sample, results[name], _threshold(changed[name])))
        for name, value in settings.items()
    ]
    before = count(sample, [as_it_is[k] for k in readable], _threshold(model))
    return Trials(len(sample), sample.without_crowd.n_instances, *before, trials)


def evenly_chosen(values: np.ndarray, max_values: int | None) -> np.ndarray:
    """Return at most `max_values` of `values` (N,), evenly spaced."""
    if max_values is None or len(values) <= max_values:
        return values
    return values[np.linspace(0, len(values) - 1, max_values).astype(np.int64)]


def with_setting(model: Predictor, name: str, value: float) -> Predictor:
    """Return `model` with one setting of prediction, or of its proposals, changed."""
    if name in PredictConfig.model_fields:
        return model.changed(**{name: value})
    return model.with_proposals(int(value)) if name == "proposals" else model.proposing(**{name: value})


def setting_of(model: Predictor, name: str) -> float:
    """Return the value of a setting of prediction, or of the proposals."""
    group = model.config.predict if name in PredictConfig.model_fields else model.config.model
    value = getattr(group, name)
    return DEFAULT_DETECTIONS if value is None else value


def count(data: Dataset, detections: Sequence[Detections], min_score: float) -> tuple[int, int]:
    """Count objects found, and detections that TIDE does not call correct, among those of at least `min_score`."""
    judgement = judge(data, detections)
    n_false = int((~judgement.hits & (judgement.scores >= min_score)).sum())
    return int(found_objects(data.without_crowd, detections, min_score).sum()), n_false


def found_objects(objects: Dataset, detections: Sequence[Detections], min_score: float) -> np.ndarray:
    """Whether a detection of its class that scores at least `min_score` overlaps each object, (T,) bool.

    Masks overlap if their IoU is at least 0.5. `objects` are without crowd regions; detections have their classes.
    """
    found = np.zeros(objects.n_instances, bool)
    label_of = {str(class_id): k for k, class_id in enumerate(objects.class_ids, 1)}
    for i, dets in enumerate(detections):
        span, rows = objects.instances(i), np.flatnonzero(dets.scores >= min_score)
        labels = np.array([label_of[str(dets.class_ids[k])] for k in rows], np.int64)
        overlap = iou_matrix(objects.rles(i), [dets.rles[k] for k in rows])
        found[span] = ((overlap >= FOREGROUND) & (objects.labels[span][:, None] == labels)).any(1)
    return found


def _only_counts_more(name: str, value: float) -> bool:
    """Whether the setting changes no detection: an evaluation holds all with a score of at least `MIN_SCORE`."""
    return name == "score_threshold" and value >= MIN_SCORE


def _threshold(model: Predictor) -> float:
    return model.config.predict.score_threshold


class _SharedTrunk(Runtime):
    """The network of another runtime. It computes the trunk of inputs once while they stay the same.

    A copy with another detector shares the computed trunk.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.name, self.precision, self.detector = runtime.name, runtime.precision, runtime.detector
        self._network = runtime.network()
        self.region_formats = self._network.region_formats
        self._computed: list[tuple[np.ndarray, np.ndarray, Trunk]] = []

    def network(self) -> Network:
        return self

    def trunk(self, pixels: np.ndarray, windows: np.ndarray, observe: Observe = ignore) -> Trunk:
        for known_pixels, known_windows, trunk in self._computed:
            if np.array_equal(known_pixels, pixels) and np.array_equal(known_windows, windows):
                return trunk
        trunk = self._network.trunk(pixels, windows, observe)
        self._computed[:] = [(pixels, windows, trunk)]
        return trunk

    def box_head(self, pooled: Array) -> tuple[Array, Array]:
        return self._network.box_head(pooled)

    def mask_head(self, pooled: Array, labels: Array) -> Array:
        return self._network.mask_head(pooled, labels)
