"""Each cause of a missed object, provoked by a network whose outputs are written down; what a truth adds to a trace."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

import maskrcnn
from lively import predictor
from maskrcnn import RLE, UserError
from maskrcnn.inspection import explain as causes
from maskrcnn.inspection.explain import explain
from written import MASK, SIDE, scene


def cause_of(model, mask=MASK, label=1):
    trace = model.trace(np.zeros((SIDE, SIDE, 3), np.uint8))
    return explain(trace, mask, label)


def test_found():
    assert cause_of(scene()).cause == causes.FOUND


def test_no_anchor_fits():
    """A thin object far from every anchor's shape."""
    thin = RLE.from_mask(np.pad(np.ones((2, 60), bool), ((3, 59), (2, 2))))
    found = cause_of(scene(), thin)
    assert found.cause == causes.NO_ANCHOR
    assert "0." in found.detail


def test_objectness_too_low():
    found = cause_of(scene(logit=-8.0, other_logit=2.0, model={"proposals_per_level": 10}))
    assert (found.cause, found.setting) == (causes.LOW_OBJECTNESS, "proposals")


def test_proposal_suppressed():
    """A neighbour's better box overlaps the object's proposal by 0.72, and the object by less than 0.5."""
    model = scene(
        object_box=(16, 20, 32, 34), others=[(6, (16, 23.0, 32, 36.0))], model={"proposal_nms_threshold": 0.5}
    )
    found = cause_of(model)
    assert (found.cause, found.setting) == (causes.PROPOSAL_SUPPRESSED, "proposal_nms_threshold")
    assert np.allclose(found.by, [16, 23, 32, 36], atol=1e-3)
    assert cause_of(model.proposing(proposal_nms_threshold=0.95)).cause != causes.PROPOSAL_SUPPRESSED


def test_limit_of_proposals():
    found = cause_of(scene(logit=-8.0, other_logit=2.0, model={"proposals": 5}))
    assert (found.cause, found.setting) == (causes.PROPOSAL_CUT, "proposals")


def test_another_class():
    found = cause_of(scene(probabilities=(0.05, 0.05, 0.9)))
    assert found.cause == causes.WRONG_CLASS
    assert found.detail.startswith("b scores 0.90")


def test_score_too_low():
    found = cause_of(scene(probabilities=(0.6, 0.35, 0.05)))
    assert (found.cause, found.setting) == (causes.LOW_SCORE, "score_threshold")
    assert "0.35" in found.detail


def test_mask_scoring_below_the_threshold():
    found = cause_of(scene(inside=False, predict={"mask_scoring": True}))
    assert found.cause == causes.LOW_SCORE


def test_detection_suppressed():
    """Both boxes become proposals; the better one of the class, off the object, suppresses the other."""
    others = [(6, (16.0, 23.0, 32.0, 36.0))]
    model = scene(
        object_box=(16, 20, 32, 34), others=others,
        model={"proposal_nms_threshold": 0.95}, predict={"nms_threshold": 0.3},
    )  # fmt: skip
    found = cause_of(model)
    assert (found.cause, found.setting) == (causes.DETECTION_SUPPRESSED, "nms_threshold")
    assert cause_of(model.changed(nms_threshold=0.95)).cause != causes.DETECTION_SUPPRESSED


def test_limit_of_detections():
    far = [(k, (48.0, 4.0 * k - 24, 63.0, 4.0 * k - 8)) for k in (10, 14)]
    model = scene(others=far, probabilities=(0.3, 0.65, 0.05), predict={"detections": 1, "nms_threshold": 0.9})
    model.runtime.probabilities[[10, 14]] = [0.05, 0.9, 0.05]
    found = cause_of(model)
    assert (found.cause, found.setting) == (causes.DETECTION_CUT, "detections")


def test_box_off():
    found = cause_of(scene(shift=(8.0, 8.0, 0.0, 0.0)))
    assert found.cause == causes.BOX_OFF


def test_mask_off():
    found = cause_of(scene(inside=False))
    assert (found.cause, found.setting) == (causes.MASK_OFF, None)


def truth_of(shapes, i):
    labels = shapes.labels[shapes.instances(i)]
    return [(rle, shapes.class_names[k - 1]) for rle, k in zip(shapes.rles(i), labels, strict=True)]


@pytest.mark.parametrize("pyramid", ["fpn", "single"])
def test_losses_are_those_of_a_training_step(pyramid, shapes):
    from maskrcnn.data.batch import Shard, make_batch
    from maskrcnn.training.distributed import World
    from maskrcnn.training.learner import Learner

    model = predictor(pyramid=pyramid)
    plain = {"flip": False, "rotate": False, "scale": (1.0, 1.0), "color": 0.0}
    model.config = model.config.changed(augment=plain, train={"seed": 5})
    one = shapes.take([3])
    trace = model.trace(one.files[0], (one, 0), sample=2)
    by_hand = model.trace(one.files[0], truth_of(one, 0), sample=2)
    batch = make_batch(one, 2, model.config, Shard.of(1), model.conventions)
    step = Learner(model.model, model.config.train, World()).learn(batch, 2, None)
    assert trace.lesson.losses == by_hand.lesson.losses == step.losses
    assert (trace.lesson.anchor_label == 1).sum() >= len(trace.truth.labels)
    assert len(trace.lesson.sampled_anchors) <= model.config.train.rpn_batch
    assert "lesson.anchor_iou" in trace.summary()
    assert trace.explain(0).cause in {causes.FOUND, *causes.CAUSES}


def test_a_truth_that_does_not_fit_is_an_error(shapes, tmp_path):
    model, picture = predictor(), shapes.files[0]
    rle, _ = truth_of(shapes, 0)[0]
    with pytest.raises(UserError, match="'cat', which is no class of the model"):
        model.trace(picture, [(rle, "cat")])
    with pytest.raises(UserError, match=r"mask 0 of the truth is for a picture of \(height, width\) \(5, 5\)"):
        model.trace(picture, [(RLE.empty((5, 5)), "disc")])
    with pytest.raises(UserError, match="knows no objects"):
        model.trace(picture).explain(0)
    maskrcnn.export(model, tmp_path / "bundle", runtime="onnx")
    with pytest.raises(UserError, match="a bundle for onnx can only predict"):
        maskrcnn.load(tmp_path / "bundle").trace(picture, truth_of(shapes, 0))
    assert dataclasses.is_dataclass(model.trace(picture, []).lesson)


DOCUMENT = Path(__file__).parents[2] / "docs" / "inside.md"


def test_the_examples_of_the_page_run(shapes, monkeypatch, capsys):
    """The code of docs/inside.md, in order, with a tiny model and a picture of the test data."""
    monkeypatch.setattr(maskrcnn, "load", lambda _: predictor())
    monkeypatch.setattr(maskrcnn, "open_dataset", lambda *_, **__: shapes)
    monkeypatch.chdir(shapes.files[0].parent)
    names: dict = {"picture": str(shapes.files[0])}
    for code in re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL):
        exec(code, names)
    assert "rpn_class_probabilities" in capsys.readouterr().out
