"""Masks are drawn in batches by several threads: rows, problems and warnings are those of one batch."""

import json

import numpy as np
import pytest
from PIL import Image

from maskrcnn import open_dataset
from maskrcnn.data.formats import drawing

HW = (40, 60)
SEGMENTATIONS = [
    [[10, 5, 30, 5, 30, 25]],
    {"size": HW, "counts": [100, 7, 2293]},  # runs, drawn alone
    [[40, 5, 55.5, 5, 47.25, 30.5], [1, 1, 9, 1, 5, 9]],
    [[1, 2, 3, 4, 5]],  # odd
    [[200, 200, 210, 200, 205, 210]],  # beyond the picture
    [[1e300, 5, 30, 5, 30, 25]],
    [[0.1, 0.2, 0.9, 0.2, 0.5, 0.9]],  # fractions
]


@pytest.fixture
def file(tmp_path):
    """Three pictures with objects of every kind in another order."""
    rng = np.random.default_rng(3)
    images = [{"id": k, "file_name": f"{k}.png", "height": HW[0], "width": HW[1]} for k in range(3)]
    for entry in images:
        Image.new("RGB", HW[::-1]).save(tmp_path / entry["file_name"])
    kinds = np.concatenate([rng.permutation(len(SEGMENTATIONS)) for _ in images]).tolist()
    annotations = [
        {"id": n + 1, "image_id": n // len(SEGMENTATIONS), "category_id": 1, "segmentation": SEGMENTATIONS[kind]}
        for n, kind in enumerate(kinds)
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("size", [1, 2, 5])
def test_batches_change_nothing(file, monkeypatch, size):
    whole = open_dataset(file, bad="skip", say=lambda line: None)
    monkeypatch.setattr(drawing, "BATCH", size)
    batched = open_dataset(file, bad="skip", say=lambda line: None)
    assert batched.n_instances == whole.n_instances == 9
    np.testing.assert_array_equal(batched.rows, whole.rows)
    np.testing.assert_array_equal(batched.masks.runs, whole.masks.runs)
    np.testing.assert_array_equal(batched.masks.offsets, whole.masks.offsets)
    assert list(map(str, batched.problems)) == list(map(str, whole.problems))
    assert len(whole.problems) == 12
