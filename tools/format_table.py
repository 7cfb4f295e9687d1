"""Print the table of formats and what each holds, for docs/formats/README.md, or write it there.

python tools/format_table.py [--write]
"""

from __future__ import annotations

import sys
from pathlib import Path

from maskrcnn.data.convert import written_formats
from maskrcnn.data.formats import MODULES, format_module
from maskrcnn.data.formats.traits import Trait

PAGE = Path(__file__).resolve().parents[1] / "docs" / "formats" / "README.md"
BEGIN, END = "<!-- table of formats: python tools/format_table.py --write -->\n", "<!-- end of the table -->\n"

COLUMNS = {
    Trait.HOLES: "holes",
    Trait.SEVERAL_PARTS: "several parts",
    Trait.OVERLAPS: "overlaps",
    Trait.CLASSES: "classes",
    Trait.UNUSED_CLASSES: "unused classes",
    Trait.CLASS_IDS: "class ids",
    Trait.ATTRIBUTES: "attributes",
    Trait.ATTRIBUTE_NAMES: "their names",
    Trait.SCORES: "scores",
    Trait.CROWD: "crowd",
    Trait.DIVISION: "train / val",
    Trait.EMPTY_IMAGES: "empty images",
    Trait.FEDERATED: "federated",
}


def table() -> str:
    """Return the table in Markdown, a row for each format, as its module says."""
    lines = ["| `--to`, `--format` | what it is | written as | " + " | ".join(COLUMNS.values()) + " |"]
    lines.append("|---" * (3 + len(COLUMNS)) + "|")
    for name in MODULES:
        module = format_module(name)
        written = " ".join(module.SUFFIXES) or "a folder" if name in written_formats() else "(read only)"
        link = f"[`{name}`]({name}.md)" if (PAGE.parent / f"{name}.md").exists() else f"`{name}`"
        held = ["yes" if trait in module.HOLDS else "" for trait in COLUMNS]
        lines.append(f"| {link} | {module.NAME} | {written} | " + " | ".join(held) + " |")
    return "\n".join(lines) + "\n"


def page_with_table(page: str) -> str:
    """Return the page with the table between its marks."""
    head, _, rest = page.partition(BEGIN)
    return head + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page_with_table(PAGE.read_text("utf-8")), "utf-8")
    else:
        print(table(), end="")
