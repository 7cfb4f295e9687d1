"""Limits that may have cost objects are said with the setting that lifts them."""

import dataclasses

import numpy as np
import pytest
import torch

from lively import predictor
from maskrcnn.config import Config
from maskrcnn.detection.propose import weakest_proposals
from maskrcnn.detection.stages import Proposals
from maskrcnn.evaluation import examine
from maskrcnn.inference.limits import limit_note
from maskrcnn.structures import Detections


def reached(score, objectness):
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int), [], [], (9, 9))
    return dataclasses.replace(nothing, weakest_of_limit=(score, objectness))


def test_the_sentence_counts_pictures_and_names_settings():
    config = Config().changed(predict={"detections": 70, "score_threshold": 0.4}, model={"proposals": 900})
    found = [reached(None, None), reached(0.5, 0.1), reached(0.3, None), reached(None, 0.9), reached(0.6, 0.7)]
    assert limit_note(found, config) == (
        "2 of 5 pictures reached the limit of 70 detections (--detections N); "
        "2 of 5 pictures reached the limit of 900 proposals (--proposals N): objects may be missing"
    )
    assert limit_note(found[:1], config) is None


@pytest.mark.parametrize("mask_scoring", [True, False])
def test_a_limit_of_detections_is_noticed_and_lifted(shapes, mask_scoring):
    model = predictor().changed(mask_scoring=mask_scoring, detections=3)
    pictures = [shapes.files[k] for k in range(3)]
    found = list(model.predict_many(pictures, batch_size=3))
    assert all(detections.weakest_of_limit[0] is not None for detections in found)
    assert "of 3 pictures reached the limit of 3 detections" in limit_note(found, model.config)
    lifted = model.changed(detections=5000)
    assert "detections" not in (limit_note(lifted.predict_many(pictures), lifted.config) or "")


def test_a_limit_of_proposals_is_noticed_and_lifted(shapes):
    model = predictor()
    few = model.with_proposals(2)
    assert few.predict(shapes.files[0]).weakest_of_limit[1] is not None
    many = few.with_proposals(5000)
    assert many.predict(shapes.files[0]).weakest_of_limit[1] is None
    assert len(many.changed(detections=5000).predict(shapes.files[0])) > len(few.predict(shapes.files[0]))


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["arrays", "tensors"])
def test_weakest_proposals_are_those_of_each_image(convert):
    logits = convert(np.array([3.0, 1.0, 0.5, 2.0, -1.0], np.float32))
    proposals = Proposals(convert(np.zeros((5, 4), np.float32)), logits, convert(np.array([0, 0, 0, 2, 2])))
    weakest = weakest_proposals(proposals, 3, 3)
    assert weakest[0] == pytest.approx(1 / (1 + np.exp(-0.5)))
    assert np.isnan(np.asarray(weakest[1:])).all()
    none = Proposals(proposals.boxes[:0], logits[:0], proposals.image_index[:0])
    assert np.isnan(np.asarray(weakest_proposals(none, 2, 3))).all()


def test_an_evaluation_judges_by_the_threshold_of_the_model(shapes):
    """An evaluation also keeps weak detections; a limit that only they reach costs no object."""
    data = shapes.take([0, 1])
    for threshold, noticed in ((0.3, True), (1.0, False)):
        said = []
        examine(predictor().changed(detections=3, score_threshold=threshold), data, say=said.append)
        assert any("2 of 2 pictures reached the limit of 3 detections" in line for line in said) == noticed
