"""Parts of the page. All text is escaped but `headline`, `content`, `toolbar`, `figures` and `rows`, which are HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

AUTO = ' dir="auto"'
"""Attribute of an element that holds a user's text: the text's letters decide which way it runs."""


class Section(NamedTuple):
    """A section of the page: anchor (a plain word), heading and HTML content."""

    key: str
    title: str
    content: str


def page(
    title: str, headline: str, sections: Sequence[Section], script: str = "", style: str = "", toolbar: str = ""
) -> str:
    """Build the complete, self-contained HTML document. It can be read without its `script`.

    `style` adds rules. `toolbar`, HTML, stands before the sections and may stay in sight.
    """
    style = Path(__file__).with_name("report.css").read_text("utf-8") + style
    links = "".join(f'<a href="#{s.key}">{escape(s.title)}</a>' for s in sections)
    body = "".join(f'<section id="{s.key}"><h2>{escape(s.title)}</h2>{s.content}</section>\n' for s in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: Mask R-CNN report</title><style>\n{style}</style></head>\n"
        f"<body><header><h1{AUTO}>{escape(title)}</h1>{headline}</header>\n"
        f'<nav aria-label="Sections">{links}</nav>\n{toolbar}<main>\n{body}</main>'
        f"{f'<script>{script}</script>' if script else ''}</body></html>\n"
    )


def chart_grid(figures: Iterable[str]) -> str:
    """Lay out charts side by side, as many as fit the window."""
    return f'<div class="charts">{"".join(figures)}</div>'


def table(caption: str, head: Sequence[str], rows: Iterable[str], numbers_from: int) -> str:
    """Build a table; right-align the headings of columns `numbers_from` and up."""
    cells = "".join(
        f'<th scope="col"{NUMBER if k >= numbers_from else ""}>{escape(name)}</th>' for k, name in enumerate(head)
    )
    caption = escape(caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table><caption>{caption}</caption>'
        f"<thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


NUMBER = ' class="n"'


def row(name: str, values: Iterable[str]) -> str:
    """Build a table row: a name and its numbers."""
    cells = "".join(f"<td{NUMBER}>{escape(v)}</td>" for v in values)
    return f'<tr><th scope="row"{AUTO}>{escape(name)}</th>{cells}</tr>'


def facts(caption: str, values: Mapping[str, Any]) -> str:
    """Build a table of names and values."""
    rows = (
        f'<tr><th scope="row"{AUTO}>{escape(name)}</th><td class="value"{AUTO}>{escape(str(value))}</td></tr>'
        for name, value in values.items()
    )
    return table(caption, ("name", "value"), rows, 2)


def folded(title: str, content: str) -> str:
    """Hide content behind a title that opens it on a click."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"
