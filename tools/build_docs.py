"""Build the documentation site from README.md, docs/, the docstrings and the command line.

    python tools/build_docs.py [--out site] [--serve]

The pages in docs/ are written for GitHub too. This program gives them their place on the site, points their links
there, adds the reference (`docs_reference.py`) and the source files that pages link to, and runs Zensical. A broken
link fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any

import docs_reference

ROOT = Path(__file__).resolve().parents[1]

Nav = dict[str, "list[str] | Nav"]

NAV: Nav = {
    "Start": ["README.md", "docs/comparison.md"],
    "Tutorials": [
        "docs/tutorials/kaggle-csv.md",
        "docs/tutorials/microscope.md",
        "docs/tutorials/from-matterport.md",
        "docs/tutorials/from-detectron2.md",
        "docs/tutorials/deploy.md",
        "docs/tutorials/look-inside.md",
        "docs/tutorials/correct-labels.md",
    ],
    "How to": [
        "docs/data.md",
        "docs/doctor.md",
        "docs/training.md",
        "docs/reports.md",
        "docs/inside.md",
        "docs/notebooks.md",
        "docs/deploy.md",
        "docs/checkpoints.md",
        "docs/ecosystem.md",
        "docs/scale.md",
        "docs/hostile-input.md",
        "src/maskrcnn/models/*.md",
    ],
    "Method": [
        "docs/stages/README.md",
        "docs/stages/fit.md",
        "docs/stages/backbone.md",
        "docs/stages/pyramid.md",
        "docs/stages/anchors.md",
        "docs/stages/rpn.md",
        "docs/stages/proposals.md",
        "docs/stages/roi-align.md",
        "docs/stages/box-head.md",
        "docs/stages/mask-head.md",
        "docs/stages/losses.md",
        "docs/architecture.md",
    ],
    "Formats": ["docs/formats/README.md", "docs/formats/*.md"],
    "Reference": {
        "Overview": ["reference/README.md", "reference/settings.md"],
        "Commands": ["reference/commands/*.md"],
        "Python": ["reference/api/*.md"],
    },
    "Results": ["docs/benchmarks.md", "docs/experiments/README.md", "docs/experiments/*.md"],
    "Contribute": ["CONTRIBUTING.md", "CHANGELOG.md"],
}
"""Sections and pages of the site, as paths in the repository. A pattern adds the pages that are not listed before."""

PLACES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
FOLDERS = {"docs/": "", "reference/": "reference/", "src/maskrcnn/models/": "models/"}
"""Where the pages of the repository lie on the site. Any other file that a page links to lies in ``code/``."""

SCHEMES = {"light": ("default", "lucide/sun", "dark"), "dark": ("slate", "lucide/moon", "light")}

SETTINGS: dict[str, Any] = {
    "site_name": "maskrcnn",
    "site_description": "Mask R-CNN from images and run-length masks to a trained, scored and deployed model",
    "use_directory_urls": False,
    "extra_css": ["extra.css"],
    "theme": {
        "font": False,  # no web fonts: the site needs no network
        "features": ["navigation.tabs", "navigation.top", "navigation.footer", "content.code.copy", "search.highlight"],
        "palette": [
            {
                "media": f"(prefers-color-scheme: {name})",
                "scheme": scheme,
                "toggle": {"icon": icon, "name": f"Switch to {other} mode"},
            }
            for name, (scheme, icon, other) in SCHEMES.items()
        ],
    },
    "markdown_extensions": {
        "tables": {},
        "toc": {"permalink": True},
        "pymdownx": {"highlight": {"anchor_linenums": True}, "superfences": {}},
    },
}

CODE = re.compile(r"^( *)(```+|~~~+).*?^\1\2|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s#]*)(#[^)\s]*)?(\))")


class BrokenLinkError(Exception):
    """A page links to a file that the repository does not have."""


def expanded(nav: Nav, folder: Path, listed: set[str] | None = None) -> Nav:
    """Return `nav` with the pages that exist below `folder` in place of patterns, without empty sections."""
    listed = set() if listed is None else listed
    result: Nav = {}
    for section, entries in nav.items():
        if isinstance(entries, dict):
            result[section] = expanded(entries, folder, listed)
            continue
        pages: list[str] = []
        for pattern in entries:
            found = sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern))
            pages += [page for page in found if page not in listed]
            listed.update(found)
        result[section] = pages
    return {section: entries for section, entries in result.items() if entries}


def pages_of(nav: Nav) -> Iterator[str]:
    """Yield the pages of all sections."""
    for entries in nav.values():
        yield from pages_of(entries) if isinstance(entries, dict) else entries


def placed(nav: Nav) -> list[dict[str, Any]]:
    """Return `nav` as Zensical reads it, with the places of the pages on the site."""
    return [
        {section: placed(entries) if isinstance(entries, dict) else [place(path) for path in entries]}
        for section, entries in nav.items()
    ]


def place(path: str) -> str:
    """Return where the file `path` of the repository lies on the site."""
    if path in PLACES:
        return PLACES[path]
    for folder, target in FOLDERS.items():
        if path.startswith(folder):
            return target + path.removeprefix(folder)
    return f"code/{path}.md"


class Pages:
    """Copies the pages of `menu` to the folder `out` that Zensical reads, with the files that they link to."""

    def __init__(self, root: Path, out: Path, menu: Sequence[str]) -> None:
        self.root = root
        self.out = out
        self.menu = menu
        self.sources: set[str] = set()

    def add(self, path: str) -> None:
        """Copy the page `path` of the repository; point its links to their places on the site."""
        text = (self.root / path).read_text("utf-8")
        parts, end = [], 0
        for code in CODE.finditer(text):
            parts += [self._relinked(text[end : code.start()], path), code[0]]
            end = code.end()
        self._write(place(path), "".join([*parts, self._relinked(text[end:], path)]))

    def add_sources(self) -> None:
        """Write a page for each source file that a page links to. Search leaves them out."""
        for path in sorted(self.sources):
            language = {".py": "python", ".sh": "bash", ".toml": "toml"}.get(PurePosixPath(path).suffix, "text")
            code = (self.root / path).read_text("utf-8")
            head = "---\nsearch:\n  exclude: true\nhide:\n  - toc\n---\n"
            self._write(place(path), f'{head}# {path}\n\n````{language} linenums="1"\n{code}````\n')

    def _relinked(self, text: str, page: str) -> str:
        def new_link(match: re.Match[str]) -> str:
            before, target, anchor, after = match.groups()
            if not target or re.match(r"[a-z]+:", target):
                return match[0]
            path = os.path.normpath(PurePosixPath(page).parent / target)
            if (self.root / path).is_dir():  # GitHub lists it; here its first page stands for it
                path = next((page for page in self.menu if page.startswith(f"{path}/")), path)
            if not (self.root / path).is_file():
                raise BrokenLinkError(f"{page} links to {target}, and there is no {path}")
            self._carry(path)
            relative = os.path.relpath(place(path), PurePosixPath(place(page)).parent)
            return f"{before}{relative}{anchor or ''}{after}"

        return LINK.sub(new_link, text)

    def _carry(self, path: str) -> None:
        if place(path).startswith("code/"):
            self.sources.add(path)
        elif not path.endswith(".md"):
            target = self.out / place(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / path, target)

    def _write(self, path: str, text: str) -> None:
        (self.out / path).parent.mkdir(parents=True, exist_ok=True)
        (self.out / path).write_text(text, "utf-8")


def build(out: Path) -> None:
    """Build the site into `out`, which is replaced. Raise `BrokenLinkError` or `CalledProcessError` for a fault."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        tree = work / "tree"  # the repository with the pages of the reference
        tree.mkdir()
        for path in ROOT.iterdir():
            (tree / path.name).symlink_to(path)
        docs_reference.write(tree / "reference")
        nav = expanded(NAV, tree)
        pages = Pages(tree, work / "docs", list(pages_of(nav)))
        for path in pages.menu:
            pages.add(path)
        pages.add_sources()
        shutil.copyfile(ROOT / "tools" / "site.css", work / "docs" / "extra.css")
        run_zensical(work, placed(nav))
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(work / "site", out)


def run_zensical(work: Path, nav: list[dict[str, Any]]) -> None:
    """Build ``docs/`` in the folder `work` into ``site/``. Raise `CalledProcessError` for a warning."""
    project = {**SETTINGS, "docs_dir": "docs", "site_dir": "site", "nav": nav}
    (work / "zensical.toml").write_text(f"project = {toml(project)}\n", "utf-8")
    subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=work, check=True)


def toml(value: Any) -> str:
    """Return `value` as TOML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="folder to write; it is replaced")
    parser.add_argument("--serve", action="store_true", help="show the site on http://127.0.0.1:8000 afterwards")
    args = parser.parse_args()
    if importlib.util.find_spec("zensical") is None:
        sys.exit("zensical is not installed: pip install -e '.[all,dev]'")
    if args.out.exists() and not (args.out / "sitemap.xml").exists():
        sys.exit(f"{args.out} is no site that this program built, and would be replaced: choose another --out")
    try:
        build(args.out)
    except (BrokenLinkError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))
    if args.serve:
        print("http://127.0.0.1:8000")
        handler = partial(SimpleHTTPRequestHandler, directory=args.out)
        ThreadingHTTPServer(("127.0.0.1", 8000), handler).serve_forever()


if __name__ == "__main__":
    main()
