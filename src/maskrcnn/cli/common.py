"""Shared by the subcommands: the data options, messages on standard error and results on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, Token
from cyclopts.validators import Number
from pydantic import BeforeValidator
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from maskrcnn.config import Exif, PrecisionChoice
from maskrcnn.data.format_names import MODULES
from maskrcnn.errors import UserError, counted

if TYPE_CHECKING:
    from maskrcnn.data.table import Dataset

FIRST_PROCESS = os.environ.get("RANK", "0") == "0"
"""Whether this process prints: of the processes that torchrun starts and numbers, only the first does."""

talk = Console(stderr=True, highlight=False, quiet=not FIRST_PROCESS)
"""Console for messages, on standard error. Standard output carries results alone."""


FORMAT_LIST = ", ".join(MODULES)
"""The names of all formats, for the help."""


def say(line: str) -> None:
    """Print one line to the user, on standard error."""
    talk.print(line, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print `value` as JSON on one line of standard output."""
    if FIRST_PROCESS:
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()


@contextmanager
def progress_bar(total: int, title: str) -> Iterator[Callable[[float], None]]:
    """Show a progress bar. Yield a function that sets the number of completed items."""
    with Progress(console=talk, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda n_done: bar.update(task, completed=n_done)


def whole_number(_: Any, tokens: Sequence[Token]) -> int:
    """Convert a word of the command line to an integer. cyclopts would round 1.5. Raise `ValueError`."""
    word = tokens[0].value
    try:
        return int(word)
    except ValueError:
        raise ValueError(f"{word!r} is not a whole number") from None


Proposals = Annotated[
    int | None,
    Parameter(
        converter=whole_number,
        validator=Number(gte=1),
        group="Prediction",
        help="Maximum number of proposals of an image. Default: the model's.",
    ),
]


def _words(value: Any) -> Any:
    """Return what a run stores of --class-names as words. Older runs stored a path, or null."""
    return () if value is None else (value,) if isinstance(value, str) else value


@Parameter(name="*", group="Data")
@dataclass(frozen=True)
class ReadOptions:
    """How to read annotations. Format, columns, class names and the image folder are detected unless given."""

    format: Annotated[
        str | None,
        Parameter(help=f"Format of the annotations: {FORMAT_LIST}. Default: what their content shows."),
    ] = None
    part: str | None = None
    """Part of a data set that is divided into train, val and test: read that one alone."""
    images: Path | None = None
    """Image folder. Default: the one near the annotations (images/, train/, ...) that has the pictures they name."""
    column: Annotated[
        tuple[str, ...],
        Parameter(
            help="Name a column that is not recognised: image=NAME, rle=NAME, class=NAME, attributes=NAME, height=NAME "
            "or width=NAME. VIA: class=NAME is the attribute with the class. Label Studio: image=NAME is the key of "
            "the picture."
        ),
    ] = ()
    class_names: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    """Names of the sorted class ids, or a file: JSON such as {"1": "cat"}, or a text with a name on each line."""
    order: Literal["column", "row"] = "column"
    """Tables alone: order in which runs number the pixels: column by column (Kaggle, COCO) or row by row."""
    origin: Literal[0, 1] = 1
    """Tables alone: number of the first pixel. Kaggle counts from 1."""
    relative: bool = False
    """Tables alone: each start is an offset from the end of the previous run."""
    unlisted: Literal["ignore", "empty"] = "ignore"
    """Images that the annotations do not list: ignore them, or keep them as images without objects."""
    depth: Annotated[int | None, Parameter(converter=whole_number)] = None
    """Bits that pictures of more than 8 bits use. Default: the smallest usual depth that holds all of them."""
    exif: Exif = "turn"
    """Pictures with an EXIF orientation: turn them upright, or leave them as stored because masks were drawn so."""

    def open_with(
        self,
        source: Path,
        bad: Literal["error", "skip"],
        say: Callable[[str], None] = say,
        known_headers: Path | None = None,
    ) -> Dataset:
        """Open the data set; `say` gets its summary. Raises `UserError`."""
        from maskrcnn.data.formats import open_dataset

        columns = {}
        for pair in self.column:
            role, _, name = pair.partition("=")
            if not name:
                raise UserError(f"--column {pair!r}: write it like image=NAME")
            columns[role] = name
        return open_dataset(
            source,
            self.images,
            format=self.format,
            part=self.part,
            columns=columns,
            class_names=self._file_of_names() or self.class_names or None,
            order=self.order,
            origin=self.origin,
            relative=self.relative,
            unlisted=self.unlisted,
            bad=bad,
            depth=self.depth,
            exif=self.exif,
            known_headers=known_headers,
            say=say,
        )

    def _file_of_names(self) -> Path | None:
        from maskrcnn.data.formats.classes import is_file_of_names

        if len(self.class_names) == 1 and is_file_of_names(self.class_names[0]):
            return Path(self.class_names[0])
        return None


@Parameter(name="*", group="Data")
@dataclass(frozen=True)
class DataOptions(ReadOptions):
    """How to read annotations, and what to do about bad ones."""

    bad: Literal["error", "skip"] = "error"
    """Bad rows or annotations: stop with an error that lists them, or skip them."""

    def open(self, source: Path, known_headers: Path | None = None) -> Dataset:
        """Open the data set and print its summary. Raises `UserError`."""
        return self.open_with(source, self.bad, known_headers=known_headers)

    def absolute(self) -> DataOptions:
        """Return the same options with absolute paths."""
        names_file = self._file_of_names()
        return replace(
            self,
            images=self.images and self.images.absolute(),
            class_names=(str(names_file.absolute()),) if names_file else self.class_names,
        )


Seed = Annotated[int, Parameter(converter=whole_number, validator=Number(gte=0, lt=2**32))]
Json = Annotated[bool, Parameter(name="--json", negative="")]
Model = Annotated[
    Path, Parameter(help="Run folder, model file or bundle, or the name of a shipped model such as nuclei.")
]
PrecisionOption = Annotated[
    PrecisionChoice,
    Parameter(
        help="Number format of the network. auto: the fastest on this machine of those whose cost in AP the export of "
        "the bundle measured and allowed; without such a measurement, that of the weights."
    ),
]
Device = Annotated[str, Parameter(help="Where to predict: auto, cpu, cuda, cuda:1 or mps.")]


def read_names(path: Path) -> list[str]:
    """Read image names from a text file, one on each line. Raises `UserError`."""
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"cannot read the list of images {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"the list of images {path} is not UTF-8 text") from None


def _score_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def show_scores(scores: dict[str, Any]) -> None:
    """Print the tables of an evaluation."""
    from maskrcnn.evaluation.coco import COCO_MAX_DETECTIONS

    frequencies = [key for key in ("APr", "APc", "APf") if key in scores["mask"]]
    keys = ["AP", "AP50", "AP75", "APs", "APm", "APl", *frequencies, "AR"]
    rule, limit = "LVIS" if frequencies else "COCO", scores["max_detections"]
    table = Table(title=f"{rule}, {counted(scores['images'], 'image')}, up to {limit} detections per image")
    table.add_column("")
    for key in keys:
        table.add_column(key, justify="right")
    for kind in ("box", "mask"):
        table.add_row(kind, *(_score_text(scores[kind][k]) for k in keys), style="bold")
        if len(scores[kind]["per_class"]) > 1:
            for name, values in scores[kind]["per_class"].items():
                table.add_row(f"  {name}", *(_score_text(values[k]) if k in values else "" for k in keys))
    talk.print(table)
    kaggle = scores["kaggle"]
    table = Table(
        title=f"Kaggle: TP / (TP + FP + FN) of masks at each IoU, score >= {kaggle['score_threshold']:g}",
        padding=(0, 0, 0, 1),
        box=SIMPLE,
    )
    table.add_column("mean", justify="right", style="bold")
    for k in range(10):
        table.add_column(f"{0.5 + 0.05 * k:.2f}", justify="right")
    table.add_row(_score_text(kaggle["mean"]), *(_score_text(v) for v in kaggle["per_threshold"]))
    talk.print(table)
    if scores["max_detections"] > COCO_MAX_DETECTIONS and not frequencies:
        say(
            f"COCO's limit of {COCO_MAX_DETECTIONS} detections per image is raised to {scores['max_detections']}: an "
            "image has that many objects or detections"
        )
