"""The page's last section: the losses of a training step, the true objects, and where each missed one was lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from maskrcnn.errors import counted
from maskrcnn.inspection.embed import packed_outlines
from maskrcnn.inspection.explain import CAUSES, FOUND, REMEDIES, Explanation
from maskrcnn.inspection.inspect_data import outline_hw
from maskrcnn.inspection.page import Section, row, table
from maskrcnn.inspection.trace import Lesson, Trace

LOSSES = {
    "rpn_class_loss": "whether the sampled anchors hold objects",
    "rpn_bbox_loss": "how the positive anchors move",
    "mrcnn_class_loss": "the classes of the sampled regions",
    "mrcnn_bbox_loss": "how the positive regions move",
    "mrcnn_mask_loss": "the masks of the positive regions",
    "loss": "the weighted sum",
}

NO_LOSSES = "<p>The losses are those of a training step, which needs the torch model; a bundle cannot be trained.</p>"


def truth_section(trace: Trace, explanations: Sequence[Explanation]) -> Section:
    """Show losses and objects. The page's script shows where the object that the reader clicks was lost."""
    causes = Counter(explanation.cause for explanation in explanations)
    n_missed = len(explanations) - causes[FOUND]
    rows = (
        f'<tr><th scope="row">{escape(cause)}<br><small>{escape(CAUSES[cause])}</small></th>'
        f'<td>{REMEDIES.get(cause, "")}</td><td class="n">{causes[cause]:,}</td></tr>'
        for cause in CAUSES
        if causes[cause]
    )
    missed = [k for k, explanation in enumerate(explanations) if explanation.cause != FOUND]
    buttons = "".join(
        f'<li><button data-object="{k}" aria-pressed="false">{k + 1}: {escape(explanations[k].cause)}</button></li>'
        for k in missed
    )
    left_out = ""
    if trace.truth is not None and trace.truth.n_unknown:
        left_out = f" Left out, because the model does not know their class: {trace.truth.n_unknown:,}."
    about = (
        f"<p>The picture has {counted(len(explanations), 'true object')}; missed: {n_missed:,}.{left_out} An object is "
        "missed if no detection of its class has a mask that overlaps it by an IoU of at least 0.5. The last stage "
        "that still had the object says how it was lost. The sliders do not change this section.</p>"
    )
    listed = table("Missed objects by cause", ("cause", "setting", "missed objects"), rows, 2) if missed else ""
    lab = (
        '<div class="live" hidden><p>Green objects are found, orange ones missed. Click one to read what became of '
        "it.</p>"
        '<div class="lab"><canvas id="truth-view" role="img" aria-label="True objects; click one"></canvas><div>'
        f'<p id="truth-text" role="status"></p><ul class="objects">{buttons}</ul>'
        '<canvas id="truth-detail" class="detail" role="img" aria-label="The object, enlarged"></canvas>'
        "</div></div></div>"
    )
    losses = NO_LOSSES if trace.lesson is None else _losses(trace.lesson)
    return Section("truth", "Losses and missed objects", f"{losses}<h3>Objects</h3>{about}{listed}{lab}")


def truth_data(trace: Trace, explanations: Sequence[Explanation]) -> dict[str, Any]:
    """What the page's script reads: objects with boxes in input pixels, outlines, and what became of them."""
    assert trace.truth is not None
    h, w = trace.detections.hw
    x1, y1, x2, y2 = trace.window
    scale, offset = np.array([(x2 - x1) / w, (y2 - y1) / h] * 2), np.array([x1, y1] * 2)
    objects = [
        {
            "name": trace.detections.vocabulary[label - 1],
            "box": (np.array(mask.box) * scale + offset).tolist(),
            "found": explanation.cause == FOUND,
            "cause": explanation.cause,
            "detail": explanation.detail,
            "setting": explanation.setting,
            "remark": explanation.remark,
            "by": None if explanation.by is None else (explanation.by * scale + offset).tolist(),
        }
        for mask, label, explanation in zip(trace.truth.masks, trace.truth.labels.tolist(), explanations, strict=True)
    ]
    return {"objects": objects, "outlines": packed_outlines(trace.truth.masks, outline_hw(trace))}


def _losses(lesson: Lesson) -> str:
    rows = [
        f'<tr><th scope="row">{name}</th><td>{meaning}</td><td class="n">{lesson.losses[name]:.4f}</td></tr>'
        for name, meaning in LOSSES.items()
    ]
    positive, negative = (int((lesson.anchor_label == label).sum()) for label in (1, 0))
    counts = [
        row("anchors that count as objects", (f"{positive:,}",)),
        row("anchors that count as background", (f"{negative:,}",)),
        row("anchors sampled", (f"{len(lesson.sampled_anchors):,}",)),
        row("regions sampled", (f"{len(lesson.sampled_regions):,}",)),
        row("of these, regions of objects", (f"{int((lesson.region_labels > 0).sum()):,}",)),
    ]
    return (
        "<p>A training step on this picture, as it is and without changing the model, has these losses.</p>"
        + table("Losses", ("loss", "of", "value"), rows, 2)
        + table("What the step learns from", ("", "number"), counts, 1)
    )
