"""Kinds of errors on hand-made geometry, the AP gained by fixing them, and calibration."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from guesses import guesses
from maskrcnn import RLE, Detections
from maskrcnn.data.table import Dataset
from maskrcnn.evaluation import score
from maskrcnn.evaluation.calibration import precision_recall, reliability
from maskrcnn.evaluation.tide import ERRORS, KINDS, judge
from maskrcnn.rle import RunTable

HW = (20, 60)
A, B = 1, 2


def block(x1: int, x2: int, y1: int = 0, y2: int = 10) -> RLE:
    mask = np.zeros(HW, bool)
    mask[y1:y2, x1:x2] = True
    return RLE.from_mask(mask)


def dataset(*images: list[tuple[RLE, int]], names: tuple[str, ...] = ("a", "b")) -> Dataset:
    """Build a data set from the (mask, label) instances of each image."""
    pairs = [pair for image in images for pair in image]
    return Dataset(
        source=Path("truth.csv"),
        names=[f"{i}.png" for i in range(len(images))],
        files=[Path(f"{i}.png") for i in range(len(images))],
        sizes=np.array([HW] * len(images), np.int64).reshape(-1, 2),
        image_index=np.repeat(np.arange(len(images)), [len(image) for image in images]),
        labels=np.array([label for _, label in pairs], np.int64),
        masks=RunTable.of(mask.runs for mask, _ in pairs),
        rows=np.arange(len(pairs)) + 2,
        class_ids=[10 * (k + 1) for k in range(len(names))],
        class_names=list(names),
    )


def found(*parts: tuple, box: tuple[int, int, int, int] | None = None) -> Detections:
    """Build detections from (mask, label, score); `box` replaces the box of each mask."""
    rles = [mask for mask, _, _ in parts]
    return Detections(
        boxes=np.array([box or mask.box for mask in rles], np.float32).reshape(-1, 4),
        scores=np.array([s for _, _, s in parts], np.float32),
        class_ids=np.array([10 * label for _, label, _ in parts], int),
        class_names=["ab"[label - 1] for _, label, _ in parts],
        rles=rles,
        hw=HW,
    )


def kinds(data: Dataset, *detections: Detections) -> list[str]:
    return [KINDS[k] for k in judge(data, detections).kinds]


ONE = [(block(0, 10), A)]


@pytest.mark.parametrize(
    ("detection", "box", "kind"),
    [
        ((block(0, 9), A, 0.9), None, "correct"),
        ((block(0, 5), A, 0.9), None, "correct"),  # IoU exactly 0.5
        ((block(0, 4), A, 0.9), None, "bad box"),
        ((block(0, 4), A, 0.9), (0, 0, 10, 10), "bad mask"),
        ((block(0, 4), A, 0.9), (0, 0, 5, 10), "bad mask"),  # box IoU exactly 0.5
        ((block(0, 1), A, 0.9), None, "bad box"),  # IoU exactly 0.1
        ((block(0, 9), B, 0.9), None, "wrong class"),
        ((block(0, 4), B, 0.9), None, "class and place"),
        ((block(0, 1), B, 0.9), None, "background"),  # IoU exactly 0.1
        ((block(30, 40), A, 0.9), None, "background"),
        ((block(0, 1, 0, 9), A, 0.9), (0, 0, 10, 10), "background"),  # the box matches, but hardly any pixel
    ],
)
def test_each_kind_of_one_detection(detection, box, kind):
    data = dataset(ONE)
    judgement = judge(data, [found(detection, box=box)])
    assert [KINDS[k] for k in judgement.kinds] == [kind]
    has_instance = kind in ("correct", "bad box", "bad mask", "wrong class")
    assert judgement.truth.tolist() == [0 if has_instance else -1]
    assert judgement.counts()["missed"] == (0 if has_instance else 1)
    assert judgement.found_at.tolist() == [pytest.approx(0.9) if kind == "correct" else -1]
    gains = judgement.gains()
    if kind == "correct":
        assert judgement.average_precision() == pytest.approx(1)
        assert not any(gains.values())
    elif has_instance:
        assert gains[kind] == pytest.approx(1)
    assert judgement.average_precision(ERRORS) == pytest.approx(1)


def test_the_higher_score_is_correct_and_the_lower_a_duplicate():
    low_first = found((block(0, 10), A, 0.4), (block(0, 9), A, 0.8))
    judgement = judge(dataset(ONE), [low_first])
    assert [KINDS[k] for k in judgement.kinds] == ["correct", "duplicate"]
    assert judgement.rows.tolist() == [1, 0]  # rows of the Detections, best first
    assert judgement.scores.tolist() == pytest.approx([0.8, 0.4])
    assert judgement.counts(0.5) == {**dict.fromkeys((*KINDS, "missed"), 0), "correct": 1}
    assert judgement.counts(0.9)["missed"] == 1


def test_tide_checks_the_location_before_the_class():
    """A detection partly on an instance of its class is a bad box, even if its mask matches another class."""
    data = dataset([(block(0, 10), A), (block(8, 18), B)])
    assert kinds(data, found((block(6, 18), A, 0.9))) == ["bad box"]
    assert kinds(data, found((block(9, 19), A, 0.9))) == ["wrong class"]


def test_fixing_assigns_an_instance_once():
    data = dataset([(block(0, 10), A)])
    judgement = judge(data, [found((block(0, 4), A, 0.9), (block(0, 3), A, 0.8), (block(0, 9), B, 0.7))])
    assert [KINDS[k] for k in judgement.kinds] == ["bad box", "bad box", "wrong class"]
    assert judgement.average_precision() == 0
    assert judgement.average_precision(["bad box"]) == pytest.approx(1)  # one becomes correct, the other is removed
    # Two false positives of class A rank above the fixed detection: precision is 1/3 at every recall.
    assert judgement.average_precision(["wrong class"]) == pytest.approx(1 / 3)
    assert judgement.counts()["missed"] == 0


def test_fixing_removes_an_error_on_a_found_instance():
    data = dataset([(block(0, 10), A)])
    judgement = judge(data, [found((block(0, 4), A, 0.9), (block(0, 10), A, 0.8))])
    assert judgement.average_precision() == pytest.approx(0.5)
    assert judgement.gains()["bad box"] == pytest.approx(0.5)


def test_fixing_missed_drops_the_instances():
    data = dataset([(block(0, 10), A), (block(20, 30), A)], [(block(0, 10), B)])
    judgement = judge(data, [found((block(0, 10), A, 0.9)), found()])
    assert judgement.counts()["missed"] == 2
    assert judgement.average_precision() == pytest.approx((51 / 101 + 0) / 2)
    assert judgement.average_precision(["missed"]) == pytest.approx(1)


def test_empty_images_and_data_sets():
    empty = dataset([], [])
    judgement = judge(empty, [found(), found((block(0, 5), A, 0.9))])
    assert [KINDS[k] for k in judgement.kinds] == ["background"]
    assert judgement.average_precision() is None
    assert not any(judgement.gains().values())
    for data, detections in ((dataset(), []), (dataset([]), [found()]), (dataset(ONE), [found()])):
        judgement = judge(data, detections)
        assert len(judgement.kinds) == 0
        assert judgement.counts()["missed"] == data.n_instances


def test_a_class_that_the_data_lacks_is_skipped():
    foreign = found((block(0, 10), A, 0.9))
    foreign.class_ids = np.array(["other"])
    assert len(judge(dataset(ONE), [foreign]).kinds) == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("extra", [0, 20])
def test_ap_equals_coco_and_fixing_everything_gives_one(shapes, seed, extra):
    detections = guesses(shapes, np.random.default_rng(seed), extra)
    judgement = judge(shapes, detections)
    assert judgement.average_precision() == pytest.approx(score(shapes, detections)["mask"]["AP50"], abs=1e-9)
    assert judgement.average_precision(ERRORS) == pytest.approx(1)
    gains = judgement.gains()
    assert all(0 <= gain <= 1 for gain in gains.values())
    assert sum(gains.values()) > 0
    counts = judgement.counts()
    assert sum(counts[k] for k in KINDS) == sum(map(len, detections))
    assert counts["correct"] + judgement.missed().sum() <= shapes.n_instances


def test_many_classes(shapes):
    names = tuple(f"class {k}" for k in range(500))
    data = dataclasses.replace(
        shapes, class_ids=list(range(500)), class_names=list(names), labels=np.arange(shapes.n_instances) * 7 % 500 + 1
    )
    detections = guesses(data, np.random.default_rng(0), 2)
    judgement = judge(data, detections)
    assert judgement.average_precision() == pytest.approx(score(data, detections)["mask"]["AP50"], abs=1e-9)
    assert judgement.average_precision(ERRORS) == pytest.approx(1)


def test_precision_and_recall_at_each_score():
    curve = precision_recall(np.array([0.2, 0.9, 0.6]), np.array([True, True, False]), 4)
    assert curve.scores.tolist() == [0.9, 0.6, 0.2]
    assert curve.recall.tolist() == [0.25, 0.25, 0.5]
    assert curve.precision.tolist() == [1, 0.5, pytest.approx(2 / 3)]
    assert curve.f1.tolist() == pytest.approx([0.4, 1 / 3, 4 / 7])
    assert curve.at(0.6) == (0.25, 0.5)
    assert curve.at(0.95) is None


def test_calibration_of_known_bins():
    scores = np.array([0.05, 0.85, 0.85, 0.85, 0.85, 1.0])
    bins = reliability(scores, np.array([False, True, True, True, False, True]))
    assert bins.counts.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 4, 1]
    assert bins.shares[8] == 0.75
    assert bins.shares[9] == 1.0
    assert np.isnan(bins.shares[1])
    assert bins.error == pytest.approx((0.05 + 4 * 0.1 + 0) / 6)
    assert reliability(np.empty(0), np.empty(0, bool)).error is None
