"""Splits that give every class its images: rare objects, rare classes, and what no split can do."""

from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data.split import absent_classes, untrained_classes
from maskrcnn.data.table import Dataset
from maskrcnn.rle import RunTable


def labelled(labels_of_images, n_classes):
    """A data set of images with these labels, each a mask of four pixels."""
    counts = [len(labels) for labels in labels_of_images]
    n = sum(counts)
    return Dataset(
        source=Path("train.csv"),
        names=[f"{i}.png" for i in range(len(counts))],
        files=[Path(f"{i}.png") for i in range(len(counts))],
        sizes=np.full((len(counts), 2), 32),
        image_index=np.repeat(np.arange(len(counts)), counts),
        labels=np.array([label for labels in labels_of_images for label in labels], np.int64),
        masks=RunTable.of([np.array([[5, 4]])] * n),
        rows=np.arange(n) + 2,
        class_ids=list(range(n_classes)),
        class_names=[f"class {c}" for c in range(n_classes)],
    )


@pytest.mark.parametrize("n_positive", [2, 3, 5])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_validation_gets_objects_however_rare_they_are(n_positive, share):
    data = labelled([[1]] * n_positive + [[]] * (40 - n_positive), 1)
    for seed in range(12):
        train, val = data.split(share, seed)
        assert len(val) == max(round(share * 40), 1)
        assert sorted(train.names + val.names) == sorted(data.names)
        assert train.n_instances >= 1
        assert val.n_instances >= 1
        assert absent_classes(val) is None


def test_every_class_on_two_images_trains_and_validates():
    labels = [[1, 2]] * 30 + [[1, 3]] * 2 + [[4]] * 2 + [[5, 1]] * 3 + [[]] * 20
    data = labelled(labels, 5)
    for seed in range(12):
        train, val = data.split(0.15, seed)
        assert set(train.labels) == set(val.labels) == {1, 2, 3, 4, 5}


def test_a_class_on_one_image_trains():
    data = labelled([[1]] * 12 + [[2]], 2)
    for seed in range(12):
        train, val = data.split(0.3, seed)
        assert 2 in train.labels
        assert absent_classes(val) == "the validation images hold no object of 1 of 2 classes: class 1"


def test_what_no_split_can_do_is_said():
    for seed in range(6):
        train, val = labelled([[1], []], 1).split(0.5, seed)
        assert train.n_instances == 1
        assert "hold no objects" in absent_classes(val)
        train, val = labelled([[1, 2], [2, 3], [3, 1]], 3).split(0.1, seed)
        assert (len(train), len(val)) == (2, 1)
        assert set(train.labels) == {1, 2, 3}
        assert "1 of 3 classes" in absent_classes(val)


@pytest.mark.parametrize("n_classes", [4, 10])
def test_classes_that_no_swap_lets_train_are_named(n_classes):
    data = labelled([[c + 1] for c in range(n_classes)], n_classes)
    train, val = data.split(0.2)
    lost = [f"class {c}" for c in range(n_classes) if c + 1 not in train.labels]
    assert len(lost) == len(val) > 0
    expected = f"the training images hold no object of {len(lost)} of {n_classes} classes: {', '.join(lost)}"
    assert untrained_classes(train) == expected
    assert untrained_classes(data) is None
