"""Evaluation -> sections on precision and recall, calibration, errors, classes, and the best and worst images."""

from __future__ import annotations

from html import escape

import numpy as np

from maskrcnn.evaluation import Evaluation
from maskrcnn.evaluation.calibration import precision_recall, reliability
from maskrcnn.evaluation.tide import ERRORS, KINDS, MISSED, Judgement, judge
from maskrcnn.inspection.charts import Axis, Series, line_chart, reliability_chart
from maskrcnn.inspection.gallery import Picture, best_and_worst, picture
from maskrcnn.inspection.page import AUTO, NUMBER, Section, chart_grid, folded, row, table

MEANINGS = {
    "wrong class": "the mask matches an instance of another class (mask IoU 0.5 or more)",
    "bad box": "neither mask nor box matches the instance (mask IoU 0.1 to 0.5, box IoU below 0.5)",
    "bad mask": "the box matches the instance, but the mask does not (mask IoU 0.1 to 0.5, box IoU 0.5 or more)",
    "class and place": "the mask partly overlaps only instances of other classes (mask IoU 0.1 to 0.5)",
    "duplicate": "a better detection already matches the instance",
    "background": "there is no instance here (mask IoU with every instance at most 0.1)",
    MISSED: "no detection matches the instance, not even with a wrong class, bad box or bad mask",
}
MAX_CLASS_CURVES = 6


def score_sections(evaluation: Evaluation) -> list[Section]:
    """Build all sections of one evaluation."""
    judgement = judge(evaluation.data, evaluation.detections)
    threshold = evaluation.scores["kaggle"]["score_threshold"]
    return [
        Section("quality", "Precision, recall and calibration", _quality(evaluation, judgement, threshold)),
        Section("errors", "Errors", _errors(judgement, threshold)),
        Section("classes", "Classes", _classes(evaluation, judgement, threshold)),
        Section("images", "Best and worst images", _images(evaluation, judgement, threshold)),
    ]


def fraction(value: float | None) -> str:
    """Format a score with three decimals, or as a dash if it is undefined."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.3f}"


def _quality(evaluation: Evaluation, judgement: Judgement, threshold: float) -> str:
    hits = judgement.hits
    if not len(hits):
        return "<p>There are no detections, so there are no curves.</p>"
    pooled = precision_recall(judgement.scores, hits, len(judgement.truth_labels))
    best = int(pooled.f1.argmax())
    summary = f"F1 peaks at {fraction(pooled.f1[best])} with a score threshold of {pooled.scores[best]:.2f}."
    curves = [Series("all classes", pooled.recall, pooled.precision, 0), *_class_curves(evaluation, judgement)]
    if (point := pooled.at(threshold)) is not None:
        recall, precision = point
        summary = (
            f"At the score threshold of {threshold:g} (the dot), recall is {recall:.3f} and precision is "
            f"{precision:.3f}. {summary}"
        )
        name = f"precision at score threshold {threshold:g}"
        curves.append(Series(name, np.array([recall]), np.array([precision]), faint=True))
    y_axis = Axis("precision of masks at IoU 0.5", 0, 1)
    bins = reliability(judgement.scores, hits)
    edges = bins.edges
    error = f"The expected calibration error is {fraction(bins.error)}."
    figures = [
        line_chart("Precision-recall curve", summary, Axis("recall", 0, 1), y_axis, curves),
        reliability_chart("Reliability", error, edges, bins.shares, bins.counts),
    ]
    rows = [
        row(f"{low:.1f} to {high:.1f}", (f"{n:,}", fraction(score), fraction(share)))
        for low, high, n, score, share in zip(edges[:-1], edges[1:], bins.counts, bins.scores, bins.shares, strict=True)
    ]
    numbers = table("Detections by score", ("score", "detections", "mean score", "share correct"), rows, 1)
    return (
        f"<p>A detection is correct when its mask matches an instance of its class at IoU 0.5. {summary}</p>"
        f"<p>{error} The bars of a perfectly calibrated detector end on the dashed line: 8 in 10 detections with a "
        f"score of 0.8 are correct.</p>{chart_grid(figures)}{folded('Reliability in numbers', numbers)}"
    )


def _class_curves(evaluation: Evaluation, judgement: Judgement) -> list[Series]:
    """Return the curves of the classes with the most instances; none for a single class."""
    names = evaluation.data.class_names
    if len(names) < 2:
        return []
    n_truth = np.bincount(judgement.truth_labels, minlength=len(names) + 1)  # by label
    curves = []
    for color, k in enumerate(np.argsort(-n_truth[1:], kind="stable")[:MAX_CLASS_CURVES], 1):
        of_class = judgement.labels == k + 1
        curve = precision_recall(judgement.scores[of_class], judgement.hits[of_class], int(n_truth[k + 1]))
        curves.append(Series(names[k], curve.recall, curve.precision, color))
    return curves


def _errors(judgement: Judgement, threshold: float) -> str:
    ap = judgement.average_precision()
    if ap is None:
        return "<p>There are no instances, so there is no AP to gain.</p>"
    gains, all_counts, counts = judgement.gains(), judgement.counts(), judgement.counts(threshold)
    max_gain = max(*gains.values(), 1e-9)
    rows = [
        f'<tr><th scope="row">{name}<br><small>{MEANINGS[name]}</small></th>'
        f"<td{NUMBER}>{all_counts[name]:,}</td><td{NUMBER}>{counts[name]:,}</td>"
        f'<td class="gain"><i style="width:{4 * gains[name] / max_gain:.2f}rem"></i>{100 * gains[name]:.1f}</td></tr>'
        for name in sorted(ERRORS, key=lambda name: -gains[name])
    ]
    head = ("error", "all", f"score ≥ {threshold:g}", "AP gain, points")
    return (
        f"<p>Mask AP at IoU 0.5 is {100 * ap:.1f} points. The last column is the gain from fixing all errors of a kind "
        "(dAP of TIDE, Bolya et al. 2020). The gains do not add up, because fixing one kind changes the cost of the "
        f"others.</p>{table('Errors by kind', head, rows, 1)}"
    )


def _classes(evaluation: Evaluation, judgement: Judgement, threshold: float) -> str:
    names, scores = evaluation.data.class_names, evaluation.scores
    above_threshold = judgement.scores >= threshold
    n_found, n_false, n_truth = (
        np.bincount(labels, minlength=len(names) + 1)
        for labels in (
            judgement.labels[judgement.hits & above_threshold],
            judgement.labels[~judgement.hits & above_threshold],
            judgement.truth_labels,
        )
    )
    rows = []
    for k, name in enumerate(names, 1):
        mask, box = scores["mask"]["per_class"][name], scores["box"]["per_class"][name]
        values = [fraction(v) for v in (mask["AP"], mask["AP50"], mask["AP75"], mask["AR"], box["AP"])]
        counts = (n_found[k], n_truth[k] - n_found[k], n_false[k])
        rows.append(row(name, [f"{n_truth[k]:,}", *values, *(f"{n:,}" for n in counts)]))
    caption = f"AP and AR of masks. Found, not found and false positives at mask IoU 0.5 and score ≥ {threshold:g}"
    head = ("class", "instances", "AP", "AP50", "AP75", "AR", "box AP", "found", "not found", "false positives")
    return table(caption, head, rows, 1)


def _images(evaluation: Evaluation, judgement: Judgement, threshold: float) -> str:
    parts = []
    unreadable = "".join(f"<li{AUTO}>{escape(message)}</li>" for message in evaluation.scores["unreadable"])
    if unreadable:
        parts.append(f"<p>These images could not be read and are not scored:</p><ul>{unreadable}</ul>")
    if not len(evaluation.data):
        return "".join([*parts, "<p>There are no images.</p>"])
    parts.append(
        '<p><span class="key right"></span>found or correct &ensp;<span class="key wrong"></span>not found or false '
        f"positive. Left: ground truth. Right: detections with score ≥ {threshold:g}. The number is the image's Kaggle "
        "score: TP / (TP + FP + FN) of masks, averaged over IoU 0.5 to 0.95.</p>"
    )
    best, worst = best_and_worst(evaluation)
    for name, images in (("Worst", worst), ("Best", best)):
        pairs = "".join(_pair(picture(evaluation, judgement, i)) for i in images)
        parts.append(f'<h3>{name}</h3><div class="gallery">{pairs}</div>' if pairs else "")
    return "".join(parts)


def _pair(shown: Picture) -> str:
    errors = [f"{n} {name}" for name, n in shown.kinds.items() if name != KINDS[0]]
    found = f"{shown.n_truth - shown.n_missed} of {shown.n_truth} found"
    false = f"false positives: {', '.join(errors)}" if errors else "no false positives"
    name = escape(shown.name)
    heading = f'<div class="name" title="{name}"><b>{shown.score:.2f}</b> <span{AUTO}>{name}</span></div>'
    caption = f"<figcaption>{heading}<small>{found}; {false}</small></figcaption>"
    if shown.pictures is None:
        return f'<figure class="pair">{caption}<p>The image can no longer be read.</p></figure>'
    truth, detections = shown.pictures
    return (
        f'<figure class="pair">{caption}<div class="both"><img src="{truth}" alt="Ground truth of {name}: {found}">'
        f'<img src="{detections}" alt="Detections in {name}: {false}"></div></figure>'
    )
