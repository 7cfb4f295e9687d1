"""``maskrcnn check``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.table import Table

from maskrcnn.cli.common import DataOptions, Json, print_json, progress_bar, say, talk

MAX_SHOWN = 20


def check(
    data: Path,
    *,
    options: DataOptions | None = None,
    decode: bool = True,
    all_problems: bool = False,
    json: Json = False,
) -> int:
    """Check a data set: counts, sizes, classes, instances per image, and problems with their rows.

    Exits with 1 if there are problems. No file is changed.

    Parameters
    ----------
    data
        CSV of run-length masks.
    decode
        Decode every image to find damaged ones.
    all_problems
        List every problem, not only the first 20.
    json
        Print the counts and all problems as one JSON object.
    """
    import dataclasses

    from maskrcnn.data.doctor import find_problems

    opened = dataclasses.replace(options or DataOptions(), bad="skip").open(data)
    with progress_bar(len(opened), "checking") as set_done:
        problems = [*opened.problems, *find_problems(opened, decode=decode, on_image=set_done)]
    statistics = {**opened.statistics(), "problems": len(problems)}
    if json:
        print_json({**statistics, "found": opened.notes, "problem_list": [str(p) for p in problems]})
    else:
        _show(statistics)
        shown = problems if all_problems else problems[:MAX_SHOWN]
        for problem in shown:
            say(f"- {problem}")
        if len(problems) > len(shown):
            say(f"... and {len(problems) - len(shown):,} more (--all-problems lists them)")
        say(f"{len(problems):,} problems found" if problems else "no problems found")
    return 1 if problems else 0


def _show(statistics: dict[str, Any]) -> None:
    table = Table(title="Data")
    for column in ("", "min", "median", "95 %", "max"):
        table.add_column(column, justify="right" if column else "left")
    for title, key in (
        ("instances per image", "instances_per_image"),
        ("box side (px)", "box_side_px"),
        ("mask area (px)", "mask_area_px"),
    ):
        table.add_row(title, *(f"{statistics[key][k]:,.0f}" for k in ("min", "median", "p95", "max")))
    talk.print(table)
    sizes = Counter({f"{s['width']} x {s['height']}": s["images"] for s in statistics["sizes"]})
    size_list = ", ".join(f"{size} ({n:,})" for size, n in sizes.most_common())
    n_unlisted = statistics["distinct_sizes"] - len(sizes)
    say(
        f"{statistics['images']:,} images, {statistics['images_without_instances']:,} of them without objects; "
        f"{statistics['instances']:,} instances"
    )
    say(f"width x height (images): {size_list}" + (f" and {n_unlisted} more sizes" if n_unlisted else ""))
    table = Table(title="Classes")
    for column in ("id", "name", "instances"):
        table.add_column(column, justify="right" if column == "instances" else "left")
    for entry in statistics["classes"]:
        table.add_row(str(entry["id"]), entry["name"], f"{entry['instances']:,}")
    talk.print(table)
