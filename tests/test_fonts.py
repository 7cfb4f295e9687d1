"""Labels use a font that has their letters; without one they show the class id."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from maskrcnn import RLE, Detections, fonts
from maskrcnn.drawing import draw_instances


@pytest.fixture
def no_system_fonts(monkeypatch):
    monkeypatch.setattr(fonts, "SYSTEM_FONTS", ())
    fonts._font_name.cache_clear()
    yield
    fonts._font_name.cache_clear()


@pytest.mark.parametrize("name", ["größe", "клетка", "κύτταρο", "ядро", "cell_2"])
def test_a_font_of_the_system_has_the_letters(name):
    try:
        ImageFont.truetype("DejaVuSans.ttf", 12)
    except OSError:
        pytest.skip("this machine has no DejaVu Sans")
    assert fonts.legible(name, 3) == name
    font = fonts.font_for(name, 14)
    glyphs = {(font.getmask(c).size, bytes(font.getmask(c))) for c in set(name)}
    assert (font.getmask(fonts.NO_CHARACTER).size, bytes(font.getmask(fonts.NO_CHARACTER))) not in glyphs


@pytest.mark.usefixtures("no_system_fonts")
@pytest.mark.parametrize(("name", "shown"), [("größe", "[3]"), ("细胞", "[3]"), ("cell_2", "cell_2"), ("", "")])
def test_without_a_font_the_class_id_is_shown(name, shown):
    assert fonts.legible(name, 3) == shown


@pytest.mark.parametrize("name", ["خلية", "תא", "cell خلية"])
def test_text_from_right_to_left_needs_a_shaper(monkeypatch, name):
    monkeypatch.setattr(fonts, "_covered", lambda font, letters: set(letters))
    for has_raqm in (True, False):
        fonts._font_name.cache_clear()
        monkeypatch.setattr(fonts.features, "check", lambda feature, has_raqm=has_raqm: has_raqm)
        assert fonts.legible(name, 3) == (name if has_raqm else "[3]")
    assert fonts.legible("cell", 3) == "cell"
    fonts._font_name.cache_clear()


@pytest.mark.usefixtures("no_system_fonts")
def test_an_overlay_shows_ids_in_place_of_boxes(tmp_path):
    mask = np.zeros((120, 160), bool)
    mask[40:80, 40:90] = True
    masks, pixels = [RLE.from_mask(mask)], np.zeros((120, 160, 3), np.uint8)
    boxes = np.array([[40, 40, 90, 80]], np.float32)
    found = Detections(boxes, np.float32([0.98]), np.array([3]), ["细胞"], masks, (120, 160), pixels=pixels)
    found.save_overlay(tmp_path / "a.png")
    expected = draw_instances(pixels, masks, boxes, ["[3] 0.98"], None)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(expected))


def test_a_name_of_several_lines_is_drawn_in_one(tmp_path):
    mask = np.zeros((120, 160), bool)
    mask[40:80, 40:90] = True
    boxes, pixels = np.array([[40, 40, 90, 80]], np.float32), np.zeros((120, 160, 3), np.uint8)
    found = Detections(
        boxes, np.float32([0.98]), np.array([3]), ["T\ncell\t2 "], [RLE.from_mask(mask)], (120, 160), pixels=pixels
    )
    found.save_overlay(tmp_path / "a.png")
    expected = draw_instances(pixels, found.rles, boxes, ["T cell 2 0.98"], None)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(expected))


def test_the_file_of_a_font():
    assert fonts.system_font("cell") is None
    path = fonts.system_font("ядро")
    assert path is None or path.endswith((".ttf", ".otf", ".ttc"))
