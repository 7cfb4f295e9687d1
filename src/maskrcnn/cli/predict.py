"""``maskrcnn predict``."""

from __future__ import annotations

import glob
import sys
from collections import deque
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.progress import Progress

from maskrcnn.cli import STANDARD_INPUT
from maskrcnn.cli.common import JsonFlag, print_json, say, talk
from maskrcnn.config import PredictConfig
from maskrcnn.data.images import SUFFIXES
from maskrcnn.errors import UserError
from maskrcnn.structures import Detections

SOME_UNREADABLE = 3


def predict(
    pictures: list[str],
    *,
    model: Path,
    out: Path = Path("predictions"),
    submission: bool = True,
    overlays: bool = True,
    labels: bool = False,
    coco: bool = False,
    overwrite: bool = False,
    image_ids: Literal["auto", "name", "stem"] = "auto",
    batch_size: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    device: str = "auto",
    settings: Annotated[PredictConfig | None, Parameter(name="*", group="Prediction")] = None,
    json: JsonFlag = False,
) -> int:
    """Find instances in pictures; masks are in the pixels of each picture as a viewer shows it.

    A picture that cannot be read is reported and left out; the exit status is then 3.

    Parameters
    ----------
    pictures
        Files, folders, patterns such as "scans/*.tif", or - for a list on standard input. Where two have one name,
        the second is called name-2.
    model
        Run folder or model file.
    out
        Folder for everything that is written.
    submission
        Write submission.csv (ImageId,EncodedPixels and ClassId where there are several). Masks do not overlap there:
        the highest score keeps the pixel.
    overlays
        Write each picture with outlines, boxes, names and scores to overlays/.
    labels
        Write 16-bit pictures of instance numbers to labels/.
    coco
        Write COCO results to coco.json.
    overwrite
        Replace results that are already there.
    image_ids
        What the submission calls a picture: its file name, or that without suffix; auto does as the training data did.
    batch_size
        Pictures of one shape that go through the network together.
    device
        auto, cpu, cuda, cuda:1 or mps.
    json
        Print one JSON object a picture.
    """
    from maskrcnn.checkpoints import load
    from maskrcnn.inference.outputs import Writer

    predictor = load(model, device=device)
    if settings is not None:
        predictor = predictor.changed(**settings.model_dump(exclude_unset=True))
    _require_free(out, overwrite, submission=submission, overlays=overlays, labels=labels, coco=coco)
    given, names = list(_find(pictures)), _Names()
    short = predictor.provenance.get("data", {}).get("names") == "stem" if image_ids == "auto" else image_ids == "stem"
    waiting: deque[tuple[Path, PurePosixPath]] = deque()
    failures = 0

    def paths() -> Iterator[Path]:
        for path, name in chain(given, _listed() if STANDARD_INPUT in pictures else ()):
            waiting.append((path, names.unique(name)))
            yield path

    def report(path: Any, error: Exception) -> None:
        nonlocal failures
        failures += 1
        say(f"left out: {error}")

    writer = Writer(out, overlays=overlays, labels=labels, with_class=len(predictor.class_ids) > 1)
    done = found = 0
    with Progress(console=talk, transient=True) as bar, writer.open(submission=submission, coco=coco):
        task = bar.add_task("predicting", total=None)
        for detections in predictor.predict_many(paths(), batch_size=batch_size, keep_pixels=overlays, on_error=report):
            path, name = waiting.popleft()
            while str(path) != detections.image:  # those before it could not be read
                path, name = waiting.popleft()
            image_id = str(name.with_suffix("") if short else name)
            writer.add(name, image_id, detections)
            if json:
                print_json(_to_json(detections))
            done, found = done + 1, found + len(detections)
            bar.update(task, completed=done, description=f"predicting {done:,}")
    say(f"{done:,} pictures, {found:,} instances" + (f", {failures:,} pictures left out" if failures else ""))
    written = [out / "submission.csv"] * submission + [out / "coco.json"] * coco
    written += [out / "overlays"] * overlays + [out / "labels"] * labels
    if written:
        say("written: " + ", ".join(map(str, written)))
    return SOME_UNREADABLE if failures else 0


def _find(pictures: list[str]) -> Iterator[tuple[Path, PurePosixPath]]:
    """Each picture named on the command line with its name under the output folder."""
    for text in pictures:
        path = Path(text)
        if text == STANDARD_INPUT:
            continue
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise UserError(f"the folder {path} holds no pictures")
            yield from ((p, PurePosixPath(p.relative_to(path).as_posix())) for p in inside)
        elif path.exists() or not glob.has_magic(text):
            yield path, PurePosixPath(path.name)
        else:
            matches = sorted(glob.glob(text, recursive=True))
            if not matches:
                raise UserError(f"nothing matches {text!r}")
            yield from ((Path(m), PurePosixPath(Path(m).name)) for m in matches)


def _listed() -> Iterator[tuple[Path, PurePosixPath]]:
    """Pictures listed on standard input, one a line."""
    for line in sys.stdin:
        if line.strip():
            path = Path(line.strip())
            yield path, PurePosixPath(path.name)


class _Names:
    """Keeps pictures of one name apart: the second ``a.png``, or an ``a.jpg`` beside it, becomes ``a-2``."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def unique(self, name: PurePosixPath) -> PurePosixPath:
        found, number = name, 1
        while str(found.with_suffix("")) in self.taken:
            number += 1
            found = name.with_name(f"{name.stem}-{number}{name.suffix}")
        self.taken.add(str(found.with_suffix("")))
        return found


def _require_free(out: Path, overwrite: bool, **kinds: bool) -> None:
    places = {"submission": "submission.csv", "overlays": "overlays", "labels": "labels", "coco": "coco.json"}
    for kind, wanted in kinds.items():
        if wanted and not overwrite and (out / places[kind]).exists():
            raise UserError(f"{out / places[kind]} exists; choose another --out, or --overwrite it")


def _to_json(detections: Detections) -> dict[str, Any]:
    entries = detections.to_coco(str(detections.image))
    return {
        "image": detections.image,
        "height": detections.hw[0],
        "width": detections.hw[1],
        "detections": [
            {
                "class_id": entry["category_id"],
                "class_name": detections.class_names[k],
                "score": entry["score"],
                "box": [round(float(v), 3) for v in detections.boxes[k]],
                "segmentation": entry["segmentation"],
            }
            for k, entry in enumerate(entries)
        ],
    }
