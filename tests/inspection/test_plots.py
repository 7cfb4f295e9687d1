"""Figures of results: drawn without pyplot, for any names, and for results without anything in them."""

import dataclasses
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from found import HOSTILE, detections
from guesses import guesses
from lively import predictor
from maskrcnn import ImageError, UserError
from maskrcnn.detection.conventions import TORCHVISION
from maskrcnn.evaluation import score
from maskrcnn.inspection.overlays import objectness_map
from samples import write_sample

matplotlib = pytest.importorskip("matplotlib")


def drawn(figure) -> np.ndarray:
    """The picture that a notebook shows, (H, W, 3); every warning of the drawing is an error."""
    png, size = figure._repr_png_()
    picture = Image.open(io.BytesIO(png))
    assert abs(picture.width - 2 * size["width"]) <= 2
    assert max(size.values()) < 1400
    return np.asarray(picture.convert("RGB"))


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def test_a_figure_is_one_of_matplotlib():
    assert isinstance(detections(3).plot(), matplotlib.figure.Figure)


@pytest.mark.parametrize("hw", [(60, 80), (300, 20), (20, 700), (1, 1)])
def test_detections_of_any_shape(hw):
    found = detections(0, hw=(60, 80), names=("a", "b"))
    found = dataclasses.replace(found, hw=hw, pixels=np.full((*hw, 3), 7, np.uint8))
    figure = found.plot()
    drawn(figure)
    assert figure.axes[0].get_xlim() == (0, hw[1])
    assert figure.axes[0].get_ylim() == (hw[0], 0)


def test_a_legend_counts_several_classes():
    assert any("3 one" in text for text in texts(detections(5, names=("one", "two")).plot()))
    assert not any("one" in text for text in texts(detections(5, names=("one",)).plot()))


@pytest.mark.parametrize("name", [*HOSTILE, "细胞核", "_hidden", "\x00\x07", "tab\tand\nline", "👾", "größe"])
def test_any_name_is_drawn_as_text(name, tmp_path):
    data = dataclasses.replace(write_sample(tmp_path), class_names=[name, "b", "c", "d"], names=[f"{name}.png"] * 5)
    scores = score(data, guesses(data, np.random.default_rng(0)))
    for result in (detections(4, names=(name, "cell"), image=f"{name}.png"), data, scores):
        drawn(result.plot())


def test_a_data_set_without_pictures_or_objects(tmp_path):
    data = write_sample(tmp_path)
    drawn(data.take_instances(np.empty(0, np.int64)).plot())
    drawn(data.take([]).plot())
    drawn(data.take([2]).plot())
    data.files[0].unlink()
    assert any("no longer" in text for text in texts(data.plot()))


def test_many_classes_are_cut(shapes):
    names = [f"class {k:03d}" for k in range(100)]
    data = dataclasses.replace(shapes, class_names=names, class_ids=names)
    figure = data.plot()
    drawn(figure)
    assert any("16 most frequent of 100" in text for text in texts(figure))
    scores = score(shapes, guesses(shapes, np.random.default_rng(1)))
    for kind in ("box", "mask"):
        of = list(scores[kind]["per_class"].values())
        scores[kind]["per_class"] = {name: {**of[k % 4], "AP": k / 100} for k, name in enumerate(names)}
    figure = scores.plot()
    drawn(figure)
    shown = texts(figure)
    assert {"class 099", "class 000"} <= set(shown)
    assert "class 050" not in shown


def test_scores_that_are_undefined(shapes):
    scores = score(shapes.take([]), [])
    drawn(scores.plot())
    one_class = dataclasses.replace(shapes, labels=np.ones_like(shapes.labels), class_ids=["a"], class_names=["a"])
    drawn(score(one_class, guesses(one_class, np.random.default_rng(0))).plot())


def test_ap_at_each_threshold_averages_to_ap(shapes):
    scores = score(shapes, guesses(shapes, np.random.default_rng(2)))
    for kind in ("box", "mask"):
        table = scores[kind]["per_threshold"]
        assert len(table) == 10
        assert np.mean(table) == pytest.approx(scores[kind]["AP"])
        assert table[0] == scores[kind]["AP50"]
        assert table[5] == scores[kind]["AP75"]


@pytest.mark.parametrize("changes", [{}, {"pyramid": "single"}, {"conventions": TORCHVISION}])
@pytest.mark.parametrize("hw", [(100, 128), (128, 50), (31, 120)])
def test_a_trace_of_any_shape(changes, hw, rng):
    """Torchvision's models scale pictures to floats."""
    trace = predictor(**changes).trace(rng.integers(0, 256, (*hw, 3), np.uint8))
    figure = trace.plot()
    drawn(figure)
    assert [axes.get_title() for axes in figure.axes][1] == "objectness"
    x1, y1, x2, y2 = trace.window
    heat = objectness_map(trace)
    assert heat.shape == (y2 - y1, x2 - x1)
    assert 0 <= heat.min() <= heat.max() <= 1


def test_objectness_lies_where_its_anchor_lies(rng):
    """One cell of one level is certain: the map is hottest there."""
    trace = predictor().trace(rng.integers(0, 256, (128, 128, 3), np.uint8))
    for level in range(4):
        maps = [np.zeros_like(p) for p in trace.rpn_class_probabilities]
        row, column, stride = 1, 2, trace.strides[level]
        maps[level][0, row, column, 1] = 1.0
        maps[level][0, 0, 0, 0] = 1.0  # background
        heat = objectness_map(dataclasses.replace(trace, rpn_class_probabilities=tuple(maps)))
        y, x = np.unravel_index(heat.argmax(), heat.shape)
        assert (y // stride, x // stride) == (row, column)
        assert heat[0, 0] < 0.2


def test_a_picture_that_is_missing_is_an_error():
    with pytest.raises(UserError, match="keep_pixels"):
        dataclasses.replace(detections(1), pixels=None).plot()
    with pytest.raises(ImageError, match=r"gone\.png"):
        dataclasses.replace(detections(1), pixels=None, image="gone.png").plot()


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch, shapes, rng):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "maskrcnn.inspection.figures", raising=False)
    monkeypatch.delattr("maskrcnn.inspection.figures", raising=False)
    scores = score(shapes, guesses(shapes, rng))
    trace = predictor().trace(rng.integers(0, 256, (64, 64, 3), np.uint8))
    for result in (detections(1), shapes, scores, trace):
        assert "maskrcnn-view" in result._repr_html_()
        with pytest.raises(UserError, match=r"pip install 'maskrcnn\[plot\]'"):
            result.plot()


def test_no_global_state_changes(tmp_path):
    """Neither pyplot nor a backend is loaded, and no setting of matplotlib changes."""
    code = """
import sys, warnings, matplotlib
from pathlib import Path
from maskrcnn.data.dataset import read_pixels
from maskrcnn.data.synthetic import make_shapes
data = make_shapes(Path(sys.argv[1]), 3, seed=0, hw=(64, 64))
read_pixels(data, 0)  # silences Pillow's warning about large pictures
settings = lambda: list(dict.items(matplotlib.rcParams))  # reading the backend alone would choose one, and load pyplot
before, filters = settings(), list(warnings.filters)
data.plot()._repr_png_()
assert settings() == before
assert warnings.filters == filters
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_scores_are_json(shapes):
    scores = score(shapes, guesses(shapes, np.random.default_rng(0)))
    assert json.loads(json.dumps(scores)) == scores
