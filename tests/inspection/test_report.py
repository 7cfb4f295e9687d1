"""The report: well-formed, self-contained HTML for any detections, record and names."""

import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

from guesses import guesses
from maskrcnn import RLE, Config, Detections
from maskrcnn.data.table import Dataset
from maskrcnn.drawing import shrunk
from maskrcnn.evaluation import Evaluation, _score
from maskrcnn.evaluation.tide import judge
from maskrcnn.inspection.charts import (
    MAX_POINTS,
    Axis,
    Series,
    line_chart,
    number,
    reliability_chart,
    smooth,
    thinned,
    ticks,
)
from maskrcnn.inspection.curves import LOSSES
from maskrcnn.inspection.gallery import SIDE, best_and_worst, picture
from maskrcnn.inspection.report import write_report, write_run_report
from pages import Page

SCORED = ["quality", "errors", "classes", "images"]


def evaluation(data: Dataset, found: list[Detections], threshold: float = 0.5) -> Evaluation:
    scores, image_scores = _score(data, found, threshold)
    return Evaluation({**scores, "unreadable": []}, data, found, image_scores)


def nothing(data: Dataset) -> list[Detections]:
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int), [], []
    return [Detections(*none, data.hw(i)) for i in range(len(data))]


def write_record(folder, steps: int, scores: list[dict]) -> None:
    (folder / "config.yaml").write_text(Config().to_yaml())
    lines = [
        {"kind": "step", "step": k + 1, **dict.fromkeys(LOSSES, 1 / (k + 1)), "lr": 1e-4, "seconds": 0.5, "waited": 0.01, "images": 2, "skipped": 0}
        for k in range(steps)
    ]  # fmt: skip
    lines += [{"kind": "validation", "step": steps, **s} for s in scores]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def page_of(folder, found: Evaluation | None, run=None, **more) -> Page:
    write_report(folder / "r.html", "a run", Config(), found, run=run, **more)
    html = (folder / "r.html").read_text("utf-8")
    assert len(html) < 3_000_000
    page = Page(html)
    assert all(ref.startswith(("#", "data:image/jpeg;base64,")) for ref in page.references)
    assert {ref[1:] for ref in page.references if ref.startswith("#")} == set(page.sections)
    for chart in re.findall(r'<svg [^>]*role="img".*?</svg>', html):
        assert re.search(r'<polyline[^>]*points="[^"]|<rect class="bar"', chart), "a chart without data"
    assert not re.search(r"@import|url\(|<script|\bnan\b|\binf\b", re.sub(r'"data:[^"]*"', "", html))
    return page


@pytest.fixture(scope="module")
def found(shapes) -> Evaluation:
    return evaluation(shapes, guesses(shapes, np.random.default_rng(0), 2))


def test_report_of_a_run_shows_everything(found, tmp_path):
    write_record(tmp_path, 700, [found.scores])
    page = page_of(tmp_path, found, run=tmp_path, provenance={"step": 7, "data": {"images": 3}})
    assert page.sections == ["losses", "progress", *SCORED, "settings"]
    for words in (
        *LOSSES,
        "Throughput",
        "2.0% of its step time waiting for images",
        "Learning rate",
        "expected calibration error",
        "duplicate",
        "backbone",
        "torch",
    ):
        assert words in page.text
    pictures = [v for tag, v in page.tags if tag == "img"]
    assert len(pictures) == 2 * len(found.data)  # ground truth and detections of 6 worst and 6 best images
    assert all(v["alt"] for v in pictures)
    charts = [v for tag, v in page.tags if tag == "svg" and "aria-hidden" not in v]
    assert len(charts) == 6 + 3 + 2
    assert all(v["role"] == "img" and v["aria-label"] for v in charts)
    assert sum(tag == "caption" for tag, _ in page.tags) == sum(tag == "table" for tag, _ in page.tags) > 5
    assert all(v["scope"] in ("row", "col") for tag, v in page.tags if tag == "th")


@pytest.mark.parametrize("validations", [0, 1, 3])
def test_a_run_with_few_or_no_validations(found, tmp_path, validations):
    write_record(tmp_path, 3, [found.scores] * validations)
    page = page_of(tmp_path, found if validations else None, run=tmp_path)
    score_sections = SCORED if validations else ["scores"]
    assert page.sections == ["losses", "progress", *score_sections, "settings"]
    assert ("no validation" in page.text) == (validations == 0)


def test_without_a_run_there_are_no_curves(found, tmp_path):
    assert page_of(tmp_path, found).sections == [*SCORED, "settings"]
    assert page_of(tmp_path, found, run=tmp_path / "no such run").sections == [*SCORED, "settings"]


def test_no_detections_no_instances_or_no_images(shapes, tmp_path):
    page = page_of(tmp_path, evaluation(shapes, nothing(shapes)))
    assert "There are no detections" in page.text
    empty = shapes.take(np.flatnonzero(shapes.counts == 0)[:1])
    blank = dataclasses.replace(shapes.take([0]), image_index=empty.image_index, labels=empty.labels, masks=empty.masks)
    page = page_of(tmp_path, evaluation(blank, nothing(blank)))
    assert "There are no instances" in page.text
    found = guesses(shapes.take([0]), np.random.default_rng(0), 3)
    assert "There are no instances" in page_of(tmp_path, evaluation(blank, found)).text
    assert "There are no images" in page_of(tmp_path, evaluation(shapes.take([]), [])).text


def test_user_text_is_escaped(shapes, tmp_path):
    evil = '"><script>alert(1)</script>&'
    names = [evil, *shapes.class_names[1:]]
    data = dataclasses.replace(
        shapes, class_names=names, names=[evil + n for n in shapes.names], source=tmp_path / "<i>x.csv"
    )
    detections = guesses(data, np.random.default_rng(0), 2)
    result = evaluation(data, detections)
    result.scores["unreadable"] = [evil]
    config = Config().changed(model={"backbone": evil})
    write_report(tmp_path / "r.html", evil, config, result, provenance={evil: evil})
    page = Page((tmp_path / "r.html").read_text("utf-8"))
    assert not any(tag in ("script", "i") and not values.get("style") for tag, values in page.tags)
    assert not any(name.startswith("on") for _, values in page.tags for name in values)
    assert page.text.count(evil) > 5
    assert any(evil in values.get("alt", "") for tag, values in page.tags if tag == "img")


def test_names_run_in_the_direction_of_their_letters(shapes, tmp_path):
    """Every element that holds a user's text alone lets its letters decide; fonts of other scripts stand in reserve."""
    names = ["خلية", "细胞", "🦠", *shapes.class_names[3:]]
    data = dataclasses.replace(shapes, class_names=names, names=["صورة " + n for n in shapes.names])
    result = evaluation(data, guesses(data, np.random.default_rng(0), 2))
    write_report(tmp_path / "r.html", "تدريب", Config(), result, provenance={"البيانات": "خلايا"})
    html = (tmp_path / "r.html").read_text("utf-8")
    body = html.partition("<body>")[2]
    for text in re.findall(r"<(\w+)([^<>]*)>([^<>]*[\u0600-\u06ff][^<>]*)", body):
        tag, attributes, _ = text
        assert 'dir="auto"' in attributes or tag == "title", text
    assert len(re.findall(r'<span dir="auto">(?:خلية|细胞|🦠)</span></li>', body)) == 3
    style = html.partition("</style>")[0]
    for font in ("Noto Sans CJK SC", "Noto Sans Arabic", "Noto Color Emoji"):
        assert font in style


def test_an_unfinished_line_of_the_record_is_ignored(found, tmp_path):
    write_record(tmp_path, 5, [found.scores])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "st')
    assert "5 steps" in page_of(tmp_path, None, run=tmp_path).text


def test_skipped_steps_leave_gaps(tmp_path):
    write_record(tmp_path, 3, [])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["skipped"] = 3
        for name in LOSSES:
            del line[name]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = page_of(tmp_path, None, run=tmp_path)
    assert "3 steps skipped" in page.text
    assert page.text.count("The curve begins with the first step that does.") == len(LOSSES)


@pytest.mark.parametrize("missing", ["lr", "images", "loss"])
def test_a_curve_without_values_is_a_sentence(tmp_path, missing):
    write_record(tmp_path, 4, [])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line[missing] = None
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = page_of(tmp_path, None, run=tmp_path).text
    assert text.count("No step has recorded a finite value yet.") == 1


def test_a_chart_without_points_shows_its_description():
    line = Series("kept out of the legend", np.arange(3.0), np.full(3, np.nan))
    other = Series("shown", np.arange(3.0), np.arange(3.0))
    x, y = Axis("recall", 0, 1), Axis("precision", 0, 1)
    for chart in (
        line_chart("Title", "Nothing < was found.", x, y, []),
        line_chart("Title", "Nothing < was found.", x, y, [line]),
        reliability_chart("Title", "Nothing < was found.", np.linspace(0, 1, 3), np.full(2, np.nan), np.zeros(2)),
    ):
        assert "<svg" not in chart
        assert "Nothing &lt; was found." in chart
    chart = line_chart("Title", "One line.", x, y, [line, other])
    assert "shown" in chart
    assert "kept out" not in chart


def test_a_failed_write_is_reported_and_keeps_the_old_page(tmp_path, monkeypatch):
    write_record(tmp_path, 2, [])
    messages: list[str] = []
    write_run_report(tmp_path, None, 2, messages.append)
    assert messages == []
    before = (tmp_path / "report.html").read_text()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("maskrcnn.files.os.replace", fail)
    write_run_report(tmp_path, None, 2, messages.append)
    assert len(messages) == 1
    assert "No space left" in messages[0]
    assert (tmp_path / "report.html").read_text() == before
    assert not list(tmp_path.glob(".report*"))


def test_a_missing_image_is_reported(shapes, tmp_path):
    data = dataclasses.replace(shapes, files=[tmp_path / "gone.png"] * len(shapes))
    page = page_of(tmp_path, evaluation(data, guesses(shapes, np.random.default_rng(0))))
    assert page.text.count("can no longer be read") == len(shapes)


def test_best_and_worst_do_not_share_an_image(found, shapes):
    best, worst = best_and_worst(found)
    assert len(best) == len(worst) == 6
    assert not set(best) & set(worst)
    assert found.image_scores[best].min() >= found.image_scores[worst].max()
    single = evaluation(shapes.take([1]), guesses(shapes.take([1]), np.random.default_rng(0)))
    assert best_and_worst(single) == ([], [0])


def test_captions_count_detections_above_the_threshold(found):
    judgement = judge(found.data, found.detections)
    shown = picture(found, judgement, 0)
    above_threshold = found.detections[0].scores >= 0.5
    assert sum(shown.kinds.values()) == above_threshold.sum()
    assert shown.n_truth - shown.n_missed == shown.kinds.get("correct", 0)


@pytest.mark.parametrize("hw", [(900, 600), (50, 80), (420, 420)])
def test_shrunk_masks_equal_nearest_neighbour_resizing(hw, rng):
    y, x = np.mgrid[: hw[0], : hw[1]]
    disc = (y - hw[0] * 0.6) ** 2 + (x - hw[1] * 0.3) ** 2 < (min(hw) * 0.35) ** 2
    factor = SIDE / max(hw)
    small_hw = round(hw[0] * factor), round(hw[1] * factor)
    expected = np.asarray(Image.fromarray(disc).resize(small_hw[::-1], Image.Resampling.NEAREST))
    assert (shrunk(RLE.from_mask(disc), small_hw).to_mask() == expected).mean() > 0.999
    assert shrunk(RLE.empty(hw), small_hw) == RLE.empty(small_hw)
    full = RLE.from_mask(np.ones(hw, bool))
    assert shrunk(full, small_hw).area == small_hw[0] * small_hw[1]


def test_numbers_ticks_and_smoothing():
    assert [number(v) for v in (0, 0.00025, 0.0123, 12.34, 4560, None, float("nan"))] == ["0", "2.5e-4", "0.0123", "12.3", "4,560", "–", "–"]  # fmt: skip
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks(3, 237) == pytest.approx([50, 100, 150, 200])
    x = np.arange(10_000.0)
    xs, ys = thinned(x, np.where(x % 10 == 0, np.nan, 2 * x))
    assert len(xs) == MAX_POINTS
    assert ys == pytest.approx(2 * xs)
    assert smooth(np.array([1.0, np.nan, 3.0]), 3).tolist() == [1, 2, 3]
    assert len(smooth(np.arange(2.0), 5)) == 2
