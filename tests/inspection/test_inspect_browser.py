"""The page of `maskrcnn inspect` in a browser: cells, sliders that repeat the program's choices, and the way back."""

import re
from copy import copy
from dataclasses import replace

import numpy as np
import pytest

import maskrcnn
from browser import chromium, open_page
from lively import predictor
from maskrcnn import RLE
from maskrcnn.detection.boxes import suppress
from maskrcnn.detection.conventions import DETECTRON2, MATTERPORT, NATIVE, TORCHVISION
from maskrcnn.detection.select import candidate_score, keep_detections, reaches
from maskrcnn.detection.stages import ClassCandidates
from maskrcnn.inspection.explain import FOUND
from maskrcnn.inspection.inspect_page import inspect_page, trace_picture
from maskrcnn.inspection.replay import replay

VARIANTS = {
    "native": (NATIVE, {}, {"box_voting": True, "mask_scoring": True}),
    "plain": (NATIVE.changed(smallest_proposal=12.0, smallest_detection=14.0), {"pyramid": "single"}, {}),
    "torchvision": (TORCHVISION, {"norm": "batch", "box_convs": 2, "box_layers": 1, "rpn_convs": 2}, {}),
    "detectron2": (DETECTRON2, {}, {"box_voting": True}),
    "matterport": (MATTERPORT, {"mask_deconv_channels": 24}, {"box_voting": True}),
}

SETTINGS = [
    {},
    {"proposalThreshold": 0.5},
    {"proposalThreshold": 0.8, "score": 0.1},
    {"proposalThreshold": 0.95, "threshold": 0.6, "score": 0.06},
    {"proposals": 25, "score": 0.1, "threshold": 0.05},
    {"score": 0.06, "threshold": 0.95},
    {"score": 0.35, "detections": 3},
    {"score": 0.06, "threshold": 0.4, "detections": 7, "proposals": 31, "proposalThreshold": 0.4},
]


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


class Inspected:
    """A model, a picture, its trace, what the page chooses from, and the page itself, once it is opened."""

    def __init__(self, folder, variant, truth=None, hw=(100, 128)):
        conventions, model, predict = VARIANTS[variant]
        self.model = predictor(conventions, proposal_nms_threshold=0.3, **model).changed(nms_threshold=0.2, **predict)
        self.image = np.random.default_rng(0).integers(0, 256, (*hw, 3), np.uint8)
        self.trace = self.model.trace(self.image)
        if truth is not None:
            self.trace = self.model.trace(self.image, truth(self.trace))
        self.replay = replay(self.model, self.image, self.trace)
        self.path = folder / "page.html"
        self.path.write_text(inspect_page(self.model, "a <b> picture", self.trace, self.replay), "utf-8")

    def opened(self, browser):
        result = copy(self)
        result.page = open_page(browser, self.path)
        return result

    def choose(self, settings):
        """What the page chooses under its settings, changed by `settings`: rows, boxes and scores."""
        return self.page.evaluate(
            """changes => {
              const changed = { ...modelSettings, ...changes }, { kept } = chooseProposals(changed);
              const chosen = chooseDetections(changed, kept), found = chosen.found;
              return { proposals: kept, kept: chosen.kept, rows: found.map(one => one.row),
                boxes: found.map(one => pictureBox(one.box)), units: found.map(one => Array.from(one.box)),
                scores: found.map(one => one.score), masks: found.map(one => one.mask) };
            }""",
            settings,
        )

    def close(self):
        assert self.page.faults == []
        self.page.close()


@pytest.fixture(scope="module", params=VARIANTS)
def inspected(request, browser, tmp_path_factory):
    result = Inspected(tmp_path_factory.mktemp("inspect"), request.param).opened(browser)
    yield result
    result.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return Inspected(tmp_path_factory.mktemp("native"), "native")


@pytest.fixture
def native(written, browser):
    result = written.opened(browser)
    yield result
    result.close()


def changed_model(model, settings):
    """The model under settings of the page, and its settings of prediction."""
    proposing = {"proposalThreshold": "proposal_nms_threshold", "proposals": "proposals"}
    predicting = {"threshold": "nms_threshold", "score": "score_threshold", "detections": "detections"}
    changed = model.proposing(**{proposing[k]: v for k, v in settings.items() if k in proposing})
    return changed.changed(**{predicting[k]: v for k, v in settings.items() if k in predicting})


@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_the_page_makes_the_choices_of_the_package(inspected, number):
    """The same rows and, to the bit, the same boxes as suppression and selection give for the embedded candidates."""
    model, data = changed_model(inspected.model, SETTINGS[number]), inspected.replay
    conventions, network, predict = model.conventions, model.config.model, model.config.predict
    eligible = np.flatnonzero(data.is_eligible)
    columns = data.boxes[eligible], data.rank[eligible], data.group[eligible], np.zeros(len(eligible), np.int64)
    threshold, shifted = network.proposal_nms_threshold, conventions.groups_shifted
    proposals = eligible[suppress(*columns, 1, threshold, network.proposals, shifted)]
    chosen = inspected.choose(SETTINGS[number])
    assert chosen["proposals"] == proposals.tolist()
    classes = data.classes
    members = np.isin(classes.candidate, proposals) & reaches(classes.scores, candidate_score(predict), conventions)
    rows = np.flatnonzero(members)
    selection = keep_detections(
        ClassCandidates(
            classes.boxes[rows], classes.scores[rows], classes.labels[rows], np.zeros(len(rows), np.int64), rows,
            classes.is_large[rows] & reaches(classes.scores[rows], predict.score_threshold, conventions),
        ), 1, len(model.class_names) + 1, predict, conventions,
    )  # fmt: skip
    kept = rows[selection.candidate_index]
    assert chosen["kept"] == kept.tolist()
    assert set(chosen["rows"]) <= set(chosen["kept"])
    box_of = dict(zip(kept.tolist(), selection.boxes, strict=True))
    for row, box in zip(chosen["rows"], chosen["units"], strict=True):
        assert box == box_of[row].tolist()


@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_the_page_shows_what_the_program_predicts_under_changed_settings(inspected, number):
    settings = SETTINGS[number]
    model = changed_model(inspected.model, settings)
    chosen = inspected.choose(settings)
    if model.config.predict.mask_scoring and {"proposals", "proposalThreshold"} & set(settings):
        model = model.changed(mask_scoring=False)  # the page lacks the masks of other proposals, and says so
        found = model.predict(inspected.image)
        assert len(chosen["kept"]) == len(found)
        return
    found = model.predict(inspected.image)
    assert len(found) > 0
    assert len(chosen["rows"]) == len(found)
    atol = 0 if model.conventions.normalized_boxes else 1e-3
    assert np.allclose(chosen["boxes"], found.boxes, atol=atol)
    assert np.allclose(chosen["scores"], found.scores, atol=1e-5)
    labels = inspected.replay.classes.labels[chosen["rows"]]
    assert [model.class_ids[k - 1] for k in labels] == found.class_ids.tolist()


def test_known_masks_are_those_of_the_program(inspected):
    chosen = inspected.choose({"threshold": 0.6, "score": 0.06})
    found = inspected.model.changed(nms_threshold=0.6, score_threshold=0.06).predict(inspected.image)
    assert len(found) == len(chosen["masks"]) > 0
    for mask, rle in zip(chosen["masks"], found.rles, strict=True):
        assert mask >= 0
        difference = np.logical_xor(inspected.replay.masks.rles[mask].to_mask(), rle.to_mask()).sum()
        assert difference <= 2  # the mask head may round the last bit otherwise in another batch


def test_sliders_change_the_page_at_once(native):
    page = native.page
    slider = page.locator("input[data-setting=proposalThreshold]")
    before = page.locator("#proposal-counts").inner_text()
    assert f"{len(native.trace.proposals.boxes)} proposals" in before
    picture = page.locator("#proposal-view").screenshot()
    slider.focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("settings.proposalThreshold === 0.5")
    n_kept = len(native.choose({"proposalThreshold": 0.5})["proposals"])
    page.wait_for_function(f"document.getElementById('proposal-counts').textContent.includes('{n_kept} proposals')")
    assert page.locator("#proposal-counts").inner_text() != before
    assert page.locator("#proposal-view").screenshot() != picture
    score = page.locator("input[data-setting=score]")
    score.fill("0.06")
    page.wait_for_function("selection.found.length > 30")
    assert page.locator("#detection-rows tr").count() == page.evaluate("selection.found.length")
    page.locator("#reset").click()
    page.wait_for_function("settings.score === modelSettings.score")
    assert page.locator("#proposal-counts").inner_text() == before
    assert page.locator("#detection-rows tr").count() == len(native.trace.detections)
    assert page.locator("#reset").is_disabled()


def test_a_box_without_a_mask_is_said(native):
    native.page.locator("input[data-setting=proposalThreshold]").fill("0.95")
    native.page.locator("input[data-setting=score]").fill("0.06")
    native.page.locator("input[data-setting=threshold]").fill("0.95")
    native.page.wait_for_function("document.getElementById('selection-counts').textContent.includes('without a mask')")
    row = native.page.evaluate("selection.found.find(one => one.mask < 0).row")
    native.page.locator("#follow-list").select_option(str(row))
    assert native.page.locator("#mask-text").inner_text() == "This page has no mask for this box."
    assert native.page.locator("#mask-cells").is_hidden()


def test_a_picked_cell_shows_its_anchors_with_objectness(native):
    page, trace = native.page, native.trace
    page.locator("#cell-level").select_option("1")
    view = page.locator("#cell-view")
    box = view.bounding_box()
    _, input_h, input_w, _ = trace.network_input.shape
    stride = trace.strides[1]
    row, column = 3, 5
    x, y = (column + 0.4) * stride / input_w * box["width"], (row + 0.6) * stride / input_h * box["height"]
    view.click(position={"x": x, "y": y})
    assert page.locator("#cell-row").input_value() == str(row)
    assert page.locator("#cell-column").input_value() == str(column)
    assert_cell(page, trace, 1, row, column)
    view.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    assert_cell(page, trace, 1, row + 1, column - 1)
    page.locator("#cell-row").fill("999")
    page.locator("#cell-row").press("Enter")
    last = trace.pyramid_maps[1].shape[1] - 1
    assert_cell(page, trace, 1, last, column - 1)
    page.locator("#cell-level").select_option("0")
    assert page.locator("#cell-row").input_value() == str(2 * last + 1)


def assert_cell(page, trace, level, row, column):
    """The table lists the anchors of the cell: sizes, objectness and fate."""
    probabilities = trace.rpn_class_probabilities[level][0, row, column].reshape(-1, 2)[:, 1]
    k, columns = len(probabilities), trace.rpn_class_probabilities[level].shape[2]
    first = (row * columns + column) * k
    anchors = trace.anchors[level][first : first + k]
    drawn = page.evaluate("anchorsOf(cell).map(anchor => anchor.box)")
    assert np.allclose(drawn, anchors, atol=1e-3)
    start = sum(len(a) for a in trace.anchors[:level])
    cells = [text.split("\t") for text in page.locator("#cell-anchors tr").all_inner_texts()]
    assert len(cells) == k
    for number, (_, fate, objectness, size) in enumerate(cells):
        width, height = anchors[number, 2:] - anchors[number, :2]
        assert size == f"{width:.1f} × {height:.1f} px"
        assert float(objectness) == pytest.approx(probabilities[number], abs=6e-5)
        rows = np.flatnonzero(trace.candidates.anchor == start + first + number)
        words = {"kept": "proposal", "suppressed": "suppressed by", "cut by the limit": "cut by the limit"}
        expected = words[trace.candidates.fate[rows[0]]] if len(rows) else "not among the 50 best of its level"
        assert fate.startswith(expected)


def test_a_detection_is_followed_back_to_its_anchor(inspected):
    page, trace = inspected.page, inspected.trace
    page.evaluate("Object.assign(settings, modelSettings); choose(); draw()")
    number = min(2, len(trace.detections) - 1)
    page.locator("#detection-rows button").nth(number).click()
    origin = trace.origin(number)
    lines = page.locator("#origin li").all_inner_texts()
    name = trace.detections.class_names[number]
    assert lines[0].startswith(f"Detection: {name}, score {trace.detections.scores[number]:.3f}")
    class_score = trace.class_candidates.scores[origin.class_candidate]
    assert f"{name} scores {class_score:.3f}" in lines[1]
    assert f"proposal {origin.proposal + 1}," in lines[2]
    assert f"row {origin.row}, column {origin.column}:" in lines[3]
    assert lines[3].startswith(f"Anchor {origin.cell_anchor + 1} of ")
    assert [page.locator(f"#cell-{key}").input_value() for key in ("level", "row", "column")] == [
        str(origin.level), str(origin.row), str(origin.column)
    ]  # fmt: skip
    x, y = trace.sampling_points(origin.proposal)
    points = np.array(page.evaluate("samplingPoints(followedCandidate())"))
    assert len(points) == len(x) * len(y)
    assert np.allclose(points[: len(x), 0], x, atol=1e-3)
    assert np.allclose(points[:: len(x), 1], y, atol=1e-3)
    scores = dict(text.split("\n") for text in page.locator("#head-scores li").all_inner_texts())
    assert float(scores[name]) == pytest.approx(class_score, abs=6e-5)
    background = trace.proposals.class_probabilities[origin.proposal, 0]
    assert float(scores["background"]) == pytest.approx(background, abs=6e-5)
    logits = np.array(page.evaluate("Array.from(logitsOf(followedDetection().mask))")) / 10
    expected = trace.masks.logits[origin.mask].ravel()
    assert (np.sign(logits) == np.sign(expected)).all()
    assert np.abs(logits - expected.clip(-12.7, 12.7)).max() <= 0.101
    proposal_box = page.evaluate("candidateBox(followedCandidate())")
    assert np.allclose(proposal_box, origin.proposal_box, atol=1e-3)


def test_a_click_on_the_picture_follows_the_detection_there(native):
    page, trace = native.page, native.trace
    for key in ("detection-view", "selection-view"):
        for number in (3, 0):
            frame = page.locator(f"#{key}").bounding_box()
            x1, y1, x2, y2 = trace.masks.boxes[trace.detected_mask[number]]
            smaller = page.evaluate(
                "([x, y]) => pick(selection.found.map(one => [inputBox(one.box), one.row]), x, y)",
                [float(x1 + x2) / 2, float(y1 + y2) / 2],
            )
            scale = frame["width"] / trace.network_input.shape[2]
            position = {"x": float(x1 + x2) / 2 * scale, "y": float(y1 + y2) / 2 * scale}
            page.locator(f"#{key}").click(position=position)
            assert page.evaluate("followed") == smaller


def test_a_proposal_shows_what_it_suppresses(native):
    page, candidates = native.page, native.trace.candidates
    rows, counts = np.unique(candidates.suppressed_by[candidates.suppressed_by >= 0], return_counts=True)
    winner = int(rows[counts.argmax()])
    rank = int(np.flatnonzero(native.trace.proposals.candidate == winner)[0]) + 1
    page.locator("#proposal-number").fill(str(rank))
    page.locator("#proposal-number").press("Enter")
    assert page.locator("#proposal-chosen").inner_text().startswith(f"Proposal {rank} has objectness")
    assert f"suppresses {counts.max()} weaker candidates" in page.locator("#proposal-chosen").inner_text()
    assert page.evaluate(f"suppressedBy({winner})") == np.flatnonzero(candidates.suppressed_by == winner).tolist()


def truth_beside(trace):
    """Two detections as objects, one object that nobody finds, and one of another class than is detected."""
    detections = trace.detections
    h, w = detections.hw
    small = RLE.from_mask(np.pad(np.ones((3, 4), bool), ((1, h - 4), (1, w - 5))))
    objects = [(detections.rles[k], detections.class_ids[k]) for k in (0, 1)]
    other = next(c for c in ("box", "disc", "star", "triangle") if c != detections.class_ids[2])
    return [*objects, (small, "disc"), (detections.rles[2], other)]


def test_a_missed_object_says_where_it_was_lost(browser, tmp_path):
    inspected = Inspected(tmp_path, "native", truth_beside).opened(browser)
    page, trace = inspected.page, inspected.trace
    explanations = [trace.explain(k) for k in range(4)]
    missed = [k for k, explanation in enumerate(explanations) if explanation.cause != FOUND]
    assert 2 in missed
    buttons = page.locator("[data-object]")
    assert buttons.count() == len(missed)
    for number, k in enumerate(missed):
        buttons.nth(number).press("Enter")
        text = page.locator("#truth-text").inner_text()
        assert explanations[k].cause in text
        assert explanations[k].detail[1:] in text
    frame = page.locator("#truth-view").bounding_box()
    scale = frame["width"] / trace.network_input.shape[2]
    page.locator("#truth-view").click(position={"x": 3 * scale, "y": 2.5 * scale})
    assert page.locator("#truth-text").inner_text().startswith("Object 3, disc: ")
    table = page.locator("#truth table").first.inner_text()
    for name in ("rpn_class_loss", "rpn_bbox_loss", "mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss", "loss"):
        assert re.search(rf"{name}\t.*\t{trace.lesson.losses[name]:.4f}", table)
    assert page.faults == []


def test_a_picture_without_detections_has_a_page(browser, tmp_path, monkeypatch):
    monkeypatch.setitem(VARIANTS, "blind", (NATIVE, {}, {"score_threshold": 1.0}))
    inspected = Inspected(tmp_path, "blind").opened(browser)
    assert len(inspected.trace.detections) == 0
    assert inspected.page.locator("#follow-list").inner_text() == "none"
    assert "Follow a detection" in inspected.page.locator("#pool-text").inner_text()
    inspected.page.locator("input[data-setting=score]").fill("0.1")
    inspected.page.wait_for_function("selection.found.length > 0")
    inspected.page.locator("#follow-next").click()
    assert inspected.page.locator("#origin li").count() == 4
    assert inspected.page.faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(written, browser, scheme):
    size = {"viewport": {"width": 390, "height": 800}, "color_scheme": scheme}
    page = open_page(browser, written.path, **size)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for key in ("cell-view", "detection-view"):
        assert page.locator(f"#{key}").bounding_box()["width"] > 300
    assert page.faults == []


def test_the_shipped_model_fills_a_small_page(browser, tmp_path):
    y, x = np.mgrid[:200, :200]
    centers = [(40, 50), (120, 60), (90, 140), (160, 150)]
    light = sum(1 / (1 + np.exp((np.hypot(x - cx, y - cy) - 12) / 1.5)) for cx, cy in centers)
    image = (20 + 150 * light[..., None] * np.ones(3)).astype(np.uint8)
    model = maskrcnn.load("nuclei")
    trace = model.trace(image)
    assert len(trace.detections) >= len(centers)
    path = tmp_path / "page.html"
    path.write_text(inspect_page(model, "discs", trace, replay(model, image, trace)), "utf-8")
    assert path.stat().st_size < 5_000_000
    page = open_page(browser, path)
    found = page.evaluate("selection.found.map(one => [...pictureBox(one.box), one.score])")
    expected = np.column_stack([trace.detections.boxes, trace.detections.scores])
    assert np.allclose(found, expected, atol=1e-3)
    assert page.faults == []


def test_a_bundle_has_a_page_without_backbone_maps_and_losses(browser, tmp_path):
    model = predictor()
    maskrcnn.export(model, tmp_path / "bundle", runtime="onnx")
    bundle = maskrcnn.load(tmp_path / "bundle")
    image = np.random.default_rng(1).integers(0, 256, (128, 128, 3), np.uint8)
    trace = bundle.trace(image)
    trace = replace(trace, truth=trace_picture(bundle, image, truth_beside(trace)).truth)
    path = tmp_path / "page.html"
    path.write_text(inspect_page(bundle, "of a bundle", trace, replay(bundle, image, trace)), "utf-8")
    page = open_page(browser, path)
    assert "does not hand out the maps" in page.locator("#maps").inner_text()
    assert "a bundle cannot be trained" in page.locator("#truth").inner_text()
    assert page.evaluate("selection.found.length") == len(trace.detections)
    assert page.faults == []
