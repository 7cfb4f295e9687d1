"""What results show of themselves in a notebook: HTML with small pictures and short tables, in the notebook's colours.

Text is escaped. Of a path, only the last name is shown: notebooks are passed on. Nothing is raised: a part that cannot
be shown becomes a sentence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from maskrcnn.data.problem import worst_first
from maskrcnn.data.table import Dataset
from maskrcnn.drawing import PALETTE
from maskrcnn.errors import ImageError, UserError, counted
from maskrcnn.evaluation.kaggle import THRESHOLDS
from maskrcnn.inspection.gallery import data_uri
from maskrcnn.inspection.overlays import stage_overlays, with_pixels
from maskrcnn.inspection.page import AUTO, NUMBER, facts, row, table
from maskrcnn.inspection.quality import fraction
from maskrcnn.inspection.shots import typical_images, whole_image
from maskrcnn.runs import shortened
from maskrcnn.structures import Detections

if TYPE_CHECKING:
    from maskrcnn.evaluation.metrics import Metrics
    from maskrcnn.inspection.trace import Trace

OVERLAY_SIDE = 640
"""Longer side of the picture of detections, in pixels."""

STAGE_SIDE = 360
"""Longer side of the picture of a stage, in pixels."""

MAX_DETECTIONS, MAX_CLASSES, MAX_SIZES, MAX_NOTES = 12, 12, 3, 6
"""Rows of a table, or lines, after which "and N more" stands."""

MAX_IMAGES, IMAGE_SIDE = 4, 400
"""Images of a data set that are shown, and their longer side in pixels."""

MAX_NAME = 60
"""Characters of a name that are shown."""

FOREIGN_FOLDERS = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[\\/](?:[^\s\\/:]+[\\/])+")
"""Folders of an absolute path in a sentence."""


def detections_view(found: Detections) -> str:
    """Show the image with its instances, and a table of the best ones."""
    return _view(
        lambda: f"<p>{_headline(found)}</p>",
        lambda: f'<div class="side">{_overlay(found)}{_detections_table(found)}</div>',
    )


def trace_view(trace: Trace) -> str:
    """Show four stages as pictures, and the table of all of them."""
    return _view(
        lambda: f"<p>Trace of a prediction: {_headline(trace.detections)}</p>",
        lambda: _gallery(
            (_picture(picture, name), name) for name, picture in stage_overlays(trace, STAGE_SIDE).items()
        ),
        lambda: _stages_table(trace),
    )


def dataset_view(data: Dataset) -> str:
    """Show a few images with their masks, the classes with their counts, sizes, and what was noticed at the opening."""
    return _view(
        lambda: f"<p><b>{data.size_text}</b> from {_name(data.source.name)}</p>",
        lambda: _gallery(_thumbnail(data, i) for i in typical_images(data, MAX_IMAGES)),
        lambda: f'<div class="side">{_classes_table(data)}{_facts(data)}</div>',
        lambda: _remarks(data),
    )


def metrics_view(scores: Metrics) -> str:
    """Show COCO's scores of boxes and masks, those of each class, and Kaggle's score at each IoU."""
    return _view(
        lambda: f"<p>{_scored(scores)}</p>",
        lambda: _summary_table(scores),
        lambda: _class_scores_table(scores),
        lambda: _kaggle_table(scores),
    )


def _view(*parts: Callable[[], str]) -> str:
    style = Path(__file__).with_name("notebook.css").read_text("utf-8")
    return f'<div class="maskrcnn maskrcnn-view"><style>{style}</style>{"".join(map(_shown, parts))}</div>'


def _shown(part: Callable[[], str]) -> str:
    try:
        return part()
    except Exception as error:  # a traceback would replace the parts that can be shown
        return f'<p class="soft">A part cannot be shown ({type(error).__name__}).</p>'


def _headline(found: Detections) -> str:
    picture = "" if found.image is None else f" in {_name(last_name(found.image))}"
    names = Counter(found.class_names)
    classes = [f"{_name(name)} {n:,}" for name, n in names.most_common(MAX_CLASSES)] if len(names) > 1 else []
    more = [f"and {len(names) - MAX_CLASSES:,} more classes"] if len(names) > MAX_CLASSES else []
    listed = f": {', '.join([*classes, *more])}" if classes else ""
    height, width = found.hw
    return f"<b>{counted(len(found), 'object')}</b>{picture}, {width:,} x {height:,} px{listed}"


def _overlay(found: Detections) -> str:
    try:
        picture = with_pixels(found).overlay(OVERLAY_SIDE, names=found.has_several_classes)
    except ImageError:
        name = _name(last_name(found.image or ""))
        return f'<p class="soft">{name} can no longer be read, or has changed since the prediction.</p>'
    except UserError:
        return '<p class="soft">The image was not kept; predict with keep_pixels=True to see it.</p>'
    return f"<figure>{_picture(picture, counted(len(found), 'object'))}</figure>"


def _detections_table(found: Detections) -> str:
    if not len(found):
        return ""
    rows, colors = [], found.colors.tolist()
    for k in range(min(len(found), MAX_DETECTIONS)):
        box = ", ".join(f"{value:.1f}" for value in found.boxes[k].tolist())
        values = (f"{found.scores[k]:.3f}", f"{found.rles[k].area:,}", box)
        rows.append(_colored_row(found.class_names[k], colors[k], values))
    head = ("class", "score", "area, px", "box: x1, y1, x2, y2")
    return _capped("Detections, the best first", head, rows, len(found))


def _stages_table(trace: Trace) -> str:
    rows = (
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(text)}</td>" for text in texts)}</tr>'
        for name, *texts in trace.stages
    )
    return table("Stages: the fields of the trace", ("stage", "shape", "unit", "meaning"), rows, 4)


def _thumbnail(data: Dataset, i: int) -> tuple[str, str]:
    """Return image i with its masks, or a sentence, and a caption."""
    name, span = last_name(data.names[i]), data.instances(i)
    caption = f"{name}: {counted(int(data.counts[i]), 'object')}"
    try:
        picture = whole_image(data, i, data.labels[span] - 1 if len(data.class_names) > 1 else None)
    except ImageError:
        return "", f"{name} can no longer be read"
    picture.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    return _picture(picture, caption), caption


def _classes_table(data: Dataset) -> str:
    n_objects = np.bincount(data.without_crowd.labels, minlength=len(data.class_names) + 1)[1:]
    order = np.argsort(-n_objects, kind="stable")[:MAX_CLASSES].tolist()
    rows = [_colored_row(data.class_names[k], k, (f"{n_objects[k]:,}",)) for k in order]
    return _capped("Classes, the most frequent first", ("class", "objects"), rows, len(data.class_names))


def _facts(data: Dataset) -> str:
    counts = data.statistics()
    sizes = [f"{s['width']:,} x {s['height']:,} ({s['images']:,})" for s in counts["sizes"][:MAX_SIZES]]
    if counts["distinct_sizes"] > MAX_SIZES:
        sizes.append(f"and {counts['distinct_sizes'] - MAX_SIZES:,} more")
    values = {
        "image sizes, px (images)": ", ".join(sizes),
        "objects of an image: median (range)": _range(counts["instances_per_image"]),
        "side of a box, px: median (range)": _range(counts["box_side_px"]),
        "area of a mask, px: median (range)": _range(counts["mask_area_px"]),
        "images without objects": f"{counts['images_without_instances']:,}",
    }
    if counts["crowd_regions"]:
        values["crowd regions"] = f"{counts['crowd_regions']:,}"
    if counts["parts"]:
        values["parts (images)"] = ", ".join(f"{name} ({n:,})" for name, n in counts["parts"].items())
    return facts("Sizes and counts", values)


def _remarks(data: Dataset) -> str:
    """List the findings of the opening by kind, and its notes without their folders."""
    lines = [f"{kind}: {len(found):,}" for kind, found in worst_first(data.problems).items()]
    lines += [shortened(without_folders(note, data), 300) for note in data.notes]
    if not lines:
        return ""
    more = f"<li>and {len(lines) - MAX_NOTES:,} more</li>" if len(lines) > MAX_NOTES else ""
    listed = "".join(f"<li{AUTO}>{escape(line)}</li>" for line in lines[:MAX_NOTES])
    return f"<p>When it was opened (<code>maskrcnn check</code> finds more):</p><ul>{listed}{more}</ul>"


def _scored(scores: Metrics) -> str:
    n_unreadable = len(scores.get("unreadable", []))
    unreadable = f"; {counted(n_unreadable, 'image')} could not be read" if n_unreadable else ""
    size = f"{counted(scores['images'], 'image')} with {counted(scores['instances'], 'object')}"
    return f"<b>Scores on {size}</b>, up to {scores['max_detections']:,} detections an image{unreadable}"


def _summary_table(scores: Metrics) -> str:
    keys = [key for key, value in scores["mask"].items() if isinstance(value, float | None)]
    rows = [row(kind, [fraction(scores[kind][key]) for key in keys]) for kind in ("mask", "box")]
    return table("COCO: average precision (AP) and recall (AR)", ("", *keys), rows, 1)


def _class_scores_table(scores: Metrics) -> str:
    classes, boxes = scores["mask"]["per_class"], scores["box"]["per_class"]
    if len(classes) < 2:
        return ""
    rows = [
        row(_cut(name), [fraction(v) for v in (of["AP"], of["AP50"], of["AP75"], of["AR"], boxes[name]["AP"])])
        for name, of in list(classes.items())[:MAX_CLASSES]
    ]
    head = ("class", "mask AP", "AP50", "AP75", "AR", "box AP")
    return _capped("By class", head, rows, len(classes))


def _kaggle_table(scores: Metrics) -> str:
    kaggle = scores["kaggle"]
    head = ("", "mean", *(f"{threshold:.2f}" for threshold in THRESHOLDS))
    values = [fraction(value) for value in (kaggle["mean"], *kaggle["per_threshold"])]
    caption = f"Kaggle: TP / (TP + FP + FN) of masks at each IoU, score >= {kaggle['score_threshold']:g}"
    return table(caption, head, [row("mask", values)], 1)


def _colored_row(name: str, color: int, values: Iterable[str]) -> str:
    """Build a table row that begins with the colour of an instance in pictures."""
    red, green, blue = PALETTE[color % len(PALETTE)].tolist()
    swatch = f'<i class="swatch" style="background:rgb({red},{green},{blue})"></i>'
    cells = "".join(f"<td{NUMBER}>{value}</td>" for value in values)
    return f'<tr><th scope="row"{AUTO}>{swatch}{escape(_cut(name))}</th>{cells}</tr>'


def _capped(caption: str, head: Sequence[str], rows: Sequence[str], n: int) -> str:
    """Build a table of the first of `n` rows, and say how many are left."""
    more = f'<p class="soft">and {n - len(rows):,} more</p>' if n > len(rows) else ""
    return f"<div>{table(caption, head, rows, 1)}{more}</div>"


def _gallery(pictures: Iterable[tuple[str, str]]) -> str:
    """Lay out pictures, HTML, over their captions, text."""
    shown = "".join(
        f"<figure>{picture}<figcaption{AUTO}>{escape(_cut(caption))}</figcaption></figure>"
        for picture, caption in pictures
    )
    return f'<div class="pictures">{shown}</div>' if shown else ""


def _picture(picture: Image.Image, description: str) -> str:
    return f'<img src="{data_uri(picture)}" alt="{escape(_cut(description))}">'


def _name(text: str) -> str:
    """Return a name as HTML that keeps its direction of writing to itself."""
    return f"<bdi>{escape(_cut(text))}</bdi>"


def _cut(text: str) -> str:
    return shortened(text, MAX_NAME)


def _range(quantiles: dict[str, float]) -> str:
    return f"{quantiles['median']:,.0f} ({quantiles['min']:,.0f} to {quantiles['max']:,.0f})"


def last_name(path: str) -> str:
    """Return the name of a file without its folders, whichever system wrote the path."""
    return re.split(r"[\\/]", path)[-1]


def without_folders(text: str, data: Dataset) -> str:
    """Remove the folders of the data and of any absolute path from a sentence; names of files stay."""
    parents = {path.parent for path in (data.source, *data.files, *(data.sources or []))}
    folders = {str(folder) for parent in parents for folder in (parent, *parent.parents) if folder.name}
    for folder in sorted(folders, key=len, reverse=True):
        text = re.sub(rf"(?<![\w./\\-]){re.escape(folder)}[\\/]", "", text)
    return FOREIGN_FOLDERS.sub("", text)
