"""What results plot of themselves: detections, data sets, scores and traces -> figures of matplotlib."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from maskrcnn.data.table import Dataset
from maskrcnn.detection.boxes import sides
from maskrcnn.drawing import PALETTE
from maskrcnn.errors import ImageError, UserError, counted
from maskrcnn.evaluation.kaggle import THRESHOLDS
from maskrcnn.fonts import legible
from maskrcnn.inspection.notebook import last_name
from maskrcnn.inspection.overlays import stage_overlays, with_pixels
from maskrcnn.inspection.shots import typical_images, whole_image
from maskrcnn.runs import shortened
from maskrcnn.structures import Detections

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from maskrcnn.evaluation.metrics import Metrics
    from maskrcnn.inspection.trace import Trace

MAX_SIDE = 1280
"""Longer side of a picture in a figure, in pixels."""

MAX_IMAGES, COLUMNS = 8, 4
"""Images of a data set that are shown, and how many stand in a row."""

MAX_CLASSES = 16
"""Classes that a chart or a legend shows."""

MAX_NAME = 24
"""Characters of a name that a figure shows."""

BLUE, VERMILION, GREEN = (PALETTE[k] / 255 for k in (4, 5, 2))


def plot_detections(found: Detections) -> Figure:
    """Plot the image with its instances; with several classes, the number of each stands below.

    Raise `UserError` without matplotlib or without the image, and `ImageError` if its file is unreadable.
    """
    figures = _figures()
    picture = with_pixels(found).overlay(MAX_SIDE, names=found.has_several_classes)
    height, width = found.hw
    with_legend = found.has_several_classes and len(found) > 0
    figure = figures.Figure(*_figure_size(width / height, 8.5, 0.8 if with_legend else 0.4))
    axes = figure.add_subplot()
    axes.imshow(picture, extent=(0, width, height, 0), interpolation="antialiased")
    where = "" if found.image is None else f" in {_label(last_name(found.image), 'picture')}"
    _title(axes, counted(len(found), "object") + where)
    if with_legend:
        _legend(figure, axes, found)
    return figure


def plot_dataset(data: Dataset) -> Figure:
    """Plot some images with their masks, then objects per class and per image, and the sizes of boxes.

    Raise `UserError` without matplotlib.
    """
    figures = _figures()
    images = typical_images(data, MAX_IMAGES)
    n_rows = math.ceil(len(images) / COLUMNS)
    figure = figures.Figure(11, 3.5 + 2.3 * n_rows)
    pictures, charts = figure.subfigures(2, 1, height_ratios=[max(2.3 * n_rows, 0.01), 3.2])
    for k, i in enumerate(images):
        _image(pictures.add_subplot(n_rows, COLUMNS, k + 1), data, i)
    by_class, by_image, by_size = charts.subplots(1, 3)
    objects = data.without_crowd
    _class_counts(by_class, data)
    _histogram(by_image, objects.counts, "Objects of an image", "images")
    _histogram(by_size, np.sqrt(sides(objects.boxes).prod(1)), "Side of the box, px", "objects")
    figure.suptitle(data.size_text, fontweight="bold")
    return figure


def plot_metrics(scores: Metrics) -> Figure:
    """Plot the scores by IoU, and AP by class, or all of COCO's scores if there is one class.

    Raise `UserError` without matplotlib.
    """
    figures = _figures()
    n_bars = min(max(len(scores["mask"]["per_class"]), 8), MAX_CLASSES)
    figure = figures.Figure(11, max(3.8, 1.4 + 0.3 * n_bars))
    by_iou, by_class = figure.subplots(1, 2, width_ratios=[1, 1.15])
    _scores_by_iou(by_iou, scores)
    if len(scores["mask"]["per_class"]) > 1:
        _scores_by_class(by_class, scores)
    else:
        keys = [key for key, value in scores["mask"].items() if isinstance(value, float | None)]
        values = {kind: [scores[kind][key] for key in keys] for kind in ("mask", "box")}
        _paired_bars(by_class, keys, values)
        _title(by_class, "COCO's scores")
    size = f"{counted(scores['images'], 'image')} with {counted(scores['instances'], 'object')}"
    figure.suptitle(f"Scores on {size}", fontweight="bold")
    return figure


def plot_trace(trace: Trace) -> Figure:
    """Plot the input, the objectness, the best proposals and the detections side by side.

    Raise `UserError` without matplotlib.
    """
    figures = _figures()
    stages = stage_overlays(trace, MAX_SIDE // 2)
    height, width = trace.detections.hw
    columns = 4 if width < 2 * height else 2
    n_rows = len(stages) // columns
    cell_width = 13 / columns
    figure = figures.Figure(13, n_rows * (min(cell_width * height / width, 2 * cell_width) + 0.32))
    grid = figure.subplots(n_rows, columns, squeeze=False)
    for axes, (caption, picture) in zip(grid.flat, stages.items(), strict=True):
        axes.imshow(picture, interpolation="antialiased")
        axes.set_axis_off()
        _title(axes, caption)
    return figure


def _figures() -> ModuleType:
    """Return the module `figures`. Raise `UserError` if matplotlib is missing."""
    try:
        from maskrcnn.inspection import figures
    except ImportError as error:
        raise UserError(
            f"plot needs matplotlib, version 3.11 or newer ({error}): pip install 'maskrcnn[plot]'"
        ) from None
    return figures


def _figure_size(aspect: float, longer: float, rest: float) -> tuple[float, float]:
    """Return width and height, in inches, for a picture of `aspect` (width / height) with `rest` for texts below it."""
    aspect = min(max(aspect, 0.25), 4)
    return (longer, longer / aspect + rest) if aspect > 1 else (max(longer * aspect + 0.4, 3.5), longer + rest)


def _legend(figure: Figure, axes: Axes, found: Detections) -> None:
    color_of = dict(zip(found.class_names, found.colors.tolist(), strict=True))
    id_of = dict(zip(found.class_names, found.class_ids, strict=True))
    counts = Counter(found.class_names).most_common(MAX_CLASSES)
    for name, n in counts:
        color = PALETTE[color_of[name] % len(PALETTE)] / 255
        axes.scatter([], [], color=[color], marker="s", label=f"{n:,} {_label(name, id_of[name])}")
    legend = figure.legend(loc="outside lower center", ncols=4, frameon=False, handletextpad=0.2, markerscale=1.6)
    _set_names(legend.get_texts())


def _image(axes: Axes, data: Dataset, i: int) -> None:
    """Show image i with its masks, or a sentence if its file cannot be read."""
    axes.set_axis_off()
    name = last_name(data.names[i])
    try:
        colors = data.labels[data.instances(i)] - 1 if len(data.class_names) > 1 else None
        axes.imshow(whole_image(data, i, colors), interpolation="antialiased")
    except ImageError:
        axes.text(0.5, 0.5, "can no longer\nbe read", ha="center", va="center", transform=axes.transAxes)
    _title(axes, f"{_label(name, i)}: {data.counts[i]:,}", fontsize="small")


def _class_counts(axes: Axes, data: Dataset) -> None:
    n_objects = np.bincount(data.without_crowd.labels, minlength=len(data.class_names) + 1)[1:]
    order = np.argsort(-n_objects, kind="stable")[:MAX_CLASSES]
    colors = [PALETTE[k % len(PALETTE)] / 255 for k in order] if len(order) > 1 else BLUE
    axes.barh(np.arange(len(order)), n_objects[order], color=colors)
    _name_rows(axes, [_label(data.class_names[k], data.class_ids[k]) for k in order])
    axes.set_xlabel("objects")
    axes.locator_params(axis="x", integer=True)
    n = len(data.class_names)
    _title(axes, "Classes" if n == len(order) else f"The {len(order)} most frequent of {n:,} classes")
    _tidied(axes, "x")


def _histogram(axes: Axes, values: np.ndarray, what: str, of: str) -> None:
    """Draw how often each value occurs, whole numbers each with a bar where they are few."""
    top = float(values.max(initial=1))
    bins: Any = np.arange(-0.5, top + 1) if values.dtype.kind in "iu" and top <= 24 else 24
    axes.hist(values, bins, color=BLUE, edgecolor="white", linewidth=0.5)
    _title(axes, what)
    axes.set_ylabel(of)
    axes.locator_params(axis="y", integer=True)
    _tidied(axes, "y")


def _scores_by_iou(axes: Axes, scores: Metrics) -> None:
    lines = {
        "mask AP": (scores["mask"]["per_threshold"], VERMILION, "o-"),
        "box AP": (scores["box"]["per_threshold"], BLUE, "s--"),
        "Kaggle": (scores["kaggle"]["per_threshold"], GREEN, "^:"),
    }
    for name, (values, color, style) in lines.items():
        numbers = _numbers(values)
        mean = f" (mean {np.nanmean(numbers):.3f})" if np.isfinite(numbers).any() else ""
        axes.plot(THRESHOLDS, numbers, style, color=color, label=name + mean)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("IoU from which an object counts as found")
    axes.legend(loc="lower left", framealpha=0.85)
    _title(axes, "Scores by IoU")
    _tidied(axes, "both")


def _scores_by_class(axes: Axes, scores: Metrics) -> None:
    """Draw the AP of each class, the best first; of many classes, the best and the worst."""
    classes = scores["mask"]["per_class"]
    order = sorted(classes, key=lambda name: -1.0 if classes[name]["AP"] is None else classes[name]["AP"], reverse=True)
    half = MAX_CLASSES // 2
    names = order if len(order) <= MAX_CLASSES else order[:half] + order[-half:]
    values = {kind: [scores[kind]["per_class"][name]["AP"] for name in names] for kind in ("mask", "box")}
    ranks = {name: k for k, name in enumerate(classes, 1)}
    _paired_bars(axes, [_label(name, ranks[name]) for name in names], values)
    _title(axes, "AP by class" if names is order else f"AP of the {half} best and worst of {len(order):,} classes")


def _paired_bars(axes: Axes, names: Sequence[str], values: dict[str, list[float | None]]) -> None:
    """Draw a bar for each kind of `values` at each of the names, with the number at its end."""
    places, thickness = np.arange(len(names)), 0.8 / len(values)
    for k, ((kind, numbers), color) in enumerate(zip(values.items(), (VERMILION, BLUE), strict=True)):
        bars = axes.barh(places + (k - 0.5) * thickness, _numbers(numbers), thickness * 0.92, color=color, label=kind)
        texts = ["–" if value is None else f"{value:.2f}" for value in numbers]
        axes.bar_label(bars, texts, padding=3, fontsize="x-small")
    _name_rows(axes, names)
    axes.set_xlim(0, 1.08)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.08), ncols=2, frameon=False, borderaxespad=0)
    _tidied(axes, "x")


def _numbers(values: Iterable[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values])


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Write the names beside horizontal bars, the first at the top."""
    axes.set_yticks(np.arange(len(names)), names)
    axes.invert_yaxis()
    _set_names(axes.get_yticklabels())


def _label(name: str, class_id: Any) -> str:
    """Return a short name without invisible characters, or its id in brackets if no font here has its letters."""
    visible = "".join(c for c in name if c.isspace() or unicodedata.category(c)[0] != "C")
    return shortened(legible(visible, class_id), MAX_NAME)


def _set_names(texts: Iterable[Any]) -> None:
    """Draw names of users as they are, in a font that has their letters: a $ begins no formula."""
    for text in texts:
        text.set_parse_math(False)
        size = text.get_fontsize()
        text.set_fontproperties(_figures().font_of(text.get_text()))
        text.set_fontsize(size)


def _title(axes: Axes, text: str, **style: Any) -> None:
    _set_names([axes.set_title(text, **{"fontsize": "medium", **style})])


def _tidied(axes: Axes, grid: str) -> None:
    """Leave out two sides of the frame, and draw a faint grid of "x", "y" or "both" below the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, alpha=0.25)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
