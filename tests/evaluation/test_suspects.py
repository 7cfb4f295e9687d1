"""Labels that a model disagrees with: planted mistakes come first."""

from dataclasses import replace

import numpy as np
import pytest

from maskrcnn import RLE, Detections
from maskrcnn.data.synthetic import make_shapes
from maskrcnn.evaluation.suspects import SuspectKind, find_suspects
from maskrcnn.rle import RunTable

HW = (96, 128)


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("truth"), 40, seed=2, hw=HW)


def subset(data, kept):
    return replace(
        data,
        image_index=data.image_index[kept],
        labels=data.labels[kept],
        masks=data.masks.take(kept),
        rows=data.rows[kept],
    )


def from_memory(truth, rng):
    """Detections of a good model: it misses a tenth, invents a few at low scores, and is a pixel off."""
    results = []
    for i in range(len(truth)):
        parts = []
        for mask, label in zip(truth.rles(i), truth.labels[truth.instances(i)].tolist(), strict=True):
            if rng.random() < 0.9:
                parts.append((mask.shift(*rng.integers(-1, 2, 2).tolist()), label, rng.uniform(0.6, 1)))
        for _ in range(int(rng.integers(0, 3))):
            noise = np.zeros(HW, bool)
            y, x = rng.integers(0, HW[0] - 12), rng.integers(0, HW[1] - 12)
            noise[y : y + 12, x : x + 12] = True
            parts.append((RLE.from_mask(noise), int(rng.integers(1, 5)), rng.uniform(0.05, 0.75)))
        results.append(detections(truth, parts))
    return results


def detections(data, parts):
    parts = sorted((part for part in parts if part[0].area), key=lambda part: -part[2])
    return Detections(
        boxes=np.array([mask.box for mask, _, _ in parts], np.float32).reshape(-1, 4),
        scores=np.array([score for _, _, score in parts], np.float32),
        class_ids=np.array([data.class_ids[label - 1] for _, label, _ in parts]),
        class_names=[data.class_names[label - 1] for _, label, _ in parts],
        rles=[mask for mask, _, _ in parts],
        hw=HW,
    )


@pytest.mark.parametrize("seed", range(3))
def test_labels_that_were_removed_come_first(truth, seed):
    rng = np.random.default_rng(seed)
    removed = rng.random(truth.n_instances) < 0.2
    kept = np.flatnonzero(~removed)
    suspects = find_suspects(subset(truth, kept), from_memory(truth, rng))
    unlabelled = [s for s in suspects if s.kind == SuspectKind.UNLABELLED]
    masks_of_image = {}
    for k in np.flatnonzero(removed).tolist():
        masks_of_image.setdefault(int(truth.image_index[k]), []).append(RLE(truth.masks[k], HW))
    is_removed = [
        any(s.mask.intersection(m).area > 0.5 * s.mask.union(m).area for m in masks_of_image.get(s.image, []))
        for s in unlabelled
    ]
    n = int(removed.sum())
    assert sum(is_removed[: n // 2]) >= 0.8 * (n // 2)
    assert sum(is_removed) >= 0.5 * n
    assert [s.doubt for s in suspects] == sorted((s.doubt for s in suspects), reverse=True)


def test_labels_of_nothing_are_not_found(truth, rng):
    """Labels on the background are among those that a model that finds 90 % does not find."""
    found = from_memory(truth, rng)
    empty = np.zeros(HW, bool)
    empty[2:22, 2:22] = True
    added = RLE.from_mask(empty)
    i = int(np.argmin(truth.counts))
    at = truth.instances(i).stop
    masks = [truth.masks[k] for k in range(truth.n_instances)]
    masks.insert(at, added.runs)
    data = replace(
        truth,
        image_index=np.insert(truth.image_index, at, i),
        labels=np.insert(truth.labels, at, 1),
        masks=RunTable.of(masks),
        rows=np.insert(truth.rows, at, 9999),
    )
    unfound = [s for s in find_suspects(data, found) if s.kind == SuspectKind.UNFOUND]
    assert at in [s.instance for s in unfound]
    assert len(unfound) < 0.25 * data.n_instances


@pytest.fixture
def one(truth):
    """The first image with two labels or more whose masks lie inside."""
    return truth.take([int(np.argmax(truth.counts))])


def exact(data, labels=None, score=0.95):
    labels = data.labels.tolist() if labels is None else labels
    return [(mask, label, score) for mask, label in zip(data.rles(0), labels, strict=True)]


def test_a_model_that_agrees_suspects_nothing(one):
    assert find_suspects(one, [detections(one, exact(one))]) == []


def test_another_class(one):
    labels = one.labels.tolist()
    labels[1] = labels[1] % 4 + 1
    [suspect] = find_suspects(one, [detections(one, exact(one, labels))])
    assert (suspect.kind, suspect.instance) == (SuspectKind.OTHER_CLASS, 1)
    assert one.class_names[labels[1] - 1] in suspect.message
    assert one.class_names[one.labels[1] - 1] in suspect.message
    both = [*exact(one), (one.rles(0)[1], labels[1], 0.9)]
    assert find_suspects(one, [detections(one, both)]) == []


def test_the_objects_of_a_crowd_are_no_suspects(one):
    crowd = np.zeros(HW, bool)
    crowd[:, :] = True
    data = replace(
        subset(one, np.zeros(1, np.int64)), masks=RunTable.of([RLE.from_mask(crowd).runs]), crowd=np.array([True])
    )
    found = [detections(one, exact(one))]
    assert find_suspects(data, found) == []
    assert len(find_suspects(replace(data, crowd=None), found)) == one.n_instances + 1


def test_a_loose_outline(one):
    parts = exact(one)
    k = int(np.argmax(one.masks.areas))
    mask, label, score = parts[k]
    x1, _, x2, _ = mask.box
    left = np.zeros(HW, bool)
    left[:, : x1 + round(0.65 * (x2 - x1))] = True
    parts[k] = (mask.intersection(RLE.from_mask(left)), label, score)
    [suspect] = find_suspects(one, [detections(one, parts)])
    assert (suspect.kind, suspect.instance) == (SuspectKind.LOOSE, k)
    assert suspect.mask == parts[k][0]


def test_unsure_detections_and_data_without_labels(one):
    empty = subset(one, np.empty(0, np.int64))
    found = [detections(one, exact(one, score=0.4))]
    assert find_suspects(empty, found) == []
    sure = find_suspects(empty, [detections(one, exact(one))])
    assert {s.kind for s in sure} == {SuspectKind.UNLABELLED}
    assert len(sure) == one.n_instances
    entry = sure[0].to_json(empty)
    assert RLE.from_coco(entry["segmentation"]) == sure[0].mask
    assert entry["place"] is None
