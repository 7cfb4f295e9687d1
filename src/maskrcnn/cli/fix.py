"""``maskrcnn check --fix``: all findings about data, their repair, and the log of changes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from maskrcnn.cli.common import ReadOptions, progress_bar, say, talk
from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from maskrcnn.data.doctor.repair import Change
    from maskrcnn.data.problem import Problem
    from maskrcnn.data.table import Dataset

VALUES_OF_OPTION: dict[str, dict[str, Any]] = {
    "--order row": {"order": "row"},
    "--order column": {"order": "column"},
    "--origin 0": {"origin": 0},
    "--origin 1": {"origin": 1},
    "--relative": {"relative": True},
    "--no-relative": {"relative": False},
    "--exif turn": {"exif": "turn"},
    "--exif ignore": {"exif": "ignore"},
}
"""Values of `ReadOptions` for each option that a finding names, beside those for columns."""

FORMAT_OF_SUFFIX = {".csv": "csv", ".json": "coco"}
"""Format of the repaired file."""


def check_target(target: Path, data: Path) -> None:
    """Raise `UserError` unless `target` is a new file of a format that can be written."""
    if target.suffix.lower() not in FORMAT_OF_SUFFIX:
        raise UserError(f"--fix {target}: name a file that ends in {' or '.join(FORMAT_OF_SUFFIX)}")
    for path in (target, log_of(target)):
        if path.exists():
            raise UserError(f"--fix writes new files only, and {path} exists; name another")


def log_of(target: Path) -> Path:
    """Return the file of the changes that made `target`."""
    return target.with_name(f"{target.name}.fixes.jsonl")


def find_all(
    data: Path, options: ReadOptions, opened: Dataset, validation: Dataset | None = None, *, decode: bool = True
) -> list[Problem]:
    """Return all findings about the data set `opened`: those of its reader and those of the doctor."""
    from maskrcnn.data.doctor import find_problems
    from maskrcnn.data.formats.mask_texts import Numbering

    numbering = Numbering(options.order, options.origin, options.relative)
    with progress_bar(len(opened), "checking") as set_done:
        findings = find_problems(opened, decode=decode, numbering=numbering, validation=validation, on_image=set_done)
    findings = [*opened.problems, *findings]
    return findings + _check_orientation(data, options, opened) if decode else findings


def _check_orientation(data: Path, options: ReadOptions, opened: Dataset) -> list[Problem]:
    """Compare both readings of the pictures with an EXIF orientation, and both orders of runs on other square ones."""
    import numpy as np

    from maskrcnn.data.doctor.orientation import find_wrong_order, find_wrong_orientation, turned_images

    turned = turned_images(opened)
    unturned = opened.take(np.setdiff1d(np.arange(len(opened)), turned))
    findings = find_wrong_order(unturned, "column" if options.order == "row" else "row")
    if not len(turned):
        return findings
    other = dataclasses.replace(options, exif="turn" if options.exif == "ignore" else "ignore")
    try:
        reopened = other.open_with(data, "skip", lambda line: None)
    except UserError:  # no picture fits the sizes or masks in the other orientation
        return findings
    return findings + find_wrong_orientation(opened, turned, reopened)


def open_repairable(data: Path, options: ReadOptions) -> tuple[Dataset, ReadOptions, list[Change]]:
    """Open data of which no image can be used, if a problem names the option that makes them usable.

    Return the data, the options with that one, and the change. Raise `UserError` if no option is named.
    """
    from maskrcnn.data.doctor.repair import Action, Change, better_option
    from maskrcnn.data.problem import NoImageError

    try:
        return options.open_with(data, "skip"), options, []
    except NoImageError as error:
        if (problem := better_option(error.problems, [])) is None:
            raise
        say(f"no image can be used as it is: {problem}")
        options = with_option(options, problem.option)
        change = Change(Action.READ_AGAIN, problem.kind, problem.place, option=problem.option)
        return options.open_with(data, "skip"), options, [change]


def write_repaired(
    data: Path,
    options: ReadOptions,
    opened: Dataset,
    findings: list[Problem],
    target: Path,
    earlier: list[Change],
    validation: Dataset | None = None,
    *,
    decode: bool = True,
) -> int:
    """Repair what can be repaired and write it to `target`. Return the number of problems that are left.

    `earlier` are changes that opened the data.
    """
    from maskrcnn.data.doctor.repair import Action, Change, better_option, plan_changes, write_log

    changes = list(earlier)
    current, tried = opened, list[str]()
    while (finding := better_option(findings, tried)) is not None:
        tried.append(finding.option)
        others = with_option(options, finding.option)
        try:
            reopened = others.open_with(data, "skip", lambda line: None)
        except UserError:  # no image can be used so
            continue
        found = find_all(data, others, reopened, validation, decode=decode)
        if sum(f.is_problem for f in found) < sum(f.is_problem for f in findings):
            changes.append(Change(Action.READ_AGAIN, finding.kind, finding.place, option=finding.option))
            current, options, findings = reopened, others, found
    planned = plan_changes(current, findings)
    changes += [change for _, change in planned]
    repaired = [finding for finding, _ in planned]
    left = [finding for finding in findings if finding.is_problem and finding not in repaired]
    _write(current, changes, target)
    write_log(log_of(target), opened, changes)
    _show_changes(changes, left, target, data, options.images)
    return len(left)


def replay_changes(data: Path, options: ReadOptions, opened: Dataset, log: Path, target: Path) -> None:
    """Make the changes of `log` and write the result to `target`. Raise `UserError` if the log is of other data."""
    from maskrcnn.data.doctor.repair import read_log, write_log

    changes = read_log(log, opened)
    current = opened
    for option in [change.option for change in changes if change.option]:
        options = with_option(options, option)
        current = options.open_with(data, "skip", lambda line: None)
    _write(current, changes, target)
    write_log(log_of(target), opened, changes)
    _show_changes(changes, [], target, data, options.images)


def with_option(options: ReadOptions, text: str) -> ReadOptions:
    """Return `options` with one more, as a finding names it: "--order row", "--column height=w --column width=h".

    Raise `UserError` for any other option.
    """
    if text.startswith("--column "):
        columns = [column.strip() for column in text.split("--column ")[1:]]
        return dataclasses.replace(options, column=(*options.column, *columns))
    if text not in VALUES_OF_OPTION:
        raise UserError(f"{text!r} is no option that a repair can name; they are {', '.join(VALUES_OF_OPTION)}")
    return dataclasses.replace(options, **VALUES_OF_OPTION[text])


def _write(data: Dataset, changes: list[Change], target: Path) -> None:
    """Make the changes and write the result."""
    from maskrcnn.data.doctor.repair import apply_changes
    from maskrcnn.data.formats import write_dataset
    from maskrcnn.data.formats.writable import describe_left_out

    repaired = apply_changes(data, changes)
    left_out = write_dataset(repaired, target, FORMAT_OF_SUFFIX[target.suffix.lower()])
    masks, images = (
        f"{repaired.n_instances - sum(left_out.values()):,} of {data.n_instances:,} masks",
        f"{len(repaired):,} of {len(data):,} images",
    )
    say(f"wrote {target}: {masks}, {images}")
    if left_out:
        say(describe_left_out(left_out, FORMAT_OF_SUFFIX[target.suffix.lower()]))


def _show_changes(changes: list[Change], left: list[Problem], target: Path, data: Path, images: Path | None) -> None:
    """Print a table of the changes by action and kind, and what is left."""
    counts = Counter((str(change.action), str(change.kind)) for change in changes)
    if counts:
        table = Table("change", "because of", title="Repairs")
        table.add_column("count", justify="right")
        for (action, kind), n in counts.items():
            table.add_row(action, kind, f"{n:,}")
        talk.print(table)
    say(f"wrote {log_of(target)}: {len(changes):,} change{'' if len(changes) == 1 else 's'}")
    if left:
        kinds = ", ".join(f"{kind} ({n:,})" for kind, n in Counter(str(finding.kind) for finding in left).items())
        say(f"left for you to judge: {kinds}")
    is_beside = target.absolute().parent == data.absolute().parent
    folder = f" --images {images}" if images else "" if is_beside else " --images FOLDER"
    say(f"check it with: maskrcnn check {target}{folder}")
