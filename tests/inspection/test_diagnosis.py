"""Causes add up to the missed objects and to the false detections; other settings are measured; the report shows both."""

import dataclasses
import re

import numpy as np
import pytest
from PIL import Image

from lively import predictor
from maskrcnn import RLE, Config
from maskrcnn.data.synthetic import make_shapes
from maskrcnn.data.table import Dataset
from maskrcnn.evaluation import examine, find
from maskrcnn.evaluation.tide import KINDS, judge
from maskrcnn.inspection import explain as causes
from maskrcnn.inspection import false_detections as false
from maskrcnn.inspection.diagnosis import MAX_EXAMINED, PREDICTIONS_PER_IMAGE, diagnose, images_within
from maskrcnn.inspection.report import write_report
from maskrcnn.inspection.trials import alternatives, count, found_objects, try_settings, with_setting
from maskrcnn.rle import RunTable
from pages import Page
from written import MASK, SIDE, Written, scene


def quiet(model, data):
    return examine(model, data, say=lambda _: None)


@pytest.fixture(scope="module")
def lively_model():
    return predictor().changed(score_threshold=0.4)


@pytest.fixture(scope="module", params=["shapes", "others", "crowds", "classes"])
def data(request, shapes, tmp_path_factory) -> Dataset:
    """Shapes; larger pictures of others; shapes of which some are crowd regions; shapes of a class of another name."""
    if request.param == "others":
        return make_shapes(tmp_path_factory.mktemp("others"), 7, seed=11, hw=(140, 90))
    if request.param == "crowds":
        return dataclasses.replace(shapes, crowd=np.arange(shapes.n_instances) % 3 == 0)
    if request.param == "classes":
        names = ["comet" if name == "star" else name for name in shapes.class_names]
        return dataclasses.replace(shapes, class_names=names, class_ids=names)
    return shapes


def check_kinds(diagnosis, evaluation, threshold):
    """Causes of false detections add up to the kinds of TIDE, and these to their number."""
    kinds = dict.fromkeys(KINDS[1:], 0)
    for cause, n in diagnosis.false_counts.items():
        kinds[false.KIND_OF[cause]] += n
    counts = judge(evaluation.data, evaluation.detections).counts(threshold)
    assert kinds == {kind: counts[kind] for kind in kinds}
    assert sum(kinds.values()) == len(diagnosis.false) == diagnosis.n_false


def test_causes_add_up_to_the_errors(lively_model, data):
    """A random network misses nearly every object and finds many false ones, for many reasons."""
    threshold = lively_model.config.predict.score_threshold
    evaluation = quiet(lively_model, data)
    diagnosis = diagnose(lively_model, evaluation)
    objects = data.without_crowd
    missed = ~found_objects(objects, evaluation.detections, threshold)
    assert sum(diagnosis.missed_counts.values()) == len(diagnosis.missed) == diagnosis.n_missed == missed.sum() > 10
    expected = [
        (i, rle) for i in range(len(objects)) for rle in np.array(objects.rles(i))[missed[objects.instances(i)]]
    ]
    assert [(miss.image, miss.mask) for miss in diagnosis.missed] == expected
    assert sum(n > 0 for n in diagnosis.missed_counts.values()) >= 2
    check_kinds(diagnosis, evaluation, threshold)
    assert diagnosis.n_false > 10
    assert all(0 <= detection.image < len(data) and detection.mask.hw for detection in diagnosis.false)


def test_only_some_images_are_examined(lively_model, shapes):
    evaluation = quiet(lively_model, shapes)
    done: list[tuple[int, int]] = []
    every, few = diagnose(lively_model, evaluation), diagnose(lively_model, evaluation, 3, lambda *n: done.append(n))
    assert (few.n_examined, few.n_missed, few.n_false) == (3, every.n_missed, every.n_false)
    assert few.trials.n_images == 3
    images = {error.image for error in (*few.missed, *few.false)}
    assert len(images) == 3
    for part, whole in ((few.missed, every.missed), (few.false, every.false)):
        reasons = [(error.image, error.explanation.cause) for error in whole if error.image in images]
        assert [(error.image, error.explanation.cause) for error in part] == reasons
    assert done == [(n, 6) for n in (1, 2, 3, 4, 5, 6)]


def test_classes_that_the_model_lacks_are_a_cause(lively_model, shapes):
    names = ["comet" if name == "disc" else name for name in shapes.class_names]
    data = dataclasses.replace(shapes, class_names=names, class_ids=names)
    diagnosis = diagnose(lively_model, quiet(lively_model, data))
    n_comets = int((data.labels == names.index("comet") + 1).sum())
    assert diagnosis.missed_counts[causes.UNKNOWN_CLASS] == n_comets > 0
    assert any(miss.explanation.detail == "the model does not know comet" for miss in diagnosis.missed)


def test_images_that_are_gone_are_left_out(lively_model, shapes, tmp_path):
    evaluation = quiet(lively_model, shapes)
    files = [tmp_path / "gone.png", *shapes.files[1:]]
    gone = dataclasses.replace(evaluation, data=dataclasses.replace(shapes, files=files))
    diagnosis = diagnose(lively_model, gone)
    assert diagnosis.n_examined == diagnosis.n_images - 1
    assert all(miss.image != 0 for miss in diagnosis.missed)
    assert diagnosis.trials.n_images == len(shapes) - 1


def picture(folder, *objects: tuple[RLE, str]) -> Dataset:
    """A black picture with these objects of the classes a and b."""
    Image.new("RGB", (SIDE, SIDE)).save(folder / "one.png")
    return Dataset(
        source=folder,
        names=["one.png"],
        files=[folder / "one.png"],
        sizes=np.array([[SIDE, SIDE]]),
        image_index=np.zeros(len(objects), np.int64),
        labels=np.array([1 + "ab".index(name) for _, name in objects], np.int64),
        masks=RunTable.of([mask.runs for mask, _ in objects]),
        rows=np.arange(len(objects)),
        class_ids=["a", "b"],
        class_names=["a", "b"],
    )


def rectangle(x1: int, y1: int, x2: int, y2: int) -> RLE:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y1:y2, x1:x2] = True
    return RLE.from_mask(mask)


def false_causes(model, data) -> dict[str, str]:
    evaluation = quiet(model, data)
    diagnosis = diagnose(model, evaluation)
    check_kinds(diagnosis, evaluation, model.config.predict.score_threshold)
    return {detection.explanation.cause: detection.explanation.detail for detection in diagnosis.false}


FAR = rectangle(48, 48, 62, 62)


@pytest.mark.parametrize(("logit", "cause"), [(4.0, false.FROM_RPN), (-3.0, false.FROM_BOX_HEAD)])
def test_background(tmp_path, logit, cause):
    found = false_causes(scene(logit=logit), picture(tmp_path, (FAR, "a")))
    assert list(found) == [cause]
    assert "a scores 0.90; its proposal has objectness 0." in found[cause]


def test_duplicate(tmp_path):
    """Two proposals of the object; their boxes overlap by less than suppression asks for."""
    model = scene(
        object_box=(16, 16, 32, 32), others=[(6, (16.0, 19.0, 32.0, 35.0))],
        model={"proposal_nms_threshold": 0.9}, predict={"nms_threshold": 0.8},
    )  # fmt: skip
    found = false_causes(model, picture(tmp_path, (MASK, "a")))
    assert list(found) == [false.LEFT]
    assert "by IoU 0.68; suppression starts above 0.8" in found[false.LEFT]
    assert false_causes(model.changed(nms_threshold=0.6), picture(tmp_path, (MASK, "a"))) == {}


def test_box_off_from_the_start(tmp_path):
    found = false_causes(scene(), picture(tmp_path, (rectangle(24, 24, 40, 40), "a")))
    assert list(found) == [false.PROPOSED_OFF]
    assert "0.14 of the proposal and 0.14 of the detection" in found[false.PROPOSED_OFF]


def test_box_moved_off(tmp_path):
    found = false_causes(scene(shift=(5.0, 5.0, 0.0, 0.0)), picture(tmp_path, (MASK, "a")))
    assert list(found) == [false.MOVED_OFF]
    assert "1.00 of the proposal and 0.14 of the detection" in found[false.MOVED_OFF]


def test_mask_off(tmp_path):
    """The detection fills its box; the object is its frame, and a corner that keeps the box."""
    ring = np.zeros((SIDE, SIDE), bool)
    ring[16:32, 16:32] = True
    ring[18:32, 18:32] = False
    found = false_causes(scene(), picture(tmp_path, (RLE.from_mask(ring), "a")))
    assert list(found) == [false.MASK_OFF]
    assert "the IoU of the masks is 0.23" in found[false.MASK_OFF]


def test_another_class(tmp_path):
    found = false_causes(scene(probabilities=(0.05, 0.7, 0.25)), picture(tmp_path, (MASK, "b")))
    assert list(found) == [false.CONFUSED]
    assert "an object of class b by mask IoU 1.00, which scores 0.25" in found[false.CONFUSED]


def test_part_of_another_class(tmp_path):
    found = false_causes(scene(), picture(tmp_path, (rectangle(24, 16, 40, 32), "b")))
    assert list(found) == [false.PARTLY_CONFUSED]


def test_a_detection_in_a_crowd_is_not_false(tmp_path):
    data = picture(tmp_path, (rectangle(10, 10, 40, 40), "a"), (FAR, "a"))
    crowd = dataclasses.replace(data, crowd=np.array([True, False]))
    model = scene()
    assert false_causes(model, data) != {}
    assert false_causes(model, crowd) == {}
    missed = diagnose(model, quiet(model, crowd)).missed
    assert [miss.mask for miss in missed] == [FAR]


SETTINGS = {
    "proposals": 90,
    "proposal_nms_threshold": 0.8,
    "score_threshold": 0.2,
    "nms_threshold": 0.7,
    "detections": 3,
}


def test_trials_count_what_a_prediction_with_the_setting_gives(lively_model, shapes):
    """Neither the shared trunk nor the threshold that is counted on known detections changes a number."""
    evaluation = quiet(lively_model, shapes)
    tried = try_settings(lively_model, evaluation, SETTINGS)
    assert [trial.setting for trial in tried.trials] == list(SETTINGS)
    outcomes = {(tried.n_found, tried.n_false)}
    for trial in tried.trials:
        changed = with_setting(lively_model, trial.setting, trial.value)
        found = find(changed, shapes, range(len(shapes)))
        threshold = changed.config.predict.score_threshold
        assert (trial.n_found, trial.n_false) == count(shapes, [found[i] for i in range(len(shapes))], threshold)
        outcomes.add((trial.n_found, trial.n_false))
    assert len(outcomes) > 3, "the settings change too little for this test"


def test_a_low_threshold_is_predicted_again(lively_model, shapes):
    model = lively_model.changed(score_threshold=0.05)
    few = shapes.take([0, 1])
    evaluation = quiet(model, few)
    (trial,) = try_settings(model, evaluation, {"score_threshold": 0.01}).trials
    found = find(model.changed(score_threshold=0.01), few, range(2))
    assert (trial.n_found, trial.n_false) == count(few, [found[0], found[1]], 0.01)
    assert trial.n_false > sum(len(detections) for detections in evaluation.detections)


def test_the_trunk_of_an_image_runs_once(tmp_path, monkeypatch):
    model = scene()
    evaluation = quiet(model, picture(tmp_path, (MASK, "a")))
    calls = []
    trunk = Written.trunk
    monkeypatch.setattr(Written, "trunk", lambda self, *a: calls.append(1) or trunk(self, *a))
    tried = try_settings(model, evaluation, SETTINGS)
    assert len(calls) == 1
    assert tried.n_found == 1


def test_alternatives_are_those_of_the_causes(lively_model):
    tried = alternatives(lively_model, [causes.LOW_SCORE, causes.DETECTION_CUT, causes.MASK_OFF])
    assert tried == {"score_threshold": 0.2, "detections": 200}


def test_images_that_fit_into_a_time():
    assert images_within(float("inf"), 0.5) == images_within(1e6, 0.0) == MAX_EXAMINED
    assert images_within(7 * PREDICTIONS_PER_IMAGE * 0.5 + 0.1, 0.5) == 7
    assert images_within(0.1, 0.5) == images_within(-9.0, 0.5) == 0


def section(page: str, key: str) -> str:
    return page.partition(f'<section id="{key}">')[2].partition("</section>")[0]


def test_the_report_shows_causes_examples_and_settings(lively_model, shapes, tmp_path):
    evaluation = quiet(lively_model, shapes)
    diagnosis = diagnose(lively_model, evaluation, max_images=4)
    write_report(tmp_path / "r.html", "a run", Config(), evaluation, diagnosis=diagnosis)
    page = (tmp_path / "r.html").read_text("utf-8")
    assert {"missed", "false"} < set(Page(page).sections)
    missed, false_section = section(page, "missed"), section(page, "false")
    for content, counts in ((missed, diagnosis.missed_counts), (false_section, diagnosis.false_counts)):
        for cause, n in counts.items():
            assert (f">{cause}<br>" in content) == (n > 0)
        assert content.count("<img") == sum(n > 0 for n in counts.values()) > 1
    text = Page(f"<div>{missed}</div>").text
    trials = diagnosis.trials
    assert f"on {trials.n_images} images with {trials.n_objects} objects." in text
    assert f"the model finds {trials.n_found}; false detections: {trials.n_false}." in text
    for trial in trials.trials:
        assert f"{trial.setting} {trial.value:g}in place of {trial.previous:g}" in text
        change = trial.n_false - trials.n_false
        assert re.search(rf"{trial.setting}.*?\D{f'{change:+}'.replace('-', '−') if change else 0}<", missed, re.DOTALL)


def test_errors_outside_the_examined_images_are_said(lively_model, shapes, tmp_path):
    """Not an empty table, and no claim about settings."""
    evaluation = quiet(lively_model, shapes)
    diagnosis = dataclasses.replace(diagnose(lively_model, evaluation, 1, lambda *_: None), missed=[], false=[])
    write_report(tmp_path / "r.html", "a run", Config(), evaluation, diagnosis=diagnosis)
    page = (tmp_path / "r.html").read_text("utf-8")
    for name, noun in (("missed", "missed objects"), ("false", "false detections")):
        content = section(page, name)
        assert f"None of the {noun} is in those." in content
        assert "<table" not in content
        assert "No single setting" not in content


def test_no_images_have_no_errors(lively_model, shapes):
    diagnosis = diagnose(lively_model, quiet(lively_model, shapes.take([])), 5, lambda *_: pytest.fail("no image"))
    assert (diagnosis.n_images, diagnosis.n_missed, diagnosis.n_false, diagnosis.trials.trials) == (0, 0, 0, [])


def test_names_of_classes_and_images_are_escaped(tmp_path):
    evil = '"><script>alert(1)</script>'
    model = scene(probabilities=(0.05, 0.7, 0.25))
    model.class_names = model.class_ids = ["a", evil]
    data = dataclasses.replace(
        picture(tmp_path, (MASK, "b")), names=[evil], class_names=["a", evil], class_ids=["a", evil]
    )
    evaluation = quiet(model, data)
    diagnosis = diagnose(model, evaluation)
    write_report(tmp_path / "r.html", "a run", Config(), evaluation, diagnosis=diagnosis)
    content = (tmp_path / "r.html").read_text("utf-8")
    text = Page(f"<div>{section(content, 'missed')}{section(content, 'false')}</div>").text
    assert f"an object of class {evil} by mask IoU 1.00" in text
    assert "<script" not in content


def test_one_image_with_one_object_is_said_in_the_singular(tmp_path):
    model = scene(probabilities=(0.55, 0.4, 0.05))
    evaluation = quiet(model, picture(tmp_path, (MASK, "a")))
    write_report(tmp_path / "r.html", "a run", Config(), evaluation, diagnosis=diagnose(model, evaluation))
    text = Page((tmp_path / "r.html").read_text("utf-8")).text
    assert "Each setting was tried alone, on 1 image with 1 object." in text
    assert "on 1 image with 1 instance from" in text
    assert re.search(r"\b1 (images|objects|instances|detections)\b", text) is None


def test_a_report_without_errors_says_so(tmp_path):
    model = scene()
    evaluation = quiet(model, picture(tmp_path, (MASK, "a")))
    diagnosis = diagnose(model, evaluation)
    write_report(tmp_path / "r.html", "a run", Config(), evaluation, diagnosis=diagnosis)
    text = Page((tmp_path / "r.html").read_text("utf-8")).text
    assert "No object was missed." in text
    assert "No detection above the score threshold is false." in text
