"""What results show in a notebook: escaped, small, without folders, and never an exception."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from found import HOSTILE, detections
from guesses import guesses
from lively import predictor
from maskrcnn import RLE
from maskrcnn.data.images import read_image
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.evaluation import score
from maskrcnn.evaluation.metrics import Metrics
from maskrcnn.inspection.notebook import MAX_CLASSES, MAX_DETECTIONS, MAX_NOTES, last_name, without_folders
from maskrcnn.inspection.overlays import with_pixels
from maskrcnn.reading import Reading
from pages import Page
from samples import write_sample

MAX_BYTES = 400_000
FAILED = "cannot be shown"


def shown(result) -> Page:
    html = result._repr_html_()
    assert len(html) < MAX_BYTES
    assert FAILED not in html
    page = Page(html)
    assert all(reference.startswith("data:image/jpeg;base64,") for reference in page.references)
    assert not {tag for tag, _ in page.tags} & {"script", "html", "body", "link", "iframe"}
    assert not any(name.startswith("on") for _, values in page.tags for name in values)
    return page


def pictures(page: Page) -> int:
    return sum(tag == "img" for tag, _ in page.tags)


@pytest.mark.parametrize("n", [0, 1, MAX_DETECTIONS, MAX_DETECTIONS + 31])
def test_detections_show_a_picture_and_the_best_rows(n):
    page = shown(detections(n))
    assert pictures(page) == 1
    assert sum(tag == "tr" for tag, _ in page.tags) == (min(n, MAX_DETECTIONS) + 1 if n else 0)
    assert ("and 31 more" in page.text) == (n > MAX_DETECTIONS)
    assert f"{n} object" in page.text


def test_the_table_has_the_numbers_of_the_detections():
    found = detections(3)
    text = shown(found).text
    for k in range(3):
        assert f"{found.scores[k]:.3f}" in text
        assert f"{found.rles[k].area:,}" in text
        assert ", ".join(f"{v:.1f}" for v in found.boxes[k].tolist()) in text


def test_large_pictures_are_shrunk_and_their_masks_with_them():
    hw = (1500, 2400)
    page = shown(detections(40, hw, pixels=np.full((*hw, 3), 90, np.uint8)))
    assert pictures(page) == 1
    small = detections(3, hw, pixels=np.full((*hw, 3), 90, np.uint8)).overlay(600)
    assert small.size == (600, 375)
    mask = np.zeros(hw, bool)
    mask[300:900, 400:1600] = True
    one = detections(
        1,
        hw,
        rles=[RLE.from_mask(mask)],
        boxes=np.array([[400, 300, 1600, 900]], np.float32),
        pixels=np.zeros((*hw, 3), np.uint8),
    )
    painted = np.asarray(one.overlay(600)).any(-1)
    assert painted[80:220, 105:395].all()
    assert not painted[230:].any()
    assert not painted[:, 405:].any()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(name, tmp_path):
    found = detections(4, names=(name, "cell"), image=f"/home/someone/{name.replace('/', '_')}.png")
    page = shown(found)
    if len(name) < 60:
        assert name in page.text
    data = dataclasses.replace(write_sample(tmp_path), class_names=[name, "b", "c", "d"], notes=[name])
    page = shown(data)
    if len(name) < 60:
        assert name in page.text
    page = shown(score(data, guesses(data, np.random.default_rng(0))))
    if len(name) < 60:
        assert name in page.text


def test_names_keep_their_direction_to_themselves(tmp_path):
    html = detections(2, names=("תא גדול",))._repr_html_()
    assert re.search(r'<th scope="row" dir="auto">(<i [^>]*></i>)?תא גדול</th>', html)
    html = detections(2, image="תא.png")._repr_html_()
    assert "<bdi>תא.png</bdi>" in html


def test_no_folder_is_shown(tmp_path):
    folder = tmp_path / "private folder" / "data"
    data = write_sample(folder)
    data = dataclasses.replace(
        data,
        notes=[
            f"{folder}: images that are left out",
            f"{data.files[0]} is odd",
            f"{folder / 'masks'}: read",
            "/srv/other/place/x.csv: gone",
        ],
        problems=[Problem(Kind.UNREADABLE, str(data.files[0]), f"{data.files[0]} is damaged")],
    )
    model = predictor()
    found = model.predict(data.files[0])
    scores = score(data, guesses(data, np.random.default_rng(0)))
    scores["unreadable"] = [f"{data.files[1]}: damaged"]
    trace = dataclasses.replace(model.trace(data.files[0]))
    for result in (data, found, scores, trace, model.predict(str(data.files[0]))):
        texts = [result._repr_html_(), repr(result) if not isinstance(result, Metrics) else pretty(result)]
        for text in texts:
            for part in ("private folder", str(tmp_path), "/srv", "other/place"):
                assert part not in text
    assert "x.csv: gone" in shown(data).text
    assert "unreadable image: 1" in shown(data).text
    assert "1 image could not be read" in shown(scores).text


def pretty(result) -> str:
    class Printer:
        written = ""

        def text(self, text):
            self.written += text

    printer = Printer()
    result._repr_pretty_(printer, False)
    return printer.written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"C:\Users\me\x.csv: bad", "x.csv: bad"),
        ("see /a/b/c.png and /d/e.png", "see c.png and e.png"),
        ("3 px/mm and 1/2 of it", "3 px/mm and 1/2 of it"),
        ("train/first.png is odd", "train/first.png is odd"),
    ],
)
def test_folders_leave_a_sentence(text, expected, shapes):
    assert without_folders(text, shapes) == expected


def test_relative_folders_of_the_data_leave_too(shapes):
    data = dataclasses.replace(shapes, source=Path("secret/place/train.csv"), files=[Path("secret/place/images/a.png")])
    assert (
        without_folders("secret/place/train.csv, row 3; secret/place/images: 3 files", data)
        == "train.csv, row 3; images: 3 files"
    )
    assert without_folders("topsecret/place/x", data) == "topsecret/place/x"


def test_last_names():
    assert [last_name(p) for p in ("a.png", "/b/a.png", r"C:\b\a.png", "b/a.png")] == ["a.png"] * 4


def test_a_picture_that_was_not_kept_is_read_again(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(detections(1).pixels).save(path)
    found = dataclasses.replace(detections(1), pixels=None, image=str(path))
    assert pictures(shown(found)) == 1
    Image.new("RGB", (9, 9)).save(path)
    page = shown(found)
    assert pictures(page) == 0
    assert "a.png can no longer be read" in page.text
    path.write_bytes(b"no picture")
    assert "a.png can no longer be read" in shown(found).text
    path.unlink()
    assert "a.png can no longer be read" in shown(found).text
    assert "keep_pixels=True" in shown(dataclasses.replace(found, image=None)).text


def test_a_picture_is_read_again_as_the_model_read_it(tmp_path, rng):
    """Upside down by its EXIF orientation, and of 12 bits."""
    path = tmp_path / "a.tif"
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(rng.integers(0, 3000, (40, 60), np.uint16)).save(path, exif=exif)
    model = predictor()
    model.reading = Reading(white=4095, exif="ignore")
    found = model.predict(path)
    again = with_pixels(model.predict(path, keep_pixels=False))
    assert np.array_equal(again.pixels, found.pixels)
    assert not np.array_equal(again.pixels, read_image(path))


def test_a_data_set_whose_pictures_are_gone_still_shows_its_table(tmp_path):
    data = write_sample(tmp_path)
    assert pictures(shown(data)) == 4
    for path in data.files:
        path.unlink()
    page = shown(data)
    assert pictures(page) == 0
    assert page.text.count("can no longer be read") == 4
    assert "Classes" in page.text


def test_a_part_that_fails_becomes_a_sentence():
    found = detections(3)
    found.pixels = np.zeros((2, 2), float)
    html = found._repr_html_()
    assert FAILED in html
    assert "3 objects" in html


def test_a_data_set_shows_counts_and_findings(shapes):
    names = [f"class {k}" for k in range(MAX_CLASSES + 5)]
    data = dataclasses.replace(
        shapes, class_names=names, class_ids=names, notes=[f"note {k}" for k in range(MAX_NOTES + 3)]
    )
    page = shown(data)
    assert f"{len(data)} images with {data.n_instances} objects" in page.text
    assert "and 5 more" in page.text
    assert "and 3 more" in page.text
    counts = np.bincount(data.labels)[1:]
    assert re.search(rf"class {counts.argmax()}\s*{counts.max()}", page.text)
    assert pictures(shown(shapes.take([]))) == 0


def test_scores_show_each_class_and_kaggle(shapes):
    scores = score(shapes, guesses(shapes, np.random.default_rng(1)))
    text = shown(scores).text
    for name, of in scores["mask"]["per_class"].items():
        assert name in text
        assert f"{of['AP']:.3f}" in text
    for value in (scores["mask"]["AP"], scores["box"]["AP"], *scores["kaggle"]["per_threshold"]):
        assert f"{value:.3f}" in text
    many = {f"class {k}": of for k, of in enumerate([scores["mask"]["per_class"]["disc"]] * 40)}
    for kind in ("box", "mask"):
        scores[kind]["per_class"] = many
    assert f"and {40 - MAX_CLASSES} more" in shown(scores).text


def test_a_trace_shows_its_stages(rng):
    trace = predictor().trace(rng.integers(0, 256, (100, 128, 3), np.uint8))
    page = shown(trace)
    assert pictures(page) == 4
    for name, shape, unit, meaning in trace.stages:
        assert name in page.text
        assert shape in page.text
        assert unit in page.text
        assert meaning in page.text


def test_one_line_of_text():
    assert repr(detections(2, image="/home/me/a.png")) == "<Detections: 2 objects in a.png, 80 x 60 px>"
    assert "\n" not in repr(detections(500))


def test_no_colour_is_that_of_one_theme():
    """Text and ground come from the notebook, so that both themes are readable."""
    style = re.search(r"<style>(.*?)</style>", detections(1)._repr_html_(), re.DOTALL)[1]
    assert set(re.findall(r"(?<![-\w])color:\s*([^;}]+?)\s*[;}]", style)) == {"inherit"}
    assert set(re.findall(r"background:\s*([^;]+);", style)) <= {"transparent", "rgba(127, 127, 127, 0.16)"}
    assert all(
        ".maskrcnn.maskrcnn-view" in part for rule in re.findall(r"([^{}]+){", style) for part in rule.split(",")
    )
