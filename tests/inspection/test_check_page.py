"""The page of `maskrcnn check --html`: well-formed, self-contained, with a card for each kind and pictures."""

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from maskrcnn import RLE
from maskrcnn.data.doctor import find_problems
from maskrcnn.data.problem import KINDS, Kind, Problem, worst_first
from maskrcnn.data.synthetic import make_shapes
from maskrcnn.evaluation.suspects import Suspect, SuspectKind
from maskrcnn.inspection.charts import Axis, category_bars, histogram
from maskrcnn.inspection.check_page import MAX_LISTED, MAX_SHOTS, suspects_section, write_check_page
from maskrcnn.rle import RunTable
from pages import Page

HW = (96, 128)


@pytest.fixture
def data(tmp_path):
    return make_shapes(tmp_path, 5, seed=3, hw=HW)


def written(path, data, findings, more=()):
    write_check_page(path, data, findings, more)
    html = path.read_text("utf-8")
    page = Page(re.sub("<script>.*</script>", "", html, flags=re.S))
    assert all(reference.startswith(("data:image/jpeg;base64,", "#")) for reference in page.references)
    return html


def test_every_kind_has_a_card(tmp_path, data):
    findings = [Problem(kind, str(data.source), "<odd> & message") for kind in Kind]
    html = written(tmp_path / "page.html", data, findings)
    for kind, description in KINDS.items():
        assert html.count(f'data-severity="{description.severity}" data-kind="{kind}"') == 1
        assert f"<option>{kind}</option>" in html
    assert "<odd>" not in html
    n_problems = sum(description.severity == "problem" for description in KINDS.values())
    assert f"{n_problems} problems would hurt training" in html
    problems_first = [m.group(1) for m in re.finditer('data-severity="(.*?)"', html)]
    assert problems_first == sorted(problems_first, reverse=True)


def test_clean_data(tmp_path, data):
    html = written(tmp_path / "page.html", data, find_problems(data))
    assert "Nothing that would hurt training was found" in html
    assert "No finding of any kind" in html
    assert html.count("<img") == len(data)


def test_findings_are_shown_in_pictures(tmp_path, data):
    masks = [data.masks[k] for k in range(data.n_instances)]
    repeated = replace(
        data,
        masks=RunTable.of([masks[0], *masks]),
        image_index=np.insert(data.image_index, 0, data.image_index[0]),
        labels=np.insert(data.labels, 0, data.labels[0]),
        rows=np.insert(data.rows, 0, 99),
    )
    data.files[4].write_bytes(data.files[3].read_bytes())
    findings = find_problems(repeated)
    assert {f.kind for f in findings} == {Kind.REPEATED, Kind.SAME_IMAGE}
    html = written(tmp_path / "page.html", repeated, findings)
    assert html.count("<img") == len(data) + 1 + 2
    move = [Problem(Kind.SHIFTED, "x.csv", "all masks", move=(1, 2))]
    html = written(tmp_path / "page.html", data, move)
    assert html.count("<img") == len(data) + 2


def test_many_findings_are_cut(tmp_path, data):
    findings = [
        Problem(Kind.TINY, f"x.csv, row {k}", f"number {k}", image=data.names[0], instances=(0,))
        for k in range(MAX_LISTED + 50)
    ]
    html = written(tmp_path / "page.html", data, findings)
    assert html.count("<img") == len(data) + MAX_SHOTS
    assert "and 50 more" in html
    assert (tmp_path / "page.html").stat().st_size < 2_000_000


def test_images_that_can_no_longer_be_read(tmp_path, data):
    findings = [Problem(Kind.TINY, "x.csv, row 2", "tiny", image=data.names[0], instances=(0,))]
    for file in data.files:
        file.unlink()
    html = written(tmp_path / "page.html", data, findings)
    assert "<img" not in html
    assert "there is no such file" in html


def test_odd_data(tmp_path):
    """Images of one pixel, long ones, and data without objects and with odd names."""
    data = make_shapes(tmp_path, 3, seed=3, hw=HW)
    for file, hw in zip(data.files, ((1, 1), (3, 700), (700, 2)), strict=True):
        Image.new("L", hw[::-1]).save(file)
    empty = replace(
        data.take([0, 1, 2]),
        names=["<b>.png", "größe & co.png", "c.png"],
        sizes=np.array([(1, 1), (3, 700), (700, 2)]),
        image_index=np.empty(0, np.int64),
        labels=np.empty(0, np.int64),
        masks=RunTable.of([]),
        rows=np.empty(0, np.int64),
        class_names=["a<b", "a<b", "c", "d"],
    )
    html = written(tmp_path / "page.html", empty, find_problems(empty))
    assert "<b>.png" not in html
    assert "größe" in html


def test_the_worst_come_first(data):
    found = [Problem(Kind.OVERLAP, "x", str(share), share) for share in (0.1, 0.3, 0.2)]
    found.append(Problem(Kind.BAD_ROW, "x", ""))
    assert [f.message for f in worst_first(found)[Kind.OVERLAP]] == ["0.3", "0.2", "0.1"]
    assert list(worst_first(found)) == [Kind.BAD_ROW, Kind.OVERLAP]


def test_suspects_are_shown_with_both_masks(tmp_path, data):
    mask = RLE(data.masks[0], HW)
    image = int(data.image_index[0])
    suspects = [
        Suspect(SuspectKind.LOOSE, image, 0.5, "differs", 0, mask.shift(3, 3)),
        Suspect(SuspectKind.UNLABELLED, image, 0.4, "a disc", None, mask),
        Suspect(SuspectKind.UNFOUND, image, 0.3, "not found", 0, None),
    ]
    section = suspects_section(data, suspects, "some<model>")
    assert section.content.count("<img") == 3
    assert "some&lt;model&gt;" in section.content
    written(tmp_path / "page.html", data, [], [section])
    assert "disagrees with no label" in suspects_section(data, [], "m").content


@pytest.mark.parametrize("values", [[], [0], [0, 0, 0], [1, 5, 9, 900], list(range(1000)), [0.4, 0.9]])
def test_histograms_count_every_value(values):
    html = histogram("Title", "unit", Axis("x"), np.array(values, float))
    counts = [int(n.replace(",", "")) for n in re.findall(r"<title>[^<]*: ([\d,]+)</title>", html)]
    assert sum(counts) == len(values)
    Page(f"<html>{html}</html>")


def test_category_bars_put_the_longest_first():
    html = category_bars("Title", "unit", {"a": 3, "<b>": 10, "c": 0})
    assert html.index("&lt;b&gt;") < html.index(">a<") < html.index(">c<")
    assert "width:100.0%" in html


def test_commands_are_those_of_the_user_and_repairs_those_of_the_findings(tmp_path, data):
    other = next(k for k in range(data.n_instances) if data.labels[k] != data.labels[0])
    finding = Problem(Kind.REPEATED, "row 1", "repeats", instances=(0, other))
    assert "Repair:" not in written(tmp_path / "page.html", data, [finding])
    html = written(tmp_path / "page.html", data, [replace(finding, instances=(0, 0))])
    assert f"maskrcnn check {data.source} --fix" in html
    named = Problem(Kind.TRANSPOSED, "data", "along the other axis", option="--order row")
    html = written(tmp_path / "page.html", data, [named])
    assert "Pass --order row." in html
    assert "read with --order row" in html
    assert "Repair:" not in written(tmp_path / "page.html", data, [replace(named, option="")])
    html = written(tmp_path / "page.html", data, [Problem(Kind.SIZE, "row 3", "another size")])
    assert "To do:</b> Take the images" in html


def test_long_names_are_cut_in_the_middle_and_colours_have_a_legend(tmp_path, data):
    name = "x" * 30 + "0123456789" * 3 + ".png"
    html = written(tmp_path / "page.html", replace(data, names=[name, *data.names[1:]]), [])
    assert f'title="{name}: ' in html
    assert f">{name[:18]}…" in html
    legend = html.partition('<ul class="legend">')[2].partition("</ul>")[0]
    assert all(f">{class_name}<" in legend for class_name in data.class_names)


def test_a_histogram_says_that_its_last_bar_is_open():
    values = np.append(np.tile(np.arange(20), 50), 900)
    assert "the last bar holds all from" in histogram("t", "n", Axis("x"), values)
    assert "last bar" not in histogram("t", "n", Axis("x"), values[:-1])
