"""The pages of the stages: their pictures are those that the program draws today, and their snippets do what they say."""

import ast
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import maskrcnn
from maskrcnn.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "stages").glob("*.md"))
PICTURES = ROOT / "docs" / "images"

VISIBLE = 40
"""Difference of a channel, of 255, that is no rounding."""

MAX_CHANGED = {"losses": 0.08}
"""Share of changed pixels from which a picture is out of date, 0.01 for the others. Processors round differently: weights
that differ by 1e-6 change at most 0.0002 of a picture. Where that changes a label, the losses sample other regions, which
changes 0.05."""


@pytest.fixture(scope="module")
def tool(tools):
    import draw_docs

    return draw_docs


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def changed_share(drawn: Image.Image, kept: Image.Image) -> float:
    """Return the share of the pixels drawn on the plate that differ visibly; 1 for pictures of different sizes."""
    plate = sys.modules["figures"].PLATE
    if drawn.size != kept.size:
        return 1.0
    ours, theirs = (np.asarray(image.convert("RGB"), int) for image in (drawn, kept))
    is_drawn = (ours != plate).any(-1)
    return float((np.abs(ours - theirs).max(-1)[is_drawn] > VISIBLE).mean())


def test_the_pictures_are_what_the_program_draws(tool, monkeypatch):
    """Titles are left out: another version of Pillow sets letters elsewhere."""
    for method in ("text", "multiline_text"):
        monkeypatch.setattr(ImageDraw.ImageDraw, method, lambda *args, **options: None)
    shares = {
        name: changed_share(image, opened(tool.FOLDER / f"{name}.png")) for name, image in tool.draw_all().items()
    }
    stale = {name: share for name, share in shares.items() if share > MAX_CHANGED.get(name, 0.01)}
    assert stale == {}, "run: python tools/draw_docs.py"


def test_the_pictures_come_from_this_program(tool):
    programs = {opened(path).info["program"] for path in tool.FOLDER.iterdir()}
    assert programs == {tool.program_hash()}, "run: python tools/draw_docs.py"


def test_every_page_shows_a_picture_and_every_picture_is_shown(tool):
    shown = {page.stem: re.findall(r"\(\.\./images/stages/([\w-]+)\.png\)", page.read_text("utf-8")) for page in PAGES}
    assert all(shown.values())
    assert {name for names in shown.values() for name in names} == set(tool.FIGURES)
    assert {path.stem for path in tool.FOLDER.iterdir()} == set(tool.FIGURES)


def test_the_pictures_are_small():
    assert sum(path.stat().st_size for path in PICTURES.rglob("*.*")) < 3_000_000


def test_another_picture_is_noticed(tool):
    first, other = (Image.fromarray(tool.make_picture(seed)[0]) for seed in (tool.SEED, tool.SEED + 1))
    assert changed_share(first, first) == 0
    assert changed_share(first, other) > 0.05


@pytest.fixture(scope="module")
def model(tool):
    """Return `nuclei`, which traces the picture of the pages once for all of them."""
    nuclei = maskrcnn.load("nuclei", device="cpu")
    trace, kept = nuclei.trace, nuclei.trace(tool.make_picture()[0])
    nuclei.trace = lambda picture, truth=None: kept if truth is None else trace(picture, truth)
    return nuclei


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_snippets_do_what_they_say(page, tool, model, tmp_path, monkeypatch):
    """Run each snippet. A comment behind an expression is its value, except behind ``print``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(maskrcnn, "load", lambda name: model)
    Image.fromarray(tool.make_picture()[0]).save("cells.png")
    snippets = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert snippets
    for snippet in snippets:
        names: dict = {}
        lines = snippet.splitlines()
        for statement in ast.parse(snippet).body:
            code, (_, _, said) = ast.unparse(statement), lines[statement.end_lineno - 1].partition("  # ")
            if isinstance(statement, ast.Expr) and said and not code.startswith("print"):
                assert str(eval(code, names)) == said, code
            else:
                exec(code, names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options_exist(page):
    options = set(re.findall(r"`(--[\w-]+)", page.read_text("utf-8")))
    known = {name for argument in app["train"].assemble_argument_collection() for name in argument.names}
    assert options - known == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_paragraphs_are_short(page):
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    paragraphs = [p for p in re.split(r"\n\s*\n", text) if not p.lstrip().startswith("|")]
    assert [p for p in paragraphs if p.count("\n") > 5] == []
