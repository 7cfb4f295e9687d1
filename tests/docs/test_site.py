"""The documentation site: it builds strictly, every page is in its menu, links lead somewhere, and nothing is fetched."""

import importlib.util
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import maskrcnn
from maskrcnn.cli import NAME_OF_FUNCTION, app
from maskrcnn.config import Config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool(tools):
    import build_docs

    return build_docs


@pytest.fixture(scope="module")
def zensical():
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("zensical is not installed: pip install -e '.[all,dev]'")


@pytest.fixture(scope="module")
def site(tool, zensical, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "site"
    tool.build(out)
    return out


class Page(HTMLParser):
    """Anchors of a page, what it links to, and what a browser fetches for it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values.get("id"), values.get("name")} - {None}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        elif tag in ("link", "script", "img", "source", "iframe"):
            self.fetched += [values[key] for key in ("href", "src") if values.get(key)]


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_page_of_the_documents_is_in_the_menu(tool):
    in_menu = set(tool.pages_of(tool.expanded(tool.NAV, ROOT)))
    written = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert written - in_menu == set()
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "src/maskrcnn/models/nuclei.md"} <= in_menu


def test_every_entry_of_the_menu_exists(tool):
    named = {entry for entry in tool.pages_of(tool.NAV) if "*" not in entry and not entry.startswith("reference/")}
    assert [entry for entry in named if not (ROOT / entry).is_file()] == []


def test_the_menu_shows_every_page(site, tool):
    menu = (site / "index.html").read_text("utf-8")
    for section in tool.expanded(tool.NAV, ROOT):
        assert f"{section}\n" in menu or f">{section}<" in menu
    for path in (ROOT / "docs").rglob("*.md"):
        assert (site / tool.place(path.relative_to(ROOT).as_posix())).with_suffix(
            ".html"
        ).exists() or path.name == "README.md"


def test_links_and_pictures_lead_somewhere(site, pages):
    broken = []
    for path, page in pages.items():
        for link in page.links + page.fetched:
            if re.match(r"[a-z]+:|//", link):
                continue
            target, _, anchor = link.partition("#")
            file = (path.parent / target).resolve() if target else path
            if file.is_dir():
                file = file / "index.html"
            if not file.exists() or (anchor and file in pages and anchor not in pages[file].anchors):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


def test_pages_need_no_network(site, pages):
    assert {url for page in pages.values() for url in page.fetched if re.match(r"https?:|//", url)} == set()


def test_search_finds_pages_of_every_section(site):
    text = (site / "search.json").read_text("utf-8")
    entries = json.loads(text)["items"]
    places = {entry["location"].partition("#")[0] for entry in entries}
    assert {"index.html", "data.html", "formats/coco.html", "reference/settings.html", "changelog.html"} <= places
    assert not any(place.startswith("code/") for place in places)


def test_lists_and_tables_are_rendered(site, pages):
    """GitHub takes a list or a table that follows a paragraph without an empty line; Python-Markdown does not."""
    stuck = []
    for path in pages:
        if path.relative_to(site).parts[0] != "code":
            text = re.sub(r"<(pre|table).*?</\1>", "", path.read_text("utf-8"), flags=re.DOTALL)
            for paragraph in re.findall(r"<p>(.*?)</p>", text, re.DOTALL):
                if re.search(r"^([-*] |\d+\. |\|)|```", paragraph, re.MULTILINE):
                    stuck.append(f"{path.relative_to(site)}: {paragraph[:80]}")
    assert stuck == []


@pytest.mark.parametrize("name", NAME_OF_FUNCTION.values())
def test_the_reference_has_every_option(site, name):
    text = (site / "reference" / "commands" / f"{name}.html").read_text("utf-8")
    arguments = [argument for argument in app[name].assemble_argument_collection() if argument.show]
    # The root app turns off cyclopts' --empty-NAME; a subcommand alone does not know that.
    options = [n for argument in arguments for n in argument.names if not n.startswith("--empty-")]
    assert options
    assert [option for option in options if option not in text] == []


def test_the_reference_has_every_setting_with_its_meaning(tool):
    text = tool.docs_reference.settings_page()
    for group in Config.model_fields.values():
        for name, field in group.annotation.model_fields.items():
            (row,) = re.findall(rf"^\| `--{name.replace('_', '-')}` \|.*$", text, re.MULTILINE)
            assert " ".join(field.description.split()).replace("|", "\\|") in row
            if isinstance(field.default, str):
                assert f"`{field.default}`" in row


def test_the_reference_has_every_public_name(tool):
    described = {thing.__name__ for _, things in tool.docs_reference.API.values() for thing in things}
    assert set(maskrcnn.__all__) - described == set()
    assert {"Predictor", "Trace"} <= described


def test_signatures_are_those_of_the_source(tool):
    source = """def function(a: int, *, kind: Literal['x', 'y'] = 'x', say: Callable[[str], None] = print, **more: Any): ..."""
    names: dict = {}
    exec(f"from __future__ import annotations\n{source}", names)
    text = tool.docs_reference.signature(names["function"])
    assert text == (
        "```python\nfunction(\n    a: int,\n    *,\n    kind: Literal['x', 'y'] = 'x',\n"
        "    say: Callable[[str], None] = print,\n    **more: Any,\n)\n```"
    )
    pages = [tool.docs_reference.api_page(*page) for page in tool.docs_reference.API.values()]
    assert [page for page in pages if re.search(r" at 0x[0-9a-f]+", page)] == []


def test_links_are_pointed_to_their_places(tool, tmp_path):
    files = {
        "README.md": "[d](docs/a.md#x) ![p](docs/images/p.png) `[code](docs/none.md)` [web](https://example.org)",
        "docs/a.md": "[home](../README.md)\n```\n[code](none.md)\n```\n[source](../src/m.py) [folder](sub) [here](#x)",
        "docs/sub/b.md": "[a](../a.md)",
        "docs/images/p.png": "",
        "src/m.py": "x = 1\n",
    }
    for name, text in files.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text(text)
    pages = tool.Pages(tmp_path / "tree", tmp_path / "out", ["README.md", "docs/a.md", "docs/sub/b.md"])
    for name in pages.menu:
        pages.add(name)
    pages.add_sources()
    out = tmp_path / "out"
    assert (out / "index.md").read_text() == (
        "[d](a.md#x) ![p](images/p.png) `[code](docs/none.md)` [web](https://example.org)"
    )
    assert (out / "a.md").read_text() == (
        "[home](index.md)\n```\n[code](none.md)\n```\n[source](code/src/m.py.md) [folder](sub/b.md) [here](#x)"
    )
    assert (out / "sub" / "b.md").read_text() == "[a](../a.md)"
    assert "x = 1" in (out / "code" / "src" / "m.py.md").read_text()
    assert (out / "images" / "p.png").exists()


def test_a_link_to_a_missing_file_is_an_error(tool, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("[b](b.md)")
    with pytest.raises(tool.BrokenLinkError, match=r"docs/a.md links to b.md, and there is no docs/b.md"):
        tool.Pages(tmp_path, tmp_path / "out", []).add("docs/a.md")


def test_a_link_to_a_missing_heading_is_an_error(tool, zensical, tmp_path, capfd):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# A\n\n[there](#there)\n")
    with pytest.raises(subprocess.CalledProcessError):
        tool.run_zensical(tmp_path, [{"A": ["index.md"]}])


def test_a_folder_with_other_files_is_not_replaced(tool, zensical, tmp_path, monkeypatch):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear")
    monkeypatch.setattr(sys, "argv", ["build_docs.py", "--out", str(tmp_path / "letters")])
    with pytest.raises(SystemExit, match="would be replaced: choose another --out"):
        tool.main()
    assert (tmp_path / "letters" / "a.txt").read_text() == "dear"
