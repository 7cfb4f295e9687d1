"""``maskrcnn inspect``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from cyclopts import Parameter

from maskrcnn.cli import SOME_UNREADABLE
from maskrcnn.cli.common import (
    DataOptions,
    Device,
    Json,
    Model,
    PrecisionOption,
    Proposals,
    print_json,
    progress_bar,
    say,
)
from maskrcnn.cli.pictures import UniqueNames, find_files
from maskrcnn.config import PredictConfig, set_values
from maskrcnn.errors import ImageError, UserError, counted

if TYPE_CHECKING:
    from maskrcnn.data.table import Dataset
    from maskrcnn.inference.predictor import Predictor
    from maskrcnn.inspection.trace import Trace


@dataclass(frozen=True)
class _Job:
    """A picture, its name, the page to write, and the index of the picture in the truth."""

    picture: Path
    name: PurePosixPath
    page: Path
    true_image: int | None


def inspect(
    pictures: list[str],
    *,
    model: Model,
    out: Annotated[Path, Parameter(name=("--out", "-o"))],
    truth: Path | None = None,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
    options: DataOptions | None = None,
    settings: Annotated[PredictConfig | None, Parameter(name="*", group="Prediction")] = None,
    proposals: Proposals = None,
    json: Json = False,
) -> int:
    """Write a page that walks a picture through every stage of its prediction, to try settings and follow detections.

    The page is one file that needs no network. The network runs three times for each picture.

    Exits with 3 if pictures could not be read; they are reported and skipped.

    Parameters
    ----------
    pictures
        Files, folders or patterns such as "scans/*.tif".
    out
        Page to write, an .html file. For several pictures, it lists their pages, which are in a folder of its name.
    truth
        Annotations of any format that hold the pictures: the page also shows losses and why objects are missed.
    json
        Print one JSON object for each picture.
    """
    from maskrcnn.checkpoints.load import load

    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"-o {out}: the page is an HTML file; write it like {out.with_suffix('.html')}")
    if options is not None and truth is None:
        raise UserError("data options such as --images apply to --truth; name its annotations, or leave them out")
    found = list(find_files(pictures))
    predictor = load(model, device=device, precision=precision, say=say)
    if settings is not None:
        predictor = predictor.changed(**set_values(settings))
    if proposals is not None:
        predictor = predictor.with_proposals(proposals)
    data: Dataset | None = None
    if truth is not None:
        data = (options or DataOptions()).open(truth).without_crowd
        predictor = predictor.oriented(data.reading.exif)
    jobs = _jobs(found, out, data)
    entries: list[dict[str, str]] = []
    with progress_bar(len(jobs), "inspecting") as set_done:
        for n_done, job in enumerate(jobs, 1):
            try:
                trace = _write_page(predictor, job, data, out if len(jobs) > 1 else None)
            except ImageError as error:
                if len(jobs) == 1:
                    raise
                say(f"skipped: {error}")
            else:
                entries.append(_entry(trace, job, out))
                if json:
                    print_json(_to_json(trace, job))
            set_done(n_done)
    if not entries:
        raise UserError("none of the pictures could be read")
    if len(jobs) > 1:
        from maskrcnn.files import write_text
        from maskrcnn.inspection.inspect_page import inspect_index

        write_text(inspect_index(out.stem, entries), out)
        say(f"wrote {out} and {counted(len(entries), 'page')} in {_folder(out)}")
    else:
        say(f"wrote {out}")
    return SOME_UNREADABLE if len(entries) < len(jobs) else 0


def _folder(out: Path) -> Path:
    """The folder of the pages that `out` lists."""
    return out.with_suffix("")


def _jobs(found: list[tuple[Path, PurePosixPath]], out: Path, data: Dataset | None) -> list[_Job]:
    """Say what is to be done. Raise `UserError` for a picture that the truth lacks."""
    names, jobs = UniqueNames(), []
    for picture, name in found:
        unique = names.unique(name)
        page = out if len(found) == 1 else _folder(out) / unique.with_suffix(".html")
        jobs.append(_Job(picture, unique, page, None if data is None else _place(data, picture)))
    return jobs


def _place(data: Dataset, picture: Path) -> int:
    """The index of a picture in the data. Raise `UserError` if it is not there, or if several have its name."""
    from maskrcnn.data.names import PathIndex

    places = PathIndex(data.names).find(picture.as_posix()).indices
    if len(places) > 1:
        places = [i for i in places if data.files[i].resolve() == picture.resolve()] or places
    if not places:
        examples = ", ".join(data.names[:3])
        raise UserError(
            f"{data.source} has no picture named {picture.name}; it has {counted(len(data), 'picture')} such as "
            f"{examples}. Name one of these, or leave out --truth"
        )
    if len(places) > 1:
        examples = ", ".join(data.names[i] for i in places[:3])
        raise UserError(
            f"{picture} may be any of several pictures of {data.source}: {examples}; write more of its path"
        )
    return places[0]


def _write_page(predictor: Predictor, job: _Job, data: Dataset | None, index: Path | None) -> Trace:
    from maskrcnn.files import write_text
    from maskrcnn.inspection.inspect_page import inspect_page, trace_picture
    from maskrcnn.inspection.replay import replay

    truth = (data, job.true_image) if data is not None and job.true_image is not None else None
    try:
        trace = trace_picture(predictor, job.picture, truth)
    except ImageError:
        raise
    except UserError as error:
        raise UserError(f"{job.picture}: {error}") from None
    back = None if index is None else "../" * len(job.name.parts) + quote(index.name)
    html = inspect_page(predictor, str(job.name), trace, replay(predictor, job.picture, trace), back)
    write_text(html, job.page)
    return trace


def _missed(trace: Trace) -> int | None:
    from maskrcnn.inspection.explain import FOUND

    if trace.truth is None:
        return None
    return sum(trace.explain(k).cause != FOUND for k in range(len(trace.truth.masks)))


def _entry(trace: Trace, job: _Job, out: Path) -> dict[str, str]:
    from maskrcnn.inspection.gallery import thumbnail

    n_missed = _missed(trace)
    sentence = counted(len(trace.detections), "detection")
    if trace.truth is not None:
        sentence += f"; {n_missed:,} of {counted(len(trace.truth.masks), 'object')} missed"
        if trace.truth.n_unknown:
            sentence += f", {trace.truth.n_unknown:,} more of classes that the model does not know"
    address = quote(job.page.relative_to(out.parent).as_posix())
    return {"name": str(job.name), "address": address, "thumbnail": thumbnail(trace.detections), "sentence": sentence}


def _to_json(trace: Trace, job: _Job) -> dict[str, Any]:
    values: dict[str, Any] = {"image": str(job.picture), "page": str(job.page), "detections": len(trace.detections)}
    if trace.truth is not None:
        values |= {"objects": len(trace.truth.masks), "missed": _missed(trace)}
        values["unknown_class"] = trace.truth.n_unknown
        values["losses"] = None if trace.lesson is None else trace.lesson.losses
    return values
