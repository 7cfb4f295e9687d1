"""``maskrcnn evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from maskrcnn.cli.common import DataOptions, JsonFlag, counting, print_json, read_names, say, show_scores
from maskrcnn.config import PredictConfig


def evaluate(
    data: Path,
    *,
    model: Path,
    ids: Path | None = None,
    report: Path | None = None,
    device: str = "auto",
    options: DataOptions | None = None,
    settings: Annotated[PredictConfig | None, Parameter(name="*", group="Prediction")] = None,
    json: JsonFlag = False,
) -> int:
    """Score a model: COCO's box and mask AP and AR, and the metric of the 2018 Data Science Bowl.

    Exits with 3 when pictures could not be read.

    Parameters
    ----------
    data
        The CSV file of true masks.
    model
        Run folder or model file.
    ids
        File with the names of the images to score, one a line; all images otherwise.
    report
        HTML file to write: curves of the run, if the model is one, precision and recall, calibration, kinds of errors,
        best and worst images.
    device
        auto, cpu, cuda, cuda:1 or mps.
    json
        Print the scores as one JSON object.
    """
    from maskrcnn.checkpoints import load
    from maskrcnn.evaluation import examine

    predictor = load(model, device=device)
    if settings is not None:
        predictor = predictor.changed(**settings.model_dump(exclude_unset=True))
    opened = (options or DataOptions()).open(data)
    if ids is not None:
        opened = opened.named(read_names(ids))
    with counting(len(opened), "predicting") as done:
        evaluation = examine(predictor, opened, on_image=done)
    scores = evaluation.scores
    show_scores(scores)
    for message in scores["unreadable"]:
        say(f"left out: {message}")
    if report is not None:
        from maskrcnn.inspection.report import write_report

        run = model if model.is_dir() else None
        write_report(
            report, model.resolve().name, predictor.config, evaluation, run=run, provenance=predictor.provenance
        )
        say(f"report: {report}")
    if json:
        print_json({**scores, "model": str(model)})
    return 3 if scores["unreadable"] else 0
