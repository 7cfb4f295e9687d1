"""``maskrcnn train``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from pydantic import TypeAdapter

from maskrcnn.cli import INTERRUPTED
from maskrcnn.cli.common import DataOptions, Json, print_json, read_names, say, show_scores, talk
from maskrcnn.config import VALIDATION_SHARE, Config, validated
from maskrcnn.data.parts import for_scoring, for_training, train_and_val
from maskrcnn.errors import UserError, counted
from maskrcnn.files import read_json
from maskrcnn.settings import Settings

if TYPE_CHECKING:
    from maskrcnn.data.table import Dataset


@dataclass(frozen=True)
class Source:
    """The data of a run and their split, kept as ``state/data.json`` for a resume.

    Without `val`, `val_ids` and `val_data`, the source's own part "val" validates if there is one.
    """

    data: Path
    options: DataOptions
    val: float | None
    val_ids: list[str] | None
    val_data: Path | None

    def open(self, seed: int, known_headers: Path | None = None) -> tuple[Dataset, Dataset]:
        """Open the images to train on and those to validate on. Raises `UserError`."""
        opened = self.options.open(self.data, known_headers)
        trained, note = (opened, None) if self.options.part else for_training(opened)
        if self.val_data is not None:
            val, note_on_val = for_scoring(replace(self.options, part=None).open(self.val_data, known_headers))
        elif self.val_ids is not None:
            trained, val = opened.split_by_names(self.val_ids)
            (trained, note), note_on_val = for_training(trained), None
        elif self.val is None and (division := train_and_val(trained)) is not None:
            trained, val, note_on_val = division
        else:
            (trained, val), note_on_val = trained.split(VALIDATION_SHARE if self.val is None else self.val, seed), None
        for line in filter(None, (note, note_on_val)):
            say(line)
        return trained, val


def train(
    data: Path | None = None,
    *,
    val: Annotated[
        float | None,
        Parameter(
            help="Share of the images that is kept for validation. Default: the data's own part val, or "
            f"{VALIDATION_SHARE:g} without one. 0 trains on all images but those of a part test, without scores; the "
            "model is then the last one."
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
    """Train on annotated images.

    Parameters
    ----------
    data
        Annotations: a file or a folder of any format.
    val_ids
        File with the names of the validation images, one on each line.
    val_data
        Separate validation data: annotations of any format, read with the same options.
    out
        Run folder. Default: runs/NAME, where NAME is that of the folder that DATA lies in.
    resume
        Run folder to continue, with the data and settings that it began with.
    preset
        Settings to start from. Default: resnet50 on a CUDA GPU, else lite.
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
    else:
        if data is None:
            raise UserError("name the annotations to train on, or a run to --resume")
        if sum(v is not None for v in (val, val_ids, val_data)) > 1:
            raise UserError("--val, --val-ids and --val-data exclude each other: give one")
        settings = Settings.build(preset, config, values)
        source = Source(
            data=data.absolute(),
            val=val,
            val_ids=read_names(val_ids) if val_ids is not None else None,
            val_data=val_data.absolute() if val_data is not None else None,
            options=(options or DataOptions()).absolute(),
        )
        out = out or Path("runs") / (data.absolute().parent.name or data.stem)
    parts = source.open(settings.config.train.seed, out / "state" / "headers.json")
    images = f"{counted(len(parts[0]), 'image')} to train on"
    say(f"{images}, {len(parts[1]):,} to validate; run folder {out}")
    from maskrcnn.training.loop import train as run_training

    kept = TypeAdapter(Source).dump_python(source, mode="json")
    run = run_training(*parts, out=out, config=settings, resume=resume is not None, source=kept, console=talk)
    if run.scores is not None:
        show_scores(run.scores)
    if json:
        print_json({**(run.scores or {}), "run": str(out), "finished": run.finished})
    if run.finished:
        if (out / "report.html").exists():
            say(f"report: {out / 'report.html'}")
        say(f"model: {out}  (maskrcnn evaluate, maskrcnn predict --model {out})")
    return 0 if run.finished else INTERRUPTED


def _read_source(run: Path) -> Source:
    path = run / "state" / "data.json"
    try:
        return validated(Source, read_json(path), str(path))
    except UserError as error:
        raise UserError(
            f"{run} cannot be resumed from the command line: {error}. Check that {run} is a run folder. A run that was "
            "started from Python continues with maskrcnn.train(..., resume=True)"
        ) from None
