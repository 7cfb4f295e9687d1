"""The report's sections on missed objects and false detections: how many of each cause, and an example of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from maskrcnn.data.dataset import read_pixels
from maskrcnn.drawing import draw_instances
from maskrcnn.errors import ImageError, counted
from maskrcnn.evaluation import Evaluation
from maskrcnn.inspection.diagnosis import Diagnosis, Miss
from maskrcnn.inspection.explain import CAUSES, REMEDIES
from maskrcnn.inspection.false_detections import FALSE_CAUSES, KIND_OF, FalseDetection
from maskrcnn.inspection.gallery import RIGHT_COLOR, WRONG_COLOR, data_uri
from maskrcnn.inspection.page import AUTO, NUMBER, Section, table
from maskrcnn.inspection.trials import Trials

MARGIN = 1.5
"""Sides of an object that its picture shows on each side of it."""

MIN_SIDE = 48
"""Shortest side of such a picture, in pixels of the image."""


def cause_sections(evaluation: Evaluation, diagnosis: Diagnosis) -> list[Section]:
    """Chart the causes of missed objects and of false detections, and show an example of each."""
    return [
        Section("missed", "Missed objects", _missed(evaluation, diagnosis)),
        Section("false", "False detections", _false(evaluation, diagnosis)),
    ]


def _missed(evaluation: Evaluation, diagnosis: Diagnosis) -> str:
    if not diagnosis.n_missed:
        return "<p>No object was missed.</p>"
    if not diagnosis.missed:
        return (
            f"<p>Missed objects: {diagnosis.n_missed:,}. {_examined(diagnosis)} None of the missed objects is in "
            "those.</p>"
        )
    counts = diagnosis.missed_counts
    rows = [_missed_row(cause, n, max(counts.values()), diagnosis.trials) for cause, n in counts.items() if n]
    head = ("cause", "setting tried", "missed objects", "more found", "more false")
    return (
        f"<p>Missed objects: {diagnosis.n_missed:,}. An object is missed if no detection of its class above the score "
        f"threshold has a mask IoU of at least 0.5 with it. {_examined(diagnosis)} The table counts the missed objects "
        f"in those ({len(diagnosis.missed):,}), each once, by the first stage that lost it.</p>"
        f"{table('Missed objects by cause', head, rows, 2)}"
        f"{_sample(diagnosis.trials)}{_examples(evaluation, diagnosis.missed, CAUSES, 'missed object')}"
    )


def _missed_row(cause: str, n: int, max_count: int, trials: Trials) -> str:
    start = f"<tr>{_name_cell(cause, CAUSES[cause])}"
    trial = trials.of(REMEDIES.get(cause))
    if trial is None:
        return f"{start}<td></td>{_count_cell(n, max_count)}{2 * f'<td{NUMBER}></td>'}</tr>"
    value = f"{trial.value:g}<br><small>in place of {trial.previous:g}</small>"
    changes = (_change(trial.n_found - trials.n_found), _change(trial.n_false - trials.n_false))
    return (
        f'{start}<td class="setting"><code>{trial.setting}</code> {value}</td>{_count_cell(n, max_count)}'
        f"{''.join(f'<td{NUMBER}>{change}</td>' for change in changes)}</tr>"
    )


def _false(evaluation: Evaluation, diagnosis: Diagnosis) -> str:
    if not diagnosis.n_false:
        return "<p>No detection above the score threshold is false.</p>"
    if not diagnosis.false:
        return (
            f"<p>False detections above the score threshold: {diagnosis.n_false:,}. {_examined(diagnosis)} None of the "
            "false detections is in those.</p>"
        )
    counts = diagnosis.false_counts
    rows = [
        f"<tr>{_name_cell(cause, FALSE_CAUSES[cause])}<td>{KIND_OF[cause]}</td>"
        f"{_count_cell(n, max(counts.values()))}</tr>"
        for cause, n in counts.items()
        if n
    ]
    head = ("cause", "kind", "false detections")
    return (
        f"<p>False detections above the score threshold: {diagnosis.n_false:,}, of the kinds in the section Errors. "
        f"{_examined(diagnosis)} The table counts the false detections in those ({len(diagnosis.false):,}), each once, "
        f"by the stage that it comes from.</p>{table('False detections by cause', head, rows, 2)}"
        f"{_examples(evaluation, diagnosis.false, FALSE_CAUSES, 'false detection')}"
    )


def _examined(diagnosis: Diagnosis) -> str:
    return (
        f"Images with missed objects or false detections: {diagnosis.n_images:,}. Of these, predicted again and "
        f"followed through every stage: {diagnosis.n_examined:,}."
    )


def _sample(trials: Trials) -> str:
    if not trials.trials:
        return "<p>No single setting of prediction would have kept any of them.</p>"
    images, objects = counted(trials.n_images, "image"), counted(trials.n_objects, "object")
    return (
        f"<p>Each setting was tried alone, on {images} with {objects}. As it is, the model finds "
        f"{trials.n_found:,}; false detections: {trials.n_false:,}. The table says how many more of both there are "
        "with the setting.</p>"
    )


def _name_cell(cause: str, meaning: str) -> str:
    return f'<th scope="row">{cause}<br><small>{meaning}</small></th>'


def _count_cell(n: int, max_count: int) -> str:
    return f'<td class="gain"><i style="width:{4 * n / max_count:.2f}rem"></i>{n:,}</td>'


def _change(n: int) -> str:
    """A difference with its sign; zero is written out, because it was measured."""
    return f"{n:+,}".replace("-", "−") if n else "0"


def _examples(evaluation: Evaluation, errors: Sequence[Miss | FalseDetection], causes: Iterable[str], what: str) -> str:
    """Show the first of `errors` of each cause. `what` says what the one in the middle is."""
    first = {error.explanation.cause: error for error in reversed(errors)}
    pictures = "".join(_example(evaluation, first[cause], what) for cause in causes if cause in first)
    if not pictures:
        return ""
    return (
        '<h3>Examples</h3><p><span class="key right"></span>objects of the image &ensp;<span class="key wrong"></span>'
        f'{what}</p><div class="examples">{pictures}</div>'
    )


def _example(evaluation: Evaluation, error: Miss | FalseDetection, what: str) -> str:
    objects, i, explanation = evaluation.data.without_crowd, error.image, error.explanation
    others = [rle for rle in objects.rles(i) if rle != error.mask]
    sentence = ". ".join(filter(None, [explanation.detail, explanation.remark]))
    caption = f"<figcaption><b>{explanation.cause}</b><br><small{AUTO}>{escape(sentence)}</small></figcaption>"
    try:
        pixels = read_pixels(objects, i)
    except ImageError:
        return f"<figure>{caption}<p>The image can no longer be read.</p></figure>"
    x1, y1, x2, y2 = window = _surroundings(error.box, error.mask.hw)
    masks = [cut for rle in [*others, error.mask] if (cut := rle.crop(window)).area]
    colors = np.full(len(masks), RIGHT_COLOR)
    colors[len(colors) - bool(error.mask.area) :] = WRONG_COLOR
    image = draw_instances(np.ascontiguousarray(pixels[y1:y2, x1:x2]), masks, None, None, colors)
    name = escape(objects.names[i])
    alt = f"{what} in {name}: {explanation.cause}"
    return f'<figure><img src="{data_uri(image)}" alt="{alt}" title="{name}">{caption}</figure>'


def _surroundings(box: tuple[float, float, float, float], hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """A square of pixels around a box, moved into its image, and cut where that is smaller: x1, y1, x2, y2."""
    x1, y1, x2, y2 = box
    side = math.ceil(max((1 + 2 * MARGIN) * max(x2 - x1, y2 - y1), MIN_SIDE))
    (h, w), corner = hw, (int((x1 + x2 - side) / 2), int((y1 + y2 - side) / 2))
    left, top = max(min(corner[0], w - side), 0), max(min(corner[1], h - side), 0)
    return left, top, min(left + side, w), min(top + side, h)
