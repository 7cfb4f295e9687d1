"""The page of ``maskrcnn inspect``: one picture on its way through the stages, in their order.

input -> maps -> anchors -> RPN -> proposals -> RoIAlign -> heads -> selection -> masks -> detections -> truth

The scripts in ``browser/`` draw on it and repeat the choices of proposals and detections (`browser/method.js`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from html import escape
from pathlib import Path

from maskrcnn import __version__
from maskrcnn.data.table import Dataset
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inspection.embed import script_json
from maskrcnn.inspection.inspect_data import page_data
from maskrcnn.inspection.inspect_sections import walk
from maskrcnn.inspection.inspect_truth import truth_data, truth_section
from maskrcnn.inspection.page import AUTO, Section, page
from maskrcnn.inspection.replay import Replay
from maskrcnn.inspection.trace import Trace
from maskrcnn.inspection.tracer import true_objects

SCRIPTS = ("arrays", "method", "state", "view", "cells", "sliders", "follow", "truth", "start")
BROWSER = Path(__file__).with_name("browser")

TOOLBAR = (
    '<div class="row follow live" hidden><label>Follow detection <select id="follow-list"></select></label>'
    '<button id="follow-previous" aria-label="Previous detection">‹</button>'
    '<button id="follow-next" aria-label="Next detection">›</button>'
    '<button id="reset">Reset settings</button></div>\n'
)


def trace_picture(predictor: Predictor, picture: Path, truth: tuple[Dataset, int] | None) -> Trace:
    """Trace a picture with its objects, if given: with a lesson where the model can be trained. Raises `UserError`."""
    if truth is None or getattr(predictor.runtime, "model", None) is not None:
        return predictor.trace(picture, truth)
    traced = predictor.trace(picture)
    return replace(traced, truth=true_objects(predictor, truth, traced.detections.hw))


def inspect_page(predictor: Predictor, name: str, trace: Trace, replay: Replay, back: str | None = None) -> str:
    """Return the page of a traced picture. `back` is the address of the index, if there are several pages."""
    sections = walk(predictor, trace, replay)
    data = page_data(predictor, trace, replay)
    if trace.truth is not None:
        explanations = [trace.explain(k) for k in range(len(trace.truth.masks))]
        sections.append(truth_section(trace, explanations))
        data["truth"] = truth_data(trace, explanations)
    script = f"const DATA = {script_json(data)};\n" + "".join(
        (BROWSER / f"{part}.js").read_text("utf-8") for part in SCRIPTS
    )
    style = (BROWSER / "inspect.css").read_text("utf-8")
    return page(name, _headline(trace, back), sections, script, style, TOOLBAR)


def _headline(trace: Trace, back: str | None) -> str:
    link = f'<p><a href="{escape(back)}">All pictures</a></p>' if back else ""
    values = {
        "anchors": sum(len(level) for level in trace.anchors),
        "candidates": len(trace.candidates.boxes),
        "proposals": len(trace.proposals.boxes),
        "class candidates": len(trace.class_candidates.boxes),
        "detections": len(trace.detections),
    }
    tiles = "".join(f"<div><dt>{key}</dt><dd>{n:,}</dd></div>" for key, n in values.items())
    written = f"The stages of one prediction. Written {datetime.now():%Y-%m-%d %H:%M} by maskrcnn {__version__}."
    without = "<noscript><p>Without JavaScript, the page shows maps and tables, but nothing to try.</p></noscript>"
    return f'{link}<p class="soft">{escape(written)}</p><dl class="tiles">{tiles}</dl>{without}'


def inspect_index(title: str, entries: Sequence[dict[str, str]]) -> str:
    """Return the index of several pages: `entries` have name, address, thumbnail (a data URI) and sentence."""
    cards = "".join(_card(**entry) for entry in entries)
    written = f"Written {datetime.now():%Y-%m-%d %H:%M} by maskrcnn {__version__}."
    headline = f'<p class="soft">{escape(written)} Each picture has a page with the stages of its prediction.</p>'
    return page(title, headline, [Section("pictures", "Pictures", f'<div class="shots">{cards}</div>')])


def _card(name: str, address: str, thumbnail: str, sentence: str) -> str:
    href = f'href="{escape(address)}"'
    return (
        f'<figure><a {href}><img src="{thumbnail}" alt=""></a><figcaption><a {href}{AUTO}>{escape(name)}</a><br>'
        f"{escape(sentence)}</figcaption></figure>"
    )
