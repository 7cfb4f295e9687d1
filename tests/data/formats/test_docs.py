"""The pages about formats say what the modules say."""

import importlib.util
from pathlib import Path

import pytest

from maskrcnn.data.formats import MODULES
from maskrcnn.data.formats.traits import Trait

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("format_table", ROOT / "tools" / "format_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_formats_is_what_the_modules_hold(tool):
    page = tool.PAGE.read_text("utf-8")
    assert page == tool.page_with_table(page), "run: python tools/format_table.py --write"
    assert set(tool.COLUMNS) == set(Trait)


def test_every_format_has_a_row(tool):
    assert all(f"`{name}`" in tool.table() for name in MODULES)
