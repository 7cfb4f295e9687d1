"""``report.html``: metrics.jsonl, configuration, `Evaluation` -> sections of HTML -> one self-contained file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any

from maskrcnn import __version__
from maskrcnn.config import Config
from maskrcnn.errors import counted
from maskrcnn.evaluation import Evaluation
from maskrcnn.files import write_text
from maskrcnn.inspection.causes import cause_sections
from maskrcnn.inspection.curves import SCORES, of_kind, read_record, training_sections
from maskrcnn.inspection.diagnosis import Diagnosis
from maskrcnn.inspection.page import Section, facts, folded, page, table
from maskrcnn.inspection.quality import fraction, score_sections

UNSCORED = (
    "<p>There are no validation images, so nothing was scored. The model of the run is the last one, "
    "<code>last.safetensors</code>.</p>"
)

PACKAGES = ("torch", "torchvision", "timm", "numpy", "numba", "openvino", "onnxruntime", "faster-coco-eval")
"""Packages listed with their versions if installed."""


def write_run_report(
    folder: Path,
    evaluation: Evaluation | None,
    step: int,
    say: Callable[[str], None],
    path: Path | None = None,
    diagnosis: Diagnosis | None = None,
) -> None:
    """Write the report of a run to `path`, by default to ``report.html`` in its folder.

    `evaluation` is that of the model after `step` steps, and `diagnosis` belongs to it. Raise nothing: `say` reports
    the error, and the run continues.
    """
    with failures_said(say):
        config, title = Config.load(folder / "config.yaml"), folder.resolve().name
        path = path or folder / "report.html"
        write_report(path, title, config, evaluation, run=folder, step=step, diagnosis=diagnosis)


@contextmanager
def failures_said(say: Callable[[str], None]) -> Iterator[None]:
    """Report any error in the work on a report to `say`, and continue."""
    try:
        yield
    except Exception as error:  # days of training are worth more than a page about them
        say(f"could not write the report, the run continues: {type(error).__name__}: {error}")


def write_report(
    path: Path,
    title: str,
    config: Config,
    evaluation: Evaluation | None,
    *,
    run: Path | None = None,
    step: int | None = None,
    provenance: dict[str, Any] | None = None,
    diagnosis: Diagnosis | None = None,
) -> None:
    """Write the page: the curves of `run`, if any, then `evaluation`, with the causes of a `diagnosis` if it is given.

    `step` says after how many steps the model was evaluated, where that is known.

    Raise `UserError` if it cannot be written.
    """
    entries = read_record(run / "metrics.jsonl") if run is not None else []
    steps, validations = of_kind(entries, "step"), of_kind(entries, "validation")
    sections = training_sections(steps, validations)
    if evaluation is None:
        sections.append(Section("scores", "Scores", UNSCORED))
    else:
        sections += score_sections(evaluation)
        if diagnosis is not None:
            sections += cause_sections(evaluation, diagnosis)
    sections.append(Section("settings", "Configuration and environment", _settings(config, provenance or {})))
    write_text(page(title, _headline(steps, validations, evaluation, step, config), sections), path)


def _headline(
    steps: list[dict[str, Any]],
    validations: list[dict[str, Any]],
    evaluation: Evaluation | None,
    step: int | None,
    config: Config,
) -> str:
    lines = [f"Written {datetime.now():%Y-%m-%d %H:%M} by maskrcnn {__version__}."]
    if steps:
        lines.append(
            f"{counted(steps[-1]['step'], 'step')}, {_duration(sum(e.get('seconds', 0.0) for e in steps))} in total."
        )
    group, key = config.train.select_by.split(".")
    scored = [e for e in validations if e[group][key] is not None]
    if scored:
        best = max(scored, key=lambda e: e[group][key])
        lines.append(f"Best {config.train.select_by}: {fraction(best[group][key])} at step {best['step']:,}.")
    tiles = ""
    if evaluation is not None:
        scores = evaluation.scores
        size = f"{counted(scores['images'], 'image')} with {counted(scores['instances'], 'instance')}"
        after = "" if step is None else f" after step {step:,}"
        lines.append(f"Scored{after} on {size} from {evaluation.data.source.name}.")
        values = {name: fraction(scores[group][key]) for name, (group, key) in SCORES.items()}
        tiles = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in values.items())
        tiles = f'<dl class="tiles">{tiles}</dl>'
    return f'<p class="soft">{escape(" ".join(lines))}</p>{tiles}'


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _settings(config: Config, provenance: dict[str, Any]) -> str:
    parts = [facts("Environment that wrote this page", _environment())]
    if provenance:
        values = {k: v if isinstance(v, str) else json.dumps(v) for k, v in provenance.items()}
        parts.append(folded("Model file", facts("Provenance stored in the model file", values)))
    defaults = Config()
    for group in Config.model_fields:
        parts.append(folded(f"Settings: {group}", _group(group, getattr(config, group), getattr(defaults, group))))
    return "".join(parts)


def _group(name: str, values: Any, defaults: Any) -> str:
    rows = []
    for key, field in type(values).model_fields.items():
        value = getattr(values, key)
        style = ' class="changed"' if value != getattr(defaults, key) else ""
        rows.append(
            f'<tr{style}><th scope="row">{key}</th><td class="value">{escape(_format(value))}</td>'
            f"<td><small>{escape(field.description or '')}</small></td></tr>"
        )
    caption = f"Settings of {name}; bold values differ from the default"
    return table(caption, ("setting", "value", "meaning"), rows, 3)


def _format(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_format, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _environment() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    system = f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} cores"
    return {"maskrcnn": __version__, "Python": platform.python_version(), "system": system, **versions}
