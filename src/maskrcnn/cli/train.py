"""``maskrcnn train``."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from maskrcnn.cli import INTERRUPTED
from maskrcnn.cli.common import DataOptions, Json, print_json, read_names, say, show_scores, talk
from maskrcnn.config import VALIDATION_SHARE, Config
from maskrcnn.errors import UserError
from maskrcnn.settings import Settings


def train(
    data: Path | None = None,
    *,
    val: Annotated[
        float | None,
        Parameter(
            help=f"Share of the images that is kept for validation. Default: {VALIDATION_SHARE:g}. 0 trains on all "
            "images, without scores; the model is then the last one."
        ),
    ] = None,
    val_ids: Path | None = None,
    val_data: Path | None = None,
    out: Path | None = None,
    resume: Path | None = None,
    preset: Literal["lite", "resnet50", "resnet101"] | None = None,
    config: Path | None = None,
    options: DataOptions | None = None,
    values: Annotated[Config | None, Parameter(name="*")] = None,
    json: Json = False,
) -> int:
    """Train on a CSV of run-length masks and a folder of images.

    Parameters
    ----------
    data
        The CSV file.
    val_ids
        File with the names of the validation images, one on each line.
    val_data
        A separate CSV for validation, read with the same options.
    out
        Run folder. Default: runs/NAME, where NAME is that of the CSV's folder.
    resume
        Run folder to continue, with the data and settings that it began with.
    preset
        Settings to start from. Default: lite.
    config
        YAML file of settings that change the preset, such as an earlier run's config.yaml.
    json
        Print the scores of the best validation, if any, as one JSON object.
    """
    if resume is not None:
        if any(v is not None for v in (data, val, val_ids, val_data, out, preset, config, options, values)):
            raise UserError("--resume takes data and settings from the run; leave out all other options")
        source = _read_source(resume)
        settings, out = Settings.of(Config.load(resume / "config.yaml")), resume
        data_options = DataOptions.from_dict(source["options"])
    else:
        if data is None:
            raise UserError("name the CSV of masks to train on, or a run to --resume")
        if sum(v is not None for v in (val, val_ids, val_data)) > 1:
            raise UserError("--val, --val-ids and --val-data exclude each other: give one")
        settings = Settings.build(preset or "lite", config, values)
        data_options = options or DataOptions()
        source = {
            "data": str(data.absolute()),
            "val": VALIDATION_SHARE if val is None else val,
            "val_ids": read_names(val_ids) if val_ids is not None else None,
            "val_data": str(val_data.absolute()) if val_data else None,
            "options": data_options.to_dict(),
        }
        out = out or Path("runs") / (data.absolute().parent.name or data.stem)
    opened = data_options.open(Path(source["data"]))
    if source["val_data"]:
        parts = opened, data_options.open(Path(source["val_data"]))
    elif source["val_ids"] is not None:
        parts = opened.split_by_names(source["val_ids"])
    else:
        parts = opened.split(source["val"], settings.config.train.seed)
    images = f"{len(parts[0]):,} image{'s' if len(parts[0]) > 1 else ''} to train on"
    say(f"{images}, {len(parts[1]):,} to validate; run folder {out}")
    from maskrcnn.training.loop import train as run_training

    run = run_training(*parts, out=out, config=settings, resume=resume is not None, source=source, console=talk)
    if run.scores is not None:
        show_scores(run.scores)
    if json:
        print_json({**(run.scores or {}), "run": str(out), "finished": run.finished})
    if run.finished:
        if (out / "report.html").exists():
            say(f"report: {out / 'report.html'}")
        say(f"model: {out}  (maskrcnn evaluate, maskrcnn predict --model {out})")
    return 0 if run.finished else INTERRUPTED


def _read_source(run: Path) -> dict[str, Any]:
    path = run / "state" / "data.json"
    try:
        return json_module.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        raise UserError(
            f"{run} cannot be resumed from the command line: {path} is missing or damaged. Check that {run} is a run "
            "folder. A run that was started from Python continues with maskrcnn.train(..., resume=True)"
        ) from None
