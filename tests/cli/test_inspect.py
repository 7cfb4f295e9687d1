"""`maskrcnn inspect`: pages beside an index, links that lead there and back, and errors for people."""

import json
import re
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

import maskrcnn
from lively import predictor
from maskrcnn.cli import SOME_UNREADABLE, main
from maskrcnn.data.synthetic import write_shapes
from pages import Page


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle of an untrained model that detects something, with the classes of `write_shapes`."""
    path = tmp_path_factory.mktemp("inspect") / "bundle"
    maskrcnn.export(predictor(), path, runtime="onnx")
    return path


@pytest.fixture
def data(tmp_path):
    return maskrcnn.open_dataset(write_shapes(tmp_path, 3, seed=3, hw=(96, 128)), say=lambda _: None)


def call(*arguments) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main([str(a) for a in arguments])
    return exit_info.value.code or 0


def parsed(path):
    """The page without its script; it references nothing outside itself but other pages."""
    html = path.read_text("utf-8")
    page = Page(re.sub("<script>.*</script>", "", html, flags=re.S))
    for reference in page.references:
        assert reference.startswith(("data:image/", "#")) or reference.endswith(".html")
    assert not re.search(r"https?://", html)
    return page


def test_one_picture_has_one_page(bundle, data, tmp_path, capsys):
    out = tmp_path / "deep" / "report.html"
    assert call("inspect", data.files[0], "--model", bundle, "-o", out, "--json") == 0
    printed = capsys.readouterr()
    found = maskrcnn.load(bundle).predict(data.files[0])
    assert json.loads(printed.out) == {"image": str(data.files[0]), "page": str(out), "detections": len(found)}
    assert f"wrote {out}" in printed.err
    page = parsed(out)
    stages = ["input", "maps", "anchors", "rpn", "proposals", "pool", "head", "selection", "masks", "detections"]
    assert page.sections == stages
    assert data.files[0].name in page.text
    assert list(out.parent.iterdir()) == [out]


def test_several_pictures_have_an_index(bundle, data, tmp_path, capsys):
    folder = tmp_path / "some pictures"
    (folder / "sub").mkdir(parents=True)
    names = ["a b.png", "a b.bmp", "sub/größe #1.png"]
    for name, file in zip(names, data.files, strict=True):
        Image.open(file).save(folder / name)
    out = tmp_path / "all of them.html"
    assert call("inspect", folder, "--model", bundle, "-o", out, "--json") == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(entries) == 3
    links = {unquote(r) for r in parsed(out).references if not r.startswith(("data:", "#"))}
    assert len(links) == 3
    for link in links:
        page = out.parent / link
        back = [r for r in parsed(page).references if r.endswith(".html")]
        assert len(back) == 1
        assert (page.parent / unquote(back[0])).resolve() == out.resolve()
    assert {str(out.parent / link) for link in links} == {entry["page"] for entry in entries}


def test_the_truth_is_found_by_the_name_of_the_picture(bundle, data, tmp_path, capsys):
    moved = tmp_path / "elsewhere" / data.files[1].name
    moved.parent.mkdir()
    moved.write_bytes(data.files[1].read_bytes())
    out = tmp_path / "report.html"
    assert call("inspect", moved, "--model", bundle, "--truth", data.source, "-o", out, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["objects"] == data.counts[1]
    assert 0 <= report["missed"] <= report["objects"]
    assert report["losses"] is None  # a bundle cannot be trained
    page = parsed(out)
    assert page.sections[-1] == "truth"
    assert "a bundle cannot be trained" in page.text
    assert f"; missed: {report['missed']:,}." in page.text


def test_settings_are_those_of_predict(bundle, data, tmp_path, capsys):
    out = tmp_path / "report.html"
    changes = ["--score-threshold", "0.6", "--proposals", "20"]
    assert call("inspect", data.files[0], "--model", bundle, "-o", out, "--json", *changes) == 0
    found = maskrcnn.load(bundle).changed(score_threshold=0.6).with_proposals(20).predict(data.files[0])
    assert json.loads(capsys.readouterr().out)["detections"] == len(found)
    assert '"proposals":20,' in out.read_text("utf-8")


def test_unreadable_pictures_are_skipped(bundle, data, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    out = tmp_path / "report.html"
    assert call("inspect", data.files[0], broken, "--model", bundle, "-o", out) == SOME_UNREADABLE
    assert "skipped: " in capsys.readouterr().err
    assert len([r for r in parsed(out).references if r.endswith(".html")]) == 2  # one entry: picture and name
    assert call("inspect", broken, "--model", bundle, "-o", tmp_path / "one.html") == 1
    assert "broken.png" in capsys.readouterr().err
    assert not (tmp_path / "one.html").exists()
    assert call("inspect", broken, broken, "--model", bundle, "-o", tmp_path / "none.html") == 1
    assert "none of the pictures could be read" in capsys.readouterr().err
    assert not (tmp_path / "none.html").exists()


def test_mistakes_are_said_before_anything_is_written(bundle, data, tmp_path, capsys):
    out, stranger = tmp_path / "report.html", tmp_path / "stranger.png"
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(stranger)
    lines = {
        f"inspect {data.files[0]} --model {bundle} -o report": "write it like report.html",
        f"inspect {data.files[0]} --model {bundle} -o report.png": "write it like report.html",
        f"inspect {tmp_path / 'missing.png'} --model {bundle} -o {out}": "missing.png",
        f"inspect {tmp_path}/*.gif --model {bundle} -o {out}": "nothing matches",
        f"inspect {data.files[0]} {stranger} --model {bundle} -o {out} --truth {data.source}": "has no picture named stranger.png",
        f"inspect {data.files[0]} --model {bundle}": "maskrcnn inspect needs --out",
        f"inspect {data.files[0]} --model {bundle} -o {out} --images {tmp_path}": "apply to --truth",
        f"inspect {data.files[0]} --model {bundle} -o {out} --precision int8": "cannot predict in int8 here",
    }
    for line, message in lines.items():
        assert call(*line.split()) != 0, line
        printed = capsys.readouterr()
        assert message in printed.err, line
        assert "Traceback" not in printed.err
    assert not out.exists()
    assert not out.with_suffix("").exists()


def test_a_truth_of_another_size_names_the_picture(bundle, data, tmp_path, capsys):
    other = tmp_path / "other" / data.files[0].name
    other.parent.mkdir()
    Image.fromarray(np.zeros((50, 60, 3), np.uint8)).save(other)
    assert call("inspect", other, "--model", bundle, "-o", tmp_path / "r.html", "--truth", data.source) == 1
    error = capsys.readouterr().err
    assert other.name in error
    assert "60" in error
