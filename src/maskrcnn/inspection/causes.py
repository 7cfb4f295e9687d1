"""The report's section on missed objects: how many of each cause, and a picture of one of each."""

from __future__ import annotations

from html import escape

import numpy as np

from maskrcnn.data.dataset import read_pixels
from maskrcnn.drawing import draw_instances
from maskrcnn.errors import ImageError
from maskrcnn.evaluation import Evaluation
from maskrcnn.inspection.explain import CAUSES, REMEDIES
from maskrcnn.inspection.gallery import WRONG_COLOR, data_uri
from maskrcnn.inspection.misses import Miss, Misses
from maskrcnn.inspection.page import Section, table
from maskrcnn.rle import RLE

MAX_TRACED = 24
"""Images that a report traces. Each takes as long as a prediction."""

MARGIN = 1.5
"""Sides of an object that its picture shows on each side of it."""

MIN_SIDE = 48
"""Shortest side of such a picture, in pixels of the image."""


def missed_section(evaluation: Evaluation, misses: Misses) -> Section:
    """Chart the causes of the misses and show an example of each."""
    if not misses.misses:
        return Section("missed", "Missed objects", "<p>No object that the examined images hold was missed.</p>")
    counts = misses.counts
    max_count = max(counts.values())
    rows = [
        f'<tr><th scope="row">{cause}<br><small>{CAUSES[cause]}</small></th>'
        f'<td class="gain"><i style="width:{4 * n / max_count:.2f}rem"></i>{n:,}</td>'
        f"<td>{REMEDIES.get(cause, '')}</td></tr>"
        for cause, n in counts.items()
        if n
    ]
    intro = (
        f"<p>{misses.n_missed:,} objects were missed in {misses.n_images:,} images: no detection of their class above "
        f"the score threshold has a mask IoU of 0.5. {misses.n_examined:,} of these images were predicted again and "
        f"followed through every stage. Each of their {len(misses.misses):,} missed objects counts once, by the first "
        "stage that lost it. The setting would have kept it, at a cost in false detections.</p>"
    )
    examples = {miss.explanation.cause: miss for miss in reversed(misses.misses)}
    pictures = "".join(_example(evaluation, examples[cause]) for cause in CAUSES if cause in examples)
    causes = table("Missed objects by cause", ("cause", "missed objects", "setting"), rows, 3)
    return Section(
        "missed",
        "Missed objects",
        f'{intro}{causes}<h3>Examples</h3><div class="examples">{pictures}</div>',
    )


def _example(evaluation: Evaluation, miss: Miss) -> str:
    data, explanation = evaluation.data, miss.explanation
    mask = data.rles(miss.image)[miss.instance - data.instances(miss.image).start]
    sentence = ". ".join(filter(None, [explanation.detail, explanation.remark]))
    caption = f"<figcaption><b>{explanation.cause}</b> <small>{escape(sentence)}</small></figcaption>"
    try:
        pixels = read_pixels(data, miss.image)
    except ImageError:
        return f"<figure>{caption}<p>The image can no longer be read.</p></figure>"
    x1, y1, x2, y2 = _surroundings(mask)
    inside = RLE.from_mask(mask.to_mask()[y1:y2, x1:x2])
    image = draw_instances(np.ascontiguousarray(pixels[y1:y2, x1:x2]), [inside], None, None, np.array([WRONG_COLOR]))
    name = escape(data.names[miss.image])
    return f'<figure><img src="{data_uri(image)}" alt="A missed object in {name}" title="{name}">{caption}</figure>'


def _surroundings(mask: RLE) -> tuple[int, int, int, int]:
    """A square of pixels around the mask, inside its image: x1, y1, x2, y2."""
    x1, y1, x2, y2 = mask.box
    half = max((1 + 2 * MARGIN) * max(x2 - x1, y2 - y1), MIN_SIDE) / 2
    cx, cy, (h, w) = (x1 + x2) / 2, (y1 + y2) / 2, mask.hw
    return max(int(cx - half), 0), max(int(cy - half), 0), min(int(cx + half), w), min(int(cy + half), h)
