"""``maskrcnn evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    read_names,
    say,
    show_scores,
)
from maskrcnn.config import PredictConfig, set_values
from maskrcnn.data.parts import for_scoring


def evaluate(
    data: Path,
    *,
    model: Model,
    ids: Path | None = None,
    report: Path | None = None,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
    options: DataOptions | None = None,
    settings: Annotated[PredictConfig | None, Parameter(name="*", group="Prediction")] = None,
    proposals: Proposals = None,
    json: Json = False,
) -> int:
    """Score a model with COCO's box and mask AP and AR and the metric of the 2018 Data Science Bowl.

    Exits with 3 if images could not be read.

    Parameters
    ----------
    data
        Annotations: a file or a folder of any format.
    ids
        File with the names of the images to score, one on each line. Default: all images, or those of the part val of
        a divided data set.
    report
        HTML report to write: precision and recall, calibration, errors, best and worst images, causes of misses
        and of false detections, what other settings find and cost.
        With a run folder, also its training curves.
    json
        Print the scores as one JSON object.
    """
    from maskrcnn.checkpoints.load import load
    from maskrcnn.evaluation import examine

    predictor = load(model, device=device, precision=precision, say=say)
    if settings is not None:
        predictor = predictor.changed(**set_values(settings))
    if proposals is not None:
        predictor = predictor.with_proposals(proposals)
    options = options or DataOptions()
    opened = options.open(data)
    if ids is not None:
        opened = opened.named(read_names(ids))
    elif options.part is None:
        opened, note = for_scoring(opened)
        if note:
            say(note)
    with progress_bar(len(opened), "predicting") as set_done:
        evaluation = examine(predictor, opened, on_image=set_done, say=say)
    scores = evaluation.scores
    show_scores(scores)
    for message in scores["unreadable"]:
        say(f"skipped: {message}")
    if report is not None:
        from maskrcnn.inspection.diagnosis import MAX_EXAMINED, diagnose
        from maskrcnn.inspection.report import write_report

        run, title = model if model.is_dir() else None, model.resolve().name
        with progress_bar(1, "explaining") as set_share:
            diagnosis = diagnose(predictor, evaluation, MAX_EXAMINED, lambda done, total: set_share(done / total))
        provenance = predictor.provenance
        write_report(
            report,
            title,
            predictor.config,
            evaluation,
            run=run,
            step=provenance.get("step") if run is not None else None,
            provenance=provenance,
            diagnosis=diagnosis,
        )
        say(f"report: {report}")
    if json:
        print_json({**scores, "model": str(model), "precision": predictor.runtime.precision})
    return SOME_UNREADABLE if scores["unreadable"] else 0
