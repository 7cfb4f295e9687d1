"""COCO results that `predict` writes, as pycocotools and FiftyOne read them."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import PurePath

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from guesses import guesses
from lively import predictor
from maskrcnn import RLE
from maskrcnn.data.formats import write_dataset
from maskrcnn.evaluation import score
from maskrcnn.inference.outputs import Writer

SPARSE_IDS = [3, 7, 20, 90]
BY_SIZE = ("APs", "APm", "APl")


@pytest.fixture(scope="module")
def data(shapes):
    return replace(shapes, class_ids=SPARSE_IDS)


@pytest.fixture(scope="module")
def found(data):
    """Detections with boxes that are not those of their masks, and scores that differ in float32's last digits."""
    rng = np.random.default_rng(5)
    spacing = np.spacing(np.float32(0.5))
    return [
        replace(
            dets,
            boxes=(dets.boxes + rng.normal(0, 1.5, dets.boxes.shape)).astype(np.float32),
            scores=np.sort(0.5 + spacing * rng.permutation(90)[: len(dets)]).astype(np.float32)[::-1],
        )
        for dets in guesses(data, rng, per_image=4)
    ]


def write_results(folder, found, ids):
    """Write ``coco.json`` as `predict` does, from pictures whose file names are the ids."""
    with Writer(folder, overlays=False, labels=False, with_class=True).open(submission=False, coco=True) as writer:
        for image_id, dets in zip(ids, found, strict=True):
            writer.add(PurePath(f"{image_id}.png"), f"{image_id}.png", dets)
    return folder / "coco.json"


def pycocotools_scores(truth_json, results, kind, max_detections):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(truth_json)
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.params.maxDets = [1, 10, max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"][..., -1], evaluation.eval["recall"][..., -1]
    by_size = {name: precision[..., area] for area, name in enumerate(BY_SIZE, 1)}
    values = {"AP": precision[..., 0], "AP50": precision[0, ..., 0], "AP75": precision[5, ..., 0], **by_size}
    return {name: v[v > -1].mean() if (v > -1).any() else None for name, v in {**values, "AR": recall[..., 0]}.items()}


def test_pycocotools_scores_the_file_as_we_score(data, found, tmp_path):
    write_dataset(data, tmp_path / "truth.json", "coco")
    results = str(write_results(tmp_path, found, range(1, len(data) + 1)))
    ours = score(data, found)
    assert 0.05 < ours["box"]["AP"] < 0.95
    truth, limit = str(tmp_path / "truth.json"), ours["max_detections"]
    boxes = pycocotools_scores(truth, results, "bbox", limit)
    assert {name: ours["box"][name] for name in boxes} == pytest.approx(boxes, abs=1e-12)
    masks = pycocotools_scores(truth, results, "segm", limit)
    assert {k: ours["mask"][k] for k in masks if k not in BY_SIZE} == pytest.approx(
        {k: v for k, v in masks.items() if k not in BY_SIZE}, abs=1e-12
    )
    # With a bbox, pycocotools sorts detections into small, medium and large by the area of the bbox.
    without_bbox = [
        {k: v for k, v in e.items() if k != "bbox"} for e in json.loads((tmp_path / "coco.json").read_text())
    ]
    masks = pycocotools_scores(truth, without_bbox, "segm", limit)
    assert {name: ours["mask"][name] for name in masks} == pytest.approx(masks, abs=1e-12)


def test_numbers_come_back_from_the_file(data, found, tmp_path):
    entries = json.loads(write_results(tmp_path, found, range(len(data))).read_text())
    boxes = np.array([entry["bbox"] for entry in entries]).astype(np.float32)
    expected = np.concatenate([dets.boxes for dets in found])
    assert np.array_equal(boxes[:, :2], expected[:, :2])
    assert np.array_equal(boxes[:, 2:], expected[:, 2:] - expected[:, :2])
    scores = np.array([entry["score"] for entry in entries], np.float32)
    assert np.array_equal(scores, np.concatenate([dets.scores for dets in found]))


def test_fiftyone_finds_what_it_reads():
    """Its `add_coco_labels` takes these keys, and keeps of a mask what lies in the rounded bbox."""
    dets = predictor().predict(np.random.default_rng(0).integers(0, 255, (150, 210, 3), np.uint8))
    assert len(dets) > 5
    for entry, rle in zip(dets.to_coco(4), dets.rles, strict=True):
        assert set(entry) == {"image_id", "category_id", "bbox", "score", "segmentation"}
        assert isinstance(entry["segmentation"]["counts"], str)
        x, y, w, h = entry["bbox"]
        kept = RLE.from_coco(entry["segmentation"]).crop((round(x), round(y), round(x + w), round(y + h)))
        assert kept.area == rle.area
