"""Label Studio's tasks: which annotation of a task counts, and which results of it are one region."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from maskrcnn.data.formats.annotations import Annotations
from maskrcnn.data.formats.source import Fields, Source, decoded, each, read_bytes, starts_with
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.errors import UserError

NOTHING = msgspec.Raw(b"[]")

RESULTS = {"annotations", "completions", "predictions"}
"""Keys of a task that hold results; completions are the annotations of version 0."""

OF_MINIMAL_EXPORT = {"annotation_id", "annotator", "lead_time"}
"""Keys that entries of JSON-MIN have beside the data and the results."""

FORMS = ("rle", "points", "radiusX", "x", "vertices", "imageDataURL")
"""Keys that say where a region is."""


class Work(msgspec.Struct):
    """Results of one person, or of a model."""

    result: list[msgspec.Raw] | None = None
    was_cancelled: bool | None = False
    skipped: bool | None = False
    ground_truth: bool | None = False
    score: float | None = None


class Task(msgspec.Struct):
    """A picture to label. Some exports list the numbers of predictions in place of these."""

    data: dict[str, Any]
    id: int | str | None = None
    annotations: list[Work | int] = []
    completions: list[Work | int] = []
    predictions: list[Work | int] = []
    file: Path = Path()
    number: int = 0


class Meta(msgspec.Struct):
    """What people wrote about a region."""

    text: list[str] | str = []


class Result(msgspec.Struct):
    """An entry of a result: of a region, of a relation of two, or of the whole picture."""

    value: Fields = {}
    type: str = ""
    id: str | None = None
    original_width: float | None = None
    original_height: float | None = None
    score: float | None = None
    meta: Meta | None = None


@dataclass(frozen=True)
class Chosen:
    """A task with the results that count."""

    task: Task
    results: list[msgspec.Raw]
    score: float | None = None

    @property
    def place(self) -> str:
        """Where the task stands."""
        return f"{self.task.file}, task {self.task.number if self.task.id is None else self.task.id}"


@dataclass
class Region:
    """What the results of one region say: where it is (`form`), its labels, and what else people said of it."""

    number: int
    type: str
    hw: tuple[int | None, int | None]
    form: Fields = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    score: float | None = None


def task_files(source: Source) -> list[Path]:
    """Return the file, or those of the folder, that list tasks."""
    files = []
    for file in source.having_suffix(".json"):
        try:
            if _lists_tasks(file):
                files.append(file)
        except UserError:
            if source.path.is_file():
                raise
    return files


def _content(file: Path) -> bytes:
    """Return the bytes of a file, which are valid text at any depth. Raise `UserError`."""
    content = read_bytes(file)
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text: {error}") from None
    return content


def _lists_tasks(file: Path) -> bool:
    content = _content(file)
    if not content.lstrip().startswith(b"["):
        return False
    first = next(iter(decoded(content, list[msgspec.Raw], file)), NOTHING)
    if not starts_with(first, b"{"):
        return False
    keys = set(decoded(first, Fields, file, "task 1"))
    return ("data" in keys and bool(RESULTS & keys)) or bool(OF_MINIMAL_EXPORT & keys)


def read_tasks(file: Path, problems: list[Problem]) -> list[Task]:
    """Return the tasks of a file; malformed ones become problems. Entries of JSON-MIN of one task are joined."""
    tasks: list[Task] = []
    of_id: dict[int | str, Task] = {}
    for number, raw in each(msgspec.Raw(_content(file)), msgspec.Raw, file, "task", problems):
        try:
            fields = decoded(raw, Fields, file, f"task {number}")
            is_minimal = "data" not in fields
            task = _task_of_minimal_export(fields) if is_minimal else decoded(raw, Task, file, f"task {number}")
        except UserError as error:
            fault = str(error).partition(" cannot be read: ")[2]
            problems.append(Problem(Kind.BAD_ROW, f"{file}, task {number}", fault))
            continue
        if is_minimal and task.id in of_id:
            of_id[task.id].annotations += task.annotations
            continue
        task.file, task.number = file, number
        tasks.append(task)
        if task.id is not None:
            of_id[task.id] = task
    return tasks


def _task_of_minimal_export(fields: Fields) -> Task:
    """Return the task of an entry whose results stand beside the data, under the names of their tags."""
    data, results = {}, []
    for key, raw in fields.items():
        values = msgspec.json.decode(raw, type=list[msgspec.Raw]) if starts_with(raw, b"[") else []
        for value in values:
            entry = msgspec.json.decode(value, type=Fields) if starts_with(value, b"{") else {}
            if "original_width" in entry:
                sides = {side: entry.pop(side) for side in ("original_width", "original_height") if side in entry}
                results.append(msgspec.Raw(msgspec.json.encode({"value": entry, "type": key} | sides)))
        if not values and not starts_with(raw, b"{"):
            data[key] = msgspec.json.decode(raw)
    number = data.get("id")
    return Task(data, number if isinstance(number, int | str) else None, [Work(results)])


def choose(task: Task, decisions: Counter[tuple[str, str]]) -> Chosen | None:
    """Return the ground truth, else the first annotation that was not cancelled, else the first prediction.

    None if the task has none of these. `decisions` counts what people should know.
    """
    works = [work for work in task.annotations or task.completions if isinstance(work, Work)]
    finished = [work for work in works if not (work.was_cancelled or work.skipped)]
    if finished:
        if len(finished) > 1:
            decisions["tasks with several annotations", "count with their ground truth, or else their first one"] += 1
        work = next((work for work in finished if work.ground_truth), finished[0])
        return Chosen(task, work.result or [])
    if works:
        decisions["tasks that annotators cancelled", "are left out"] += 1
        return None
    predictions = [work for work in task.predictions if isinstance(work, Work)]
    if not predictions:
        decisions["tasks without an annotation", "are left out"] += 1
        return None
    decisions["tasks without an annotation", "are read as their predictions"] += 1
    return Chosen(task, predictions[0].result or [], predictions[0].score)


def merge_results(chosen: Chosen, annotations: Annotations) -> list[Region]:
    """Return the regions of a task: results of one id say where a region is, its labels, and more about it.

    Malformed results become problems of `annotations`, and those that are about no region count as left out.
    """
    regions: dict[str, Region] = {}
    array = msgspec.Raw(b"[%s]" % b",".join(map(bytes, chosen.results)))
    noun = f"{chosen.place.removeprefix(f'{chosen.task.file}, ')}, result"
    for number, result in each(array, Result, chosen.task.file, noun, annotations.problems):
        height, width = (int(side) if side else None for side in (result.original_height, result.original_width))
        new = Region(number, result.type, (height, width), score=chosen.score)
        region = regions.setdefault(result.id or f"result {number}", new)
        if not region.form and any(key in result.value for key in FORMS):
            region.form, region.number, region.type, region.hw = result.value, number, result.type, (height, width)
        for key, raw in result.value.items():
            if key.endswith("labels") and starts_with(raw, b"["):
                region.labels += [label for label in _texts(raw) if label not in region.labels]
            elif key in ("choices", "text"):
                region.texts += [text for text in _texts(raw) if text not in region.texts]
        if result.meta is not None:
            region.texts += [result.meta.text] if isinstance(result.meta.text, str) else result.meta.text
        if result.score is not None:
            region.score = result.score
    for region in regions.values():
        if not region.form:
            annotations.left_out[f"results of the type {region.type or 'unknown'}"] += 1
    return [region for region in regions.values() if region.form]


def _texts(raw: msgspec.Raw) -> list[str]:
    """Return a text or the texts of a list, as such."""
    value = msgspec.json.decode(raw)
    values = value if isinstance(value, list) else [value]
    return [str(one) for one in values if one not in ("", None)]
