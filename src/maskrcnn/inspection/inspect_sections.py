"""The sections of ``maskrcnn inspect``'s page: a few sentences on each stage, its pictures, and places for the scripts.

input -> maps -> anchors -> RPN -> proposals -> RoIAlign -> heads -> selection -> masks -> detections

What has the class "live" is shown by the scripts in ``browser/``, which fill it.
"""

from __future__ import annotations

from html import escape

import numpy as np
from PIL import Image

from maskrcnn.detection.boxes import sides
from maskrcnn.detection.finish import mask_certainty
from maskrcnn.detection.propose import sigmoid
from maskrcnn.detection.select import DEFAULT_DETECTIONS, VOTING_IOU, detection_limit
from maskrcnn.errors import counted
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inspection.embed import grey, norms, spread
from maskrcnn.inspection.gallery import data_uri
from maskrcnn.inspection.inspect_data import level_name
from maskrcnn.inspection.page import AUTO, NUMBER, Section, row, table
from maskrcnn.inspection.replay import Replay
from maskrcnn.inspection.trace import Trace

MIN_OBJECTNESS = -12.0
"""Logit that is black in the pictures of the RPN's probabilities: 0.000006."""


def walk(predictor: Predictor, trace: Trace, replay: Replay) -> list[Section]:
    """Return the sections of a traced picture, in the order of the stages."""
    return [
        Section("input", "Input", _input(trace)),
        Section("maps", "Feature maps", _maps(trace)),
        Section("anchors", "Anchors", _anchors(trace)),
        Section("rpn", "Region proposal network", _rpn(trace)),
        Section("proposals", "Proposals", _proposals(predictor, trace)),
        Section("pool", "RoIAlign", _pool()),
        Section("head", "Class and box head", _head()),
        Section("selection", "Selection", _selection(predictor, trace, replay)),
        Section("masks", "Masks", _masks(trace)),
        Section("detections", "Detections", _detections(trace)),
    ]


def _input(trace: Trace) -> str:
    height, width = trace.picture.shape[:2]
    _, input_h, input_w, _ = trace.network_input.shape
    x1, y1, x2, y2 = trace.window.astype(int).tolist()
    placed = f"The picture of {width} × {height} px is scaled by {(x2 - x1) / width:.3g} to {x2 - x1} × {y2 - y1} px"
    if (input_w, input_h) != (x2 - x1, y2 - y1):
        placed += f" and padded to {input_w} × {input_h} px; it starts at x {x1}, y {y1}"
    pixels = trace.network_input[0].round().astype(np.uint8)  # some conventions scale to floats
    uri = data_uri(Image.fromarray(pixels))
    return (
        f"<p>{placed}. Boxes below are in pixels of this input, those of the detections in pixels of the picture.</p>"
        f'<figure class="input"><img id="input-picture" src="{uri}" alt="The network\'s input" '
        f'width="{input_w}" height="{input_h}" style="height:auto"></figure>'
    )


def _maps(trace: Trace) -> str:
    backbone = [_map(f"C{k + 2}", feature) for k, feature in enumerate(trace.backbone_maps)]
    pyramid = [_map(level_name(trace, k), feature) for k, feature in enumerate(trace.pyramid_maps)]
    about = (
        "The backbone turns the input into maps, each half as fine as the one before (C2 to C5). "
        if backbone
        else "The bundle does not hand out the maps of its backbone. "
    )
    about += (
        "The pyramid carries what the coarse maps know down to the fine ones (P2 to P6). "
        if len(trace.pyramid_maps) > 1
        else "The network uses a single map. "
    )
    about += "A cell is as bright as its vector of features is long."
    grids = "".join(f'<div class="maps">{"".join(figures)}</div>' for figures in (backbone, pyramid) if figures)
    return f"<p>{about}</p>{grids}"


def _map(name: str, feature: np.ndarray) -> str:
    _, rows, columns, channels = feature.shape
    caption = f"{name}: {columns} × {rows} cells, {channels:,} channels"
    return _figure(spread(norms(feature[0])), f"Feature map {name}", caption)


def _figure(uri: str, alt: str, caption: str) -> str:
    return f'<figure><img src="{uri}" alt="{escape(alt)}"><figcaption>{escape(caption)}</figcaption></figure>'


def _anchors(trace: Trace) -> str:
    per_cell = trace.rpn_class_probabilities[0].shape[-1] // 2
    rows = []
    for level, anchors in enumerate(trace.anchors):
        _, n_rows, n_columns, _ = trace.rpn_class_probabilities[level].shape
        sizes = ", ".join(f"{w:.0f} × {h:.0f}" for w, h in sides(anchors[:per_cell]).tolist())
        values = (f"{trace.strides[level]} px", f"{n_columns} × {n_rows}", f"{len(anchors):,}", f"{sizes} px")
        rows.append(row(level_name(trace, level), values))
    levels = "".join(f'<option value="{k}">{escape(level_name(trace, k))}</option>' for k in range(len(trace.anchors)))
    return (
        f"<p>Each cell has {counted(per_cell, 'anchor')} around its centre: boxes of fixed sizes. The network says of "
        "each anchor whether it holds an object, and how to move it onto that object.</p>"
        + table("Anchors of each level", ("level", "a cell is", "cells", "anchors", "width × height"), rows, 1)
        + '<div class="live" hidden><h3>Pick a cell</h3><p>Click into the picture, or focus it and press the arrow '
        'keys.</p><div class="row">'
        f'<label>Level <select id="cell-level">{levels}</select></label>'
        '<label>Row <input id="cell-row" type="number" min="0"></label>'
        '<label>Column <input id="cell-column" type="number" min="0"></label></div>'
        + _lab(
            _canvas("cell-view", "The picked cell and its anchors; arrow keys move the cell", focus=True),
            table("Anchors of the cell", ("anchor", "what became of it", "objectness", "size"), (), 2).replace(
                "<tbody>", '<tbody id="cell-anchors" aria-live="polite">'
            ),
            _canvas("cell-detail", "The anchors, enlarged", detail=True),
        )
        + "</div>"
    )


def _lab(picture: str, *panel: str, small: bool = False) -> str:
    """Lay out a picture and what is said about it side by side, or one above the other on a narrow screen."""
    return f'<div class="lab{" small" * small}">{picture}<div>{"".join(panel)}</div></div>'


def _canvas(key: str, label: str, *, focus: bool = False, detail: bool = False) -> str:
    attributes = (' tabindex="0"' if focus else "") + (' class="detail"' if detail else "")
    return f'<canvas id="{key}" role="img" aria-label="{escape(label)}"{attributes}></canvas>'


def _rpn(trace: Trace) -> str:
    figures = []
    for level, probabilities in enumerate(trace.rpn_class_probabilities):
        _, rows, columns, _ = probabilities.shape
        best = probabilities.reshape(rows, columns, -1, 2)[..., 1].max(-1)
        logits = np.log(best.clip(1e-9)) - np.log((1 - best).clip(1e-9))
        caption = f"{level_name(trace, level)}: up to {best.max():.4f}"
        figures.append(_figure(grey(logits, MIN_OBJECTNESS, -MIN_OBJECTNESS), caption, caption))
    return (
        "<p>The region proposal network gives each anchor a probability that it holds an object, the objectness, and "
        "four numbers that move and scale it. A cell is as bright as its best anchor; middle grey is 0.5.</p>"
        f'<div class="maps">{"".join(figures)}</div>'
    )


def _slider(setting: str, name: str, low: float, high: float, step: float) -> str:
    return (
        f'<label><span>{escape(name)}</span><input type="range" data-setting="{setting}" min="{low:g}" max="{high:g}" '
        f'step="{step:g}"><output></output></label>'
    )


def _around(low: float, high: float, value: float) -> tuple[float, float]:
    """The ends of a slider from `low` to `high` that can also stand at the model's `value`."""
    return min(low, value), max(high, value)


def _fates(noun: str, fates: np.ndarray) -> str:
    """Say what became of candidates under the model's settings. The page's script says it for others."""
    values, counts = np.unique(fates, return_counts=True)
    parts = ", ".join(f"{n:,} {fate}" for fate, n in zip(values, counts, strict=True))
    return f"{counted(len(fates), noun)}{': ' * bool(parts)}{parts}."


def _proposals(predictor: Predictor, trace: Trace) -> str:
    network = predictor.runtime.detector.config
    n, threshold = len(trace.candidates.boxes), network.proposal_nms_threshold
    high = max(network.proposals, min(n, network.proposals_per_level))
    return (
        f"<p>The {network.proposals_per_level:,} best anchors of each level, moved and clipped to the picture, are the "
        "candidates. Of two that overlap by more than a threshold, the weaker one is suppressed; the best of the rest "
        "are the proposals.</p>"
        + '<div class="live" hidden><div class="controls">'
        + _slider("proposalThreshold", "threshold of overlap (IoU)", *_around(0.3, 0.95, threshold), 0.01)
        + _slider("proposals", "limit of proposals", 1, high, 1)
        + f'</div></div><p id="proposal-counts" role="status">{_fates("candidate", trace.candidates.fate)}</p>'
        + '<div class="live" hidden><div class="row"><label>Show <select id="proposal-show">'
        '<option value="kept">proposals</option><option value="dropped">suppressed candidates</option>'
        '<option value="all">all candidates</option></select></label>'
        '<label>Proposal <input id="proposal-number" type="number" min="1"></label></div>'
        + _lab(
            _canvas("proposal-view", "Proposals; click one to see what it suppresses"),
            "<p>Click a proposal, or enter its number, to see what it suppresses.</p>",
            '<p id="proposal-chosen" role="status"></p>',
            _canvas("proposal-detail", "A proposal and what it suppresses, enlarged", detail=True),
        )
        + "<p>Everything below follows these sliders too: the box head was asked about every candidate, not only about "
        "the model's proposals.</p></div>"
    )


def _pool() -> str:
    return (
        "<p>RoIAlign cuts a square of features out of the map whose cells suit the proposal's size, by reading the map "
        "between its cells.</p>"
        + '<div class="live" hidden>'
        + _lab(
            _canvas("pool-view", "The followed proposal and the points that RoIAlign reads"),
            '<p id="pool-text"></p><canvas class="cells" id="pool-cells" role="img" aria-label="7 × 7 pooled cells">'
            "</canvas>",
            small=True,
        )
        + "</div>"
    )


def _head() -> str:
    return (
        "<p>From these features, the box head gives each class and the background a probability, and moves the box "
        "once more, for each class.</p>"
        + '<div class="live" hidden>'
        + _lab(
            _canvas("head-view", "The followed proposal and its box after the box head"),
            '<p id="head-text"></p><ul class="bars" id="head-scores"></ul>',
            small=True,
        )
        + "</div>"
    )


def _selection(predictor: Predictor, trace: Trace, replay: Replay) -> str:
    predict, floor = predictor.config.predict, replay.classes.floor
    limit = detection_limit(predict)
    about = (
        "Each class of a proposal that scores above the threshold is a class candidate. Within a class, the weaker of "
        "two that overlap too much is suppressed."
    )
    if predict.box_voting:
        about += (
            " A box then becomes the mean, weighted by score, of all candidates that overlap it by more than "
            f"{VOTING_IOU:g}."
        )
    if predict.mask_scoring:
        about += " Scores are then multiplied by the certainty of the masks."
    limits = (
        f"Scores below {floor:.3g} are not in this page. Masks are those of the {len(replay.masks.row):,} best class "
        "candidates of the model's proposals; a box without one is dashed"
    )
    if predict.mask_scoring:
        limits += " and keeps the score of its class"
    return (
        f"<p>{about}</p>"
        + '<div class="live" hidden><div class="controls">'
        + _slider("score", "score threshold", np.ceil(floor * 100) / 100, 1, 0.01)
        + _slider("threshold", "threshold of overlap (IoU)", *_around(0.05, 0.95, predict.nms_threshold), 0.01)
        + _slider("detections", "limit of detections", 1, max(limit, DEFAULT_DETECTIONS), 1)
        + '</div></div><p id="selection-counts" role="status">'
        + f"{_fates('class candidate', trace.class_candidates.fate)}</p>"
        + '<div class="live" hidden><div class="row"><label><input type="checkbox" '
        'id="selection-members"> show all class candidates</label></div>'
        + _lab(
            _canvas("selection-view", "Detected boxes; click one to follow it"),
            f"<p>Click a box to follow it back. {limits}.</p>",
        )
        + "</div>"
    )


def _masks(trace: Trace) -> str:
    side = trace.masks.logits.shape[-1]
    return (
        f"<p>RoIAlign reads the map once more under the final box, and the mask head gives {side} × {side} logits for "
        "the detected class. Where they exceed 0, interpolated, is mask.</p>"
        + '<div class="live" hidden>'
        + _lab(
            _canvas("mask-view", "The outline of the followed mask"),
            '<p id="mask-text"></p><canvas class="cells" id="mask-cells" role="img" aria-label="Logits of the mask">'
            "</canvas>",
            small=True,
        )
        + "</div>"
    )


def _detections(trace: Trace) -> str:
    found = trace.detections
    certainty = mask_certainty(sigmoid(trace.masks.logits))
    rows = []
    for d in range(len(found)):
        origin = trace.origin(d)
        class_score = trace.class_candidates.scores[origin.class_candidate]
        box = ", ".join(f"{v:.1f}" for v in found.boxes[d])
        values = (f"{found.scores[d]:.3f}", f"{class_score:.3f}", f"{certainty[origin.mask]:.3f}", box)
        cells = "".join(f"<td{NUMBER}>{value}</td>" for value in values)
        rows.append(f'<tr><th scope="row">{d + 1}</th><td{AUTO}>{escape(found.class_names[d])}</td>{cells}</tr>')
    head = ("number", "class", "score", "class score", "mask certainty", "box x1, y1, x2, y2 (picture px)")
    listed = table("Detections", head, rows, 2).replace("<tbody>", '<tbody id="detection-rows">')
    return (
        "<p>Boxes and masks return to the pixels of the picture. Click a detection, or the number of its row, to "
        "follow it back to its anchor.</p>"
        + '<div class="live" hidden>'
        + _lab(_canvas("detection-view", "Detections; click one to follow it"), '<ol class="origin" id="origin"></ol>')
        + f"</div>{listed}"
    )
