"""What several subcommands share: how data is named on the command line, and where words and results go."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from maskrcnn.data.table import Dataset

FIRST_PROCESS = os.environ.get("RANK", "0") == "0"
"""Of those that torchrun starts, which numbers them, one speaks for all."""

talk = Console(stderr=True, highlight=False, quiet=not FIRST_PROCESS)
"""Words for people go to standard error; standard output is for results."""


def say(line: str) -> None:
    """One line for people."""
    talk.print(line, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON object on one line of standard output."""
    if FIRST_PROCESS:
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()


@contextmanager
def counting(total: int, title: str) -> Iterator[Callable[[int], None]]:
    """A progress bar; call what it yields with the number of things done."""
    with Progress(console=talk, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)


@Parameter(name="*", group="Data")
@dataclass(frozen=True)
class DataOptions:
    """How to read a data set; everything is found out where it is not given."""

    images: Path | None = None
    """Folder of the images; by default images/ or train/ beside the CSV, or its own folder."""
    column: tuple[str, ...] = ()
    """A column that is not recognised by its name: image=NAME, rle=NAME, class=NAME, height=NAME or width=NAME."""
    class_names: Path | None = None
    """JSON file of class names, such as {"1": "cat"}."""
    order: Literal["column", "row"] = "column"
    """Whether runs count pixels down the columns (Kaggle, COCO) or along the rows."""
    origin: Literal[0, 1] = 1
    """Number of the first pixel: Kaggle's is 1."""
    relative: bool = False
    """Whether starts count from the end of the run before."""
    unlisted: Literal["ignore", "empty"] = "ignore"
    """Whether images that the CSV lacks are left out or taken as images without objects."""
    bad: Literal["error", "skip"] = "error"
    """Whether bad rows stop everything or are left out."""

    def open(self, source: Path) -> Dataset:
        """The data set, with what was found said."""
        from maskrcnn.data.formats import open_dataset

        columns = {}
        for pair in self.column:
            role, _, name = pair.partition("=")
            if not name:
                raise UserError(f"--column {pair!r} is not like image=NAME")
            columns[role] = name
        return open_dataset(
            source,
            self.images,
            columns=columns,
            class_names=self.class_names,
            order=self.order,
            origin=self.origin,
            relative=self.relative,
            unlisted=self.unlisted,
            bad=self.bad,
            say=say,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values with absolute paths, to be written beside a run."""
        paths = {k: str(p.absolute()) if (p := getattr(self, k)) else None for k in ("images", "class_names")}
        rest = ("order", "origin", "relative", "unlisted", "bad")
        return {**paths, "column": list(self.column), **{k: getattr(self, k) for k in rest}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataOptions:
        """The inverse of `to_dict`."""
        paths = {k: Path(values[k]) if values[k] else None for k in ("images", "class_names")}
        return cls(**{**values, **paths, "column": tuple(values["column"])})


Seed = Annotated[int, Parameter(validator=Number(gte=0, lt=2**32))]
JsonFlag = Annotated[bool, Parameter(name="--json", negative="")]


def read_names(path: Path) -> list[str]:
    """Image names, one a line."""
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"cannot read the list of images {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"the list of images {path} is not UTF-8 text") from None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def show_scores(scores: dict[str, Any]) -> None:
    """The tables of an evaluation, for people."""
    keys = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR"]
    table = Table(title=f"COCO, {scores['images']} images, up to {scores['max_detections']} detections an image")
    table.add_column("")
    for key in keys:
        table.add_column(key, justify="right")
    for kind in ("box", "mask"):
        table.add_row(kind, *(_number(scores[kind][k]) for k in keys), style="bold")
        if len(scores[kind]["per_class"]) > 1:
            for name, values in scores[kind]["per_class"].items():
                table.add_row(f"  {name}", *(_number(values[k]) if k in values else "" for k in keys))
    talk.print(table)
    kaggle = scores["kaggle"]
    table = Table(
        title=f"Kaggle: TP / (TP + FP + FN) of masks at each IoU, scores from {kaggle['score_threshold']:g}",
        padding=(0, 0, 0, 1),
        box=SIMPLE,
    )
    table.add_column("mean", justify="right", style="bold")
    for k in range(10):
        table.add_column(f"{0.5 + 0.05 * k:.2f}", justify="right")
    table.add_row(_number(kaggle["mean"]), *(_number(v) for v in kaggle["per_threshold"]))
    talk.print(table)
    if scores["max_detections"] > 100:
        say(f"COCO's limit of 100 detections an image was raised to {scores['max_detections']}: the data needs it")
