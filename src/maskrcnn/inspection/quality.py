"""An evaluation -> the sections of precision and recall, calibration, errors, classes, best and worst images."""

from __future__ import annotations

from html import escape

import numpy as np

from maskrcnn.evaluation import Evaluation
from maskrcnn.evaluation.calibration import precision_recall, reliability
from maskrcnn.evaluation.errors import ERRORS, KINDS, MISSED, Judgement, judge
from maskrcnn.inspection.charts import Axis, Series, line_chart, reliability_chart
from maskrcnn.inspection.gallery import Picture, best_and_worst, picture
from maskrcnn.inspection.page import NUMBER, Section, chart_grid, folded, row, table

MEANINGS = {
    "wrong class": "the mask fits an instance of another class",
    "bad box": "neither mask nor box fits the instance of its class (mask IoU 0.1 to 0.5, box IoU below 0.5)",
    "bad mask": "the box fits an instance of its class, the mask does not (mask IoU 0.1 to 0.5, box IoU 0.5 or more)",
    "class and place": "only an instance of another class is there, and the mask does not fit it (mask IoU 0.1 to 0.5)",
    "duplicate": "the instance has a better detection already",
    "background": "nothing is there (mask IoU with every instance at most 0.1)",
    MISSED: "no detection found the instance, and none stands for it with a wrong class, a bad box or a bad mask",
}
MOST_CLASS_CURVES = 6


def score_sections(evaluation: Evaluation) -> list[Section]:
    """Everything that one evaluation shows."""
    judgement = judge(evaluation.data, evaluation.detections)
    threshold = evaluation.scores["kaggle"]["score_threshold"]
    return [
        Section("quality", "Precision, recall and calibration", _quality(evaluation, judgement, threshold)),
        Section("errors", "Errors", _errors(judgement, threshold)),
        Section("classes", "Classes", _classes(evaluation, judgement, threshold)),
        Section("images", "Best and worst images", _images(evaluation, judgement, threshold)),
    ]


def fraction(value: float | None) -> str:
    """A score with three decimals; a dash for what nothing defines."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.3f}"


def _quality(evaluation: Evaluation, judgement: Judgement, threshold: float) -> str:
    hits = judgement.hits
    if not len(hits):
        return "<p>Nothing was found, so there is no curve.</p>"
    pooled = precision_recall(judgement.scores, hits, len(judgement.truth_labels))
    best = int(pooled.f1.argmax())
    words = f"F1 is best, {fraction(pooled.f1[best])}, from a score of {pooled.scores[best]:.2f} on."
    curves = [Series("all classes", pooled.recall, pooled.precision, 0), *_class_curves(evaluation, judgement)]
    here = pooled.at(threshold)
    if here is not None:
        words = (
            f"From a score of {threshold:g} on (the dot), recall is {here[0]:.3f} and precision {here[1]:.3f}. {words}"
        )
        dot = Series(
            f"precision from a score of {threshold:g} on", np.array([here[0]]), np.array([here[1]]), faint=True
        )
        curves.append(dot)
    precision = Axis("masks at IoU 0.5", 0, 1)
    bins = reliability(judgement.scores, hits)
    error = f"The expected calibration error is {fraction(bins.error)}."
    figures = [
        line_chart("Precision over recall", words, Axis("recall", 0, 1), precision, curves),
        reliability_chart("Reliability", error, bins.edges, bins.shares, bins.counts),
    ]
    rows = [
        row(f"{low:.1f} to {high:.1f}", (f"{n:,}", fraction(score), fraction(share)))
        for low, high, n, score, share in zip(
            bins.edges, bins.edges[1:], bins.counts, bins.scores, bins.shares, strict=False
        )
    ]
    numbers = table("Detections by score", ("score", "detections", "mean score", "share correct"), rows, 1)
    return (
        f"<p>A detection is correct when its mask matches an instance of its class at IoU 0.5. {words}</p>"
        f"<p>{error} The bars of a calibrated detector end on the dashed line: of detections with a score of 0.8, "
        f"8 in 10 are correct.</p>{chart_grid(figures)}{folded('Reliability in numbers', numbers)}"
    )


def _class_curves(evaluation: Evaluation, judgement: Judgement) -> list[Series]:
    """Of the classes with the most instances; none where there is only one class."""
    names = evaluation.data.class_names
    if len(names) < 2:
        return []
    due = np.bincount(judgement.truth_labels, minlength=len(names) + 1)
    curves = []
    for color, k in enumerate(np.argsort(-due[1:], kind="stable")[:MOST_CLASS_CURVES], 1):
        mine = judgement.labels == k + 1
        curve = precision_recall(judgement.scores[mine], judgement.hits[mine], int(due[k + 1]))
        curves.append(Series(names[k], curve.recall, curve.precision, color))
    return curves


def _errors(judgement: Judgement, threshold: float) -> str:
    now = judgement.average_precision()
    if now is None:
        return "<p>There are no instances, so there is no AP to gain.</p>"
    gains, every, seen = judgement.gains(), judgement.counts(), judgement.counts(threshold)
    widest = max(*gains.values(), 1e-9)
    rows = [
        f'<tr><th scope="row">{name}<br><small>{MEANINGS[name]}</small></th>'
        f"<td{NUMBER}>{every[name]:,}</td><td{NUMBER}>{seen[name]:,}</td>"
        f'<td class="gain"><i style="width:{4 * gains[name] / widest:.2f}rem"></i>{100 * gains[name]:.1f}</td></tr>'
        for name in sorted(ERRORS, key=lambda name: -gains[name])
    ]
    head = ("error", "all", f"from score {threshold:g}", "AP points to gain")
    return (
        f"<p>Mask AP at IoU 0.5 is {100 * now:.1f}. The last column tells how many points it would gain if errors of "
        "that kind alone were not made (the dAP of TIDE, Bolya et al. 2020). The gains do not add up: mending one kind "
        f"changes what the others cost.</p>{table('Errors by kind', head, rows, 1)}"
    )


def _classes(evaluation: Evaluation, judgement: Judgement, threshold: float) -> str:
    names, scores = evaluation.data.class_names, evaluation.scores
    seen = judgement.scores >= threshold
    right, wrong, due = (
        np.bincount(labels, minlength=len(names) + 1)
        for labels in (
            judgement.labels[judgement.hits & seen],
            judgement.labels[~judgement.hits & seen],
            judgement.truth_labels,
        )
    )
    rows = []
    for k, name in enumerate(names, 1):
        mask, box = scores["mask"]["per_class"][name], scores["box"]["per_class"][name]
        values = [fraction(v) for v in (mask["AP"], mask["AP50"], mask["AP75"], mask["AR"], box["AP"])]
        rows.append(row(name, [f"{due[k]:,}", *values, f"{right[k]:,}", f"{due[k] - right[k]:,}", f"{wrong[k]:,}"]))
    caption = f"AP and AR of masks; found, not found and false at mask IoU 0.5, from a score of {threshold:g} on"
    head = ("class", "instances", "AP", "AP50", "AP75", "AR", "box AP", "found", "not found", "false")
    return table(caption, head, rows, 1)


def _images(evaluation: Evaluation, judgement: Judgement, threshold: float) -> str:
    parts = []
    unreadable = "".join(f"<li>{escape(message)}</li>" for message in evaluation.scores["unreadable"])
    if unreadable:
        parts.append(f"<p>Left out, since they cannot be read:</p><ul>{unreadable}</ul>")
    if not len(evaluation.data):
        return "".join([*parts, "<p>There are no images.</p>"])
    parts.append(
        '<p><span class="key right"></span>found, or correct &ensp;<span class="key wrong"></span>not found, or false. '
        f"Left the truth, right the detections from a score of {threshold:g} on. The number is the image's Kaggle "
        "score: TP / (TP + FP + FN) of masks, mean over IoU 0.5 to 0.95.</p>"
    )
    best, worst = best_and_worst(evaluation)
    for name, chosen in (("Worst", worst), ("Best", best)):
        pairs = "".join(_pair(picture(evaluation, judgement, i)) for i in chosen)
        parts.append(f'<h3>{name}</h3><div class="gallery">{pairs}</div>' if pairs else "")
    return "".join(parts)


def _pair(shown: Picture) -> str:
    errors = [f"{n} {name}" for name, n in shown.kinds.items() if name != KINDS[0]]
    found = f"{shown.n_truth - shown.n_missed} of {shown.n_truth} found"
    false = f"false: {', '.join(errors)}" if errors else "none false"
    name = escape(shown.name)
    heading = f'<div class="name" title="{name}"><b>{shown.score:.2f}</b> {name}</div>'
    caption = f"<figcaption>{heading}<small>{found}; {false}</small></figcaption>"
    if shown.pictures is None:
        return f'<figure class="pair">{caption}<p>The picture can no longer be read.</p></figure>'
    truth, detections = shown.pictures
    return (
        f'<figure class="pair">{caption}<div class="both"><img src="{truth}" alt="Truth of {name}: {found}">'
        f'<img src="{detections}" alt="Detections in {name}: {false}"></div></figure>'
    )
