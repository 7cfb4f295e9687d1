"""``maskrcnn check``."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from maskrcnn.cli.common import Device, Json, ReadOptions, print_json, progress_bar, say, talk
from maskrcnn.cli.fix import check_target, find_all, open_repairable, replay_changes, write_repaired
from maskrcnn.data.parts import describe_parts
from maskrcnn.errors import UserError, counted

if TYPE_CHECKING:
    from maskrcnn.data.doctor.repair import Change
    from maskrcnn.data.problem import Problem
    from maskrcnn.data.table import Dataset
    from maskrcnn.evaluation.suspects import Suspect
    from maskrcnn.inference.predictor import Predictor

MAX_EXAMPLES = 3
"""Findings of each kind that are listed without --all-problems."""

MAX_SUSPECTS = 10
"""Suspect labels that are listed without --json or --html."""

UNUSABLE = 2
"""Exit status for data that cannot be opened, or of which no image can be used."""


def check(
    data: Path,
    *,
    options: ReadOptions | None = None,
    val_data: Path | None = None,
    model: Path | None = None,
    device: Device = "auto",
    html: Path | None = None,
    fix: Path | None = None,
    replay: Path | None = None,
    decode: bool = True,
    all_problems: bool = False,
    json: Json = False,
) -> int:
    """Check a data set: counts, sizes, classes, instances per image, and findings with their rows, by kind.

    Exits with 0 if nothing hurts training, with 1 if a finding does, and with 2 if the data cannot be opened. Notes,
    such as masks that share a border, do not count. No file of the data is changed.

    Parameters
    ----------
    data
        Annotations: a file or a folder of any format.
    val_data
        Validation data: annotations of any format. Its images must not be among those of the data.
    model
        Rank the labels that this model disagrees with. It must not have been trained on them.
    html
        Write a page with pictures of the findings, charts and images: one file that needs no network.
    fix
        Write a repaired copy of the annotations to this CSV or COCO JSON file, and what was changed beside it.
    replay
        Changes that an earlier --fix wrote: make these, and look for no others.
    decode
        Decode every image to find damaged and repeated ones, and masks that do not lie on their objects.
    all_problems
        List every finding, not only the worst of each kind.
    json
        Print the counts and all findings as one JSON object.
    """
    from maskrcnn.data.split import describe_default_split

    options = options or ReadOptions()
    if fix is not None:
        check_target(fix, data)
    elif replay is not None:
        raise UserError("--replay makes the changes of a log; name the file to write with --fix")
    earlier: list[Change] = []
    try:
        if fix is None:
            opened = options.open_with(data, "skip")
        else:
            opened, options, earlier = open_repairable(data, options)
        validation = options.open_with(val_data, "skip") if val_data is not None else None
    except UserError as error:
        say(f"error: {error}")
        return UNUSABLE
    if fix is not None and replay is not None:
        replay_changes(data, options, opened, replay, fix)
        return 0
    predictor = _loaded(model, device) if model is not None else None
    findings = find_all(data, options, opened, validation, decode=decode)
    n_problems = sum(finding.is_problem for finding in findings)
    statistics = {**opened.statistics(), "problems": n_problems, "notes": len(findings) - n_problems}
    split_notes = describe_default_split(opened)
    readable, suspects = _suspects(predictor, opened) if predictor is not None else (opened, [])
    if json:
        report = {
            **statistics,
            "found": [*opened.notes, *split_notes],
            "findings": [_to_json(finding) for finding in findings],
        }
        print_json(report | ({"suspects": [s.to_json(readable) for s in suspects]} if model is not None else {}))
    else:
        _show(statistics)
        _show_findings(findings, opened, len(findings) if all_problems else MAX_EXAMPLES)
        if model is not None:
            _show_suspects(readable, suspects, model)
        for note in split_notes:
            say(note)
    if html is not None:
        from maskrcnn.inspection.check_page import suspects_section, write_check_page

        sections = [suspects_section(readable, suspects, str(model))] if model is not None else []
        write_check_page(html, opened, findings, sections)
        say(f"wrote {html}")
    if fix is not None:
        n_problems = write_repaired(data, options, opened, findings, fix, earlier, validation, decode=decode)
    return 1 if n_problems else 0


def _loaded(model: Path, device: str) -> Predictor:
    from maskrcnn.checkpoints.load import load

    return load(model, device=device)


def _suspects(predictor: Predictor, data: Dataset) -> tuple[Dataset, list[Suspect]]:
    """Return the images that the model could read, and the labels that it disagrees with."""
    from maskrcnn.evaluation import find
    from maskrcnn.evaluation.suspects import find_suspects, readable_part

    with progress_bar(len(data), "predicting") as set_done:
        results = find(predictor, data, range(len(data)), on_image=set_done)
    readable, detections = readable_part(data, results)
    return readable, find_suspects(readable, detections)


def _show_suspects(data: Dataset, suspects: list[Suspect], model: Path) -> None:
    """Print the labels that the model doubts most."""
    if not suspects:
        say(f"{model} disagrees with no label")
        return
    is_cut = len(suspects) > MAX_SUSPECTS
    more = f", {MAX_SUSPECTS} of {len(suspects):,} (--html shows more, --json lists all)" if is_cut else ""
    say(f"labels that {model} disagrees with, the strongest doubt first{more}:")
    for suspect in suspects[:MAX_SUSPECTS]:
        row = "" if suspect.instance is None else f"{data.row_noun} {data.rows[suspect.instance]}, "
        say(f"  {suspect.doubt:.2f} {row}image {data.names[suspect.image]}: {suspect.kind}: {suspect.message}")


def _to_json(finding: Problem) -> dict[str, Any]:
    values = dataclasses.asdict(finding)
    del values["instances"]
    return {**values, "severity": str(finding.severity)}


def _show_findings(findings: list[Problem], opened: Dataset, max_examples: int) -> None:
    """Print a table of the kinds, problems first, and the worst `max_examples` findings of each kind."""
    from maskrcnn.data.problem import worst_first

    of_kind = worst_first(findings)
    if not of_kind:
        say("no problems found")
        return
    table = Table("", "finding", title="Findings")
    table.add_column("count", justify="right")
    table.add_column("largest share of a mask", justify="right")
    for kind, found in of_kind.items():
        share = "" if found[0].share is None else f"{found[0].share:.1%}"
        table.add_row(str(found[0].severity), str(kind), f"{len(found):,}", share)
    talk.print(table)
    for kind, found in of_kind.items():
        shown = found[:max_examples]
        is_cut = len(shown) < len(found)
        say(f"{kind}, {len(shown)} of {len(found):,} (--all-problems lists them all):" if is_cut else f"{kind}:")
        for finding in shown:
            say("  " + str(finding).removeprefix(f"{opened.source}, "))
    n_problems = sum(finding.is_problem for finding in findings)
    n_notes = len(findings) - n_problems
    problems = counted(n_problems, "problem") if n_problems else "no problems"
    say(f"{problems} found, {counted(n_notes, 'note')}")


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
        f"{counted(statistics['images'], 'image')}, {statistics['images_without_instances']:,} without objects; "
        f"{counted(statistics['instances'], 'instance')}"
    )
    if statistics["parts"]:
        say(f"parts: {describe_parts(statistics['parts'])}")
    if statistics["crowd_regions"]:
        n_crowd = counted(statistics["crowd_regions"], "crowd region")
        say(f"{n_crowd}: left out of training, as objects and as background")
    say(f"width x height (images): {size_list}" + (f" and {n_unlisted} more sizes" if n_unlisted else ""))
    table = Table(title="Classes")
    for column in ("id", "name", "instances"):
        table.add_column(column, justify="right" if column == "instances" else "left")
    for entry in statistics["classes"]:
        table.add_row(str(entry["id"]), entry["name"], f"{entry['instances']:,}")
    talk.print(table)
