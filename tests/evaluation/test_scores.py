"""COCO scores against pycocotools, Kaggle scores against their definition."""

import dataclasses

import numpy as np
import pytest

from guesses import guesses
from lively import predictor
from maskrcnn import RLE, Detections
from maskrcnn.evaluation import find, score
from maskrcnn.evaluation.kaggle import image_scores
from pycocotools_scores import reference


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("extra", [0, 130], ids=["few", "more than COCO's 100"])
def test_scores_equal_pycocotools(shapes, seed, extra):
    found = guesses(shapes, np.random.default_rng(seed), extra)
    scores = score(shapes, found)
    assert (scores["max_detections"] > 100) == (extra > 0)
    for key, kind in (("box", "bbox"), ("mask", "segm")):
        expected = reference(shapes, found, kind, scores["max_detections"])
        for name, value in expected.items():
            assert scores[key][name] == (None if value is None else pytest.approx(value, abs=1e-6)), (
                key,
                name,
            )
        assert set(scores[key]["per_class"]) == set(shapes.class_names)


def test_ground_truth_scores_one(shapes):
    found = [
        Detections(
            boxes=shapes.boxes[shapes.instances(i)].astype(np.float32),
            scores=np.ones(shapes.counts[i], np.float32),
            class_ids=np.array([shapes.class_ids[k - 1] for k in shapes.labels[shapes.instances(i)]]),
            class_names=[shapes.class_names[k - 1] for k in shapes.labels[shapes.instances(i)]],
            rles=shapes.rles(i),
            hw=shapes.hw(i),
        )
        for i in range(len(shapes))
    ]
    scores = score(shapes, found)
    assert scores["mask"]["AP"] == pytest.approx(1.0)
    assert scores["box"]["AP"] == pytest.approx(1.0)
    assert scores["kaggle"]["mean"] == 1.0
    assert len(scores["kaggle"]["per_threshold"]) == 10


def test_no_detections_score_zero(shapes):
    nothing = [
        Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int), [], [], shapes.hw(i))
        for i in range(len(shapes))
    ]
    scores = score(shapes, nothing)
    assert scores["mask"]["AP"] == 0
    empty_images = float((shapes.counts == 0).mean())
    assert scores["kaggle"]["mean"] == pytest.approx(empty_images)


def block(x1: int, x2: int) -> RLE:
    mask = np.zeros((10, 40), bool)
    mask[:, x1:x2] = True
    return RLE.from_mask(mask)


def found_of(rles: list[RLE], classes: list[int]) -> Detections:
    n = len(rles)
    boxes = np.array([r.box for r in rles], np.float32).reshape(-1, 4)
    return Detections(boxes, np.linspace(0.9, 0.6, n, dtype=np.float32), np.array(classes), ["a"] * n, rles, (10, 40))


def test_kaggle_counts_true_false_and_missed():
    truth = [block(0, 10), block(20, 30)]
    found = found_of([block(0, 8), block(33, 38)], [1, 1])  # IoU 0.8 with the first instance, and a false positive
    scores = image_scores(truth, [1, 1], found)
    assert scores[:6].tolist() == [1 / 3] * 6  # 0.50 .. 0.75: one true positive, one false positive, one miss
    assert scores[6:].tolist() == [0.0] * 4  # IoU 0.80 does not exceed the threshold 0.80


def test_kaggle_compares_classes_and_matches_once():
    truth = [block(0, 10)]
    assert image_scores(truth, [2], found_of([block(0, 10)], [1])).max() == 0
    assert image_scores(truth, [1], found_of([block(0, 10), block(0, 10)], [1, 1]))[0] == 0.5
    assert image_scores([], [], found_of([], [])).tolist() == [1.0] * 10
    assert image_scores([], [], found_of([block(0, 3)], [1])).max() == 0


def test_class_ids_are_compared_as_text(shapes):
    numbers = dataclasses.replace(shapes, class_ids=[7, 3, 10, 2])
    texts = dataclasses.replace(shapes, class_ids=["7", "3", "10", "2"])
    found = guesses(texts, np.random.default_rng(0))
    expected = score(shapes, guesses(shapes, np.random.default_rng(0)))
    assert score(numbers, found)["mask"]["AP"] == expected["mask"]["AP"] > 0
    assert score(numbers, found)["kaggle"]["mean"] == expected["kaggle"]["mean"]


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_find_gives_each_image_its_detections_or_its_error(shapes, batch_size):
    """Images are read ahead and in batches; missing ones, also at both ends, and one of a new size lose no other."""
    model, n = predictor(), len(shapes)
    missing, resized = {0, 1, 4, n - 1}, 6
    files = [f.with_name("missing.png") if i in missing else f for i, f in enumerate(shapes.files)]
    data = dataclasses.replace(shapes, files=files, sizes=shapes.sizes + np.eye(n, dtype=int)[resized][:, None])
    done = []
    images = [*range(n), 2]  # one image twice
    found = find(model, data, images, batch_size=batch_size, on_image=done.append)
    assert list(found) == list(range(n))
    assert {i for i, result in found.items() if isinstance(result, str)} == missing | {resized}
    assert all("missing.png: there is no such file" in found[i] for i in missing)
    assert "(height, width) changed from (97, 129) to (96, 128)" in found[resized]
    assert done[-1] == len(images)
    assert done == sorted(done)
    lenient = model.changed(score_threshold=0.05)
    for i in set(range(n)) - missing - {resized}:
        expected = lenient.predict(data.files[i])
        assert np.array_equal(found[i].boxes, expected.boxes)
        assert np.array_equal(found[i].scores, expected.scores)
