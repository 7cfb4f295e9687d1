"""``maskrcnn predict``."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.progress import Progress

from maskrcnn.cli import SOME_UNREADABLE, STANDARD_INPUT
from maskrcnn.cli.common import Device, Json, Model, PrecisionOption, Proposals, print_json, say, talk, whole_number
from maskrcnn.cli.pictures import UniqueNames, find_files
from maskrcnn.config import PredictConfig, set_values
from maskrcnn.data.images import read_header
from maskrcnn.data.pictures import describe_pages
from maskrcnn.errors import ImageError, UserError, counted
from maskrcnn.structures import Detections


def predict(
    pictures: list[str],
    *,
    model: Model,
    out: Path = Path("predictions"),
    submission: bool = True,
    overlays: bool = True,
    labels: bool = False,
    coco: bool = False,
    overwrite: bool = False,
    image_ids: Literal["auto", "name", "stem"] = "auto",
    like: Path | None = None,
    batch_size: Annotated[int, Parameter(converter=whole_number, validator=Number(gte=1))] = 1,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
    settings: Annotated[PredictConfig | None, Parameter(name="*", group="Prediction")] = None,
    proposals: Proposals = None,
    json: Json = False,
) -> int:
    """Find instances in pictures. Masks are in pixels of the upright picture, as a viewer shows it.

    A model that was trained with --exif ignore gives them in pixels as the file stores them.

    Exits with 3 if pictures could not be read; they are reported and skipped.

    Parameters
    ----------
    pictures
        Files, folders, patterns such as "scans/*.tif", or - for a list on standard input.
        Of two pictures with the same name, the second is written as name-2.
    out
        Folder for all results.
    submission
        Write submission.csv: ImageId, EncodedPixels and, if there are several classes, ClassId.
        Its masks do not overlap: a pixel goes to the highest score.
    overlays
        Write each picture with outlines, boxes, class names and scores to overlays/.
    labels
        Write each picture's instance numbers as a 16-bit image to labels/.
    coco
        Write COCO results to coco.json.
    overwrite
        Replace existing results.
    image_ids
        ImageId of a picture: its file name, or the stem, without suffix. auto follows the training data.
    like
        Sample submission: submission.csv gets its columns, image ids and order of rows, and its empty rows.
        Each of its images must be among the pictures, and the reverse.
    batch_size
        Maximum number of pictures in a batch. Only pictures of the same input shape share one.
    json
        Print one JSON object for each picture.
    """
    from maskrcnn.checkpoints.load import load
    from maskrcnn.inference.limits import LimitCounter
    from maskrcnn.inference.outputs import Writer
    from maskrcnn.inference.submission import Sample

    predictor = load(model, device=device, precision=precision, say=say)
    if settings is not None:
        predictor = predictor.changed(**set_values(settings))
    if proposals is not None:
        predictor = predictor.with_proposals(proposals)
    _check_existing(out, overwrite, submission=submission, overlays=overlays, labels=labels, coco=coco)
    files, names = list(find_files(pictures)), UniqueNames()
    listed = _read_list() if STANDARD_INPUT in pictures else iter(())
    sample: Sample | None = None
    sample_ids: Iterator[str] = iter(())
    if like is not None:
        sample, files, listed = Sample.read(like), [*files, *listed], iter(())
        sample = sample.matched(predictor.class_ids, predictor.class_names)
        sample_ids = iter(sample.ids_of([path for path, _ in files]))
    style = predictor.provenance.get("data", {}).get("names") if image_ids == "auto" else image_ids
    stems = {name.stem for _, name in files}
    without_folders = style == "stem" and STANDARD_INPUT not in pictures and len(stems) == len(files)
    pending: deque[tuple[Path, PurePosixPath, str]] = deque()
    n_pages_of_name: dict[str, int] = {}
    n_pictures = n_instances = n_skipped = 0
    limits = LimitCounter(predictor.config)

    def paths() -> Iterator[Path]:
        for path, name in chain(files, listed):
            unique = names.unique(name)
            image_id = next(sample_ids, None) or _image_id(unique, style, without_folders)
            pending.append((path, unique, image_id))
            with suppress(ImageError):  # prediction reports it
                if (n_pages := read_header(path).n_pages) > 1:
                    n_pages_of_name[str(path)] = n_pages
            yield path

    def report(path: Any, error: Exception) -> None:
        nonlocal n_skipped
        n_skipped += 1
        say(f"skipped: {error}")

    with_class = len(predictor.class_ids) > 1
    writer = Writer(out, overlays=overlays, labels=labels, with_class=with_class, sample=sample)
    with Progress(console=talk, transient=True) as bar, writer.open(submission=submission, coco=coco):
        task = bar.add_task("predicting", total=None)
        for detections in predictor.predict_many(paths(), batch_size=batch_size, keep_pixels=overlays, on_error=report):
            path, name, image_id = pending.popleft()
            while str(path) != detections.image:  # pictures before it were skipped
                path, name, image_id = pending.popleft()
            writer.add(name, image_id, detections)
            limits.add(detections)
            if json:
                print_json(_to_json(detections))
            n_pictures, n_instances = n_pictures + 1, n_instances + len(detections)
            bar.update(task, completed=n_pictures, description=f"predicting {n_pictures:,}")
    counts = f"{counted(n_pictures, 'picture')}, {counted(n_instances, 'instance')}"
    say(counts + (f"; {n_skipped:,} skipped" if n_skipped else ""))
    if writer.left_empty:
        n_empty, example = counted(len(writer.left_empty), "picture"), writer.left_empty[0]
        say(f"submission.csv has an empty row for {n_empty} that could not be read, such as {example}")
    for note in filter(None, (limits.sentence(), describe_pages(n_pages_of_name))):
        say(note)
    written = [out / "submission.csv"] * submission + [out / "coco.json"] * coco
    written += [out / "overlays"] * overlays + [out / "labels"] * labels
    if written:
        say("written: " + ", ".join(map(str, written)))
    return SOME_UNREADABLE if n_skipped else 0


def _image_id(name: PurePosixPath, style: str | None, without_folders: bool) -> str:
    """Name a picture as the training data does: with suffix, as a stem, or as a path without suffix."""
    if style not in ("stem", "path"):
        return str(name)
    return name.stem if without_folders else str(name.with_suffix(""))


def _read_list() -> Iterator[tuple[Path, PurePosixPath]]:
    """Yield the path and the output name of each picture listed on standard input, one on each line."""
    for line in sys.stdin:
        if line.strip():
            path = Path(line.strip())
            yield path, PurePosixPath(path.name)


def _check_existing(out: Path, overwrite: bool, **outputs: bool) -> None:
    """Raise `UserError` if one of the enabled outputs exists and must not be overwritten."""
    places = {"submission": "submission.csv", "overlays": "overlays", "labels": "labels", "coco": "coco.json"}
    for output, enabled in outputs.items():
        path = out / places[output]
        if enabled and not overwrite and path.exists():
            raise UserError(f"{path} exists; choose another --out, or --overwrite it")


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
