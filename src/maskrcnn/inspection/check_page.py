"""The page of ``maskrcnn check --html``: findings by kind with pictures, charts of the data, and some images."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path

import numpy as np

from maskrcnn import __version__
from maskrcnn.data.problem import KINDS, Description, Kind, Problem, Repair, worst_first
from maskrcnn.data.table import Dataset
from maskrcnn.detection.boxes import sides
from maskrcnn.drawing import PALETTE
from maskrcnn.errors import ImageError, counted
from maskrcnn.evaluation.suspects import Suspect, SuspectKind
from maskrcnn.files import write_text
from maskrcnn.inspection.charts import Axis, category_bars, histogram
from maskrcnn.inspection.gallery import data_uri
from maskrcnn.inspection.page import Section, chart_grid, folded, page
from maskrcnn.inspection.shots import shot_of, shot_of_suspect, typical_images, whole_image

MAX_SHOTS = 6
"""Findings of a kind that are shown as pictures, the worst first."""

MAX_LISTED = 200
"""Findings of a kind that are listed: `--json` lists them all."""

MAX_SUSPECTS = 48
"""Suspect labels that are shown as pictures."""

SHOWN = 18
"""Characters at both ends of a long word that a caption shows."""

MAX_NAMED = 3
"""Classes of one colour that the legend names."""

LONG_WORD = re.compile(r"\S{40,}")

MAX_IMAGES = 12
"""Images that are shown with all their masks."""

SCRIPT = """
const bar = document.querySelector('.filters');
if (bar) {
  const cards = [...document.querySelectorAll('.finding')];
  const buttons = [...bar.querySelectorAll('button')], kind = bar.querySelector('select');
  let severity = '';
  const show = () => cards.forEach(card => {
    card.hidden = (severity && card.dataset.severity !== severity) || (kind.value && card.dataset.kind !== kind.value);
  });
  buttons.forEach(button => button.addEventListener('click', () => {
    severity = button.value;
    buttons.forEach(other => other.setAttribute('aria-pressed', other === button));
    show();
  }));
  kind.addEventListener('change', show);
  bar.hidden = false;
}
"""


def write_check_page(path: Path, data: Dataset, findings: Sequence[Problem], more: Sequence[Section] = ()) -> None:
    """Write the page, with the sections `more` after the findings. Raise `UserError` if it cannot be written."""
    sections = [
        Section("findings", "Findings", _findings(data, findings)),
        *more,
        Section("data", "Sizes and classes", _charts(data)),
        Section("images", "Images", _images(data)),
        Section("reading", "How the data was read", _notes(data)),
    ]
    write_text(page(f"Check of {data.source.name}", _headline(data, findings), sections, SCRIPT), path)


def _headline(data: Dataset, findings: Sequence[Problem]) -> str:
    n_problems = sum(finding.is_problem for finding in findings)
    n_notes = len(findings) - n_problems
    if n_problems:
        verdict = f"{counted(n_problems, 'problem')} would hurt training."
    else:
        verdict = "Nothing that would hurt training was found."
    values = {
        "images": len(data),
        "objects": data.n_instances,
        "classes": len(data.class_names),
        "problems": n_problems,
        "notes": n_notes,
    }
    tiles = "".join(f"<div><dt>{name}</dt><dd>{n:,}</dd></div>" for name, n in values.items())
    written = f"Written {datetime.now():%Y-%m-%d %H:%M} by maskrcnn {__version__}."
    return f'<p class="verdict">{verdict}</p><p class="soft">{written}</p><dl class="tiles">{tiles}</dl>'


def _findings(data: Dataset, findings: Sequence[Problem]) -> str:
    of_kind = worst_first(findings)
    if not of_kind:
        return "<p>No finding of any kind.</p>"
    options = "".join(f"<option>{escape(kind)}</option>" for kind in of_kind)
    buttons = "".join(
        f'<button value="{value}" aria-pressed="{"false" if value else "true"}">{name}</button>'
        for value, name in (("", "All"), ("problem", "Problems"), ("note", "Notes"))
    )
    filters = (
        f'<div class="filters" hidden>{buttons}<select aria-label="Kind of finding"><option value="">all kinds</option>'
        f"{options}</select></div>"
    )
    return filters + "".join(_card(data, kind, found) for kind, found in of_kind.items())


def _card(data: Dataset, kind: Kind, found: Sequence[Problem]) -> str:
    """One kind: what it is, why it hurts, what to do, pictures and places."""
    about = KINDS[kind]
    repair = _repair(data, kind, found)
    shots = "".join(_shot(data, finding) for finding in found[:MAX_SHOTS])
    places = "".join(f"<li>{escape(_without_source(data, finding))}</li>" for finding in found[:MAX_LISTED])
    more = f"<li>and {len(found) - MAX_LISTED:,} more; --json lists them all</li>" if len(found) > MAX_LISTED else ""
    listed = f"<ul>{places}{more}</ul>"
    if len(found) > MAX_SHOTS:
        listed = folded(f"All {len(found):,} places", listed)
    elif shots:  # their captions are the list
        listed = ""
    return (
        f'<article class="finding {about.severity}" data-severity="{about.severity}" data-kind="{escape(kind)}">'
        f'<h3><span class="badge">{about.severity}</span>{escape(kind)} <small>{len(found):,}</small></h3>'
        f"<p>{escape(about.meaning)} {escape(about.harm)}</p>"
        f"<p><b>To do:</b> {escape(_remedy(about, found))}</p>{repair}"
        f"{f'<div class=shots>{shots}</div>' if shots else ''}{listed}</article>"
    )


def _options(found: Sequence[Problem]) -> str:
    return " or ".join(sorted({finding.option for finding in found if finding.option}))


def _remedy(about: Description, found: Sequence[Problem]) -> str:
    options = _options(found)
    if options:
        return about.remedy.replace("the option that the message names", options)
    return about.remedy.replace("Pass the option that the message names, or take", "Take")


def _repair(data: Dataset, kind: Kind, found: Sequence[Problem]) -> str:
    """Say what `--fix` does about these findings, "" if it leaves all of them."""
    repair, options = KINDS[kind].repair, _options(found)
    if repair is None or (repair == Repair.READ_AGAIN and not options):
        return ""
    if repair == Repair.REMOVE_REPEATS and not any(_is_of_one_class(data, finding) for finding in found):
        return ""
    action = f"read with {options}" if repair == Repair.READ_AGAIN else str(repair)
    command = f"maskrcnn check {shlex.quote(str(data.source))} --fix repaired.csv"
    return f"<p><b>Repair:</b> {escape(action)}. <code>{escape(command)}</code></p>"


def _is_of_one_class(data: Dataset, finding: Problem) -> bool:
    return len({int(data.labels[k]) for k in finding.instances}) == 1


def _without_source(data: Dataset, finding: Problem) -> str:
    return str(finding).removeprefix(f"{data.source}, ").removeprefix(f"{data.source}: ")


def _shot(data: Dataset, finding: Problem) -> str:
    caption = finding.message if finding.twin else _without_source(data, finding)
    captions = (
        (f"As they are: {caption}", "Moved") if finding.move else (caption, "") if finding.twin else (caption,) * 2
    )
    return "".join(_figure(*pair) for pair in zip(shot_of(data, finding), captions, strict=False))


def suspects_section(data: Dataset, suspects: Sequence[Suspect], model: str) -> Section:
    """Show the labels that a model disagrees with, the strongest doubt first."""
    if not suspects:
        return Section("suspects", "Suspect labels", f"<p>{escape(model)} disagrees with no label.</p>")
    counts = Counter(suspect.kind for suspect in suspects)
    listed = ", ".join(f"{kind} ({counts[kind]:,})" for kind in SuspectKind if counts[kind])
    figures = []
    for rank, suspect in enumerate(suspects[:MAX_SUSPECTS], 1):
        where = "" if suspect.instance is None else f"{data.row_noun} {data.rows[suspect.instance]}, "
        caption = f"{rank}. {suspect.kind}: {suspect.message} ({where}image {data.names[suspect.image]})"
        if (uri := shot_of_suspect(data, suspect)) is not None:
            figures.append(_figure(uri, caption))
    meaning = (
        f"<p>Where {escape(model)} disagrees with the labels, the strongest doubt first: {escape(listed)}. "
        "Yellow is the label, vermilion what the model sees, blue other labels. Either may be right: look. "
        "Dark pictures are brightened.</p>"
    )
    return Section("suspects", "Suspect labels", f'{meaning}<div class="shots">{"".join(figures)}</div>')


def _figure(uri: str, caption: str) -> str:
    """Show a picture; long words of the caption, which are file names, are cut in the middle."""
    cut = LONG_WORD.sub(lambda word: f"{word[0][:SHOWN]}…{word[0][-SHOWN:]}", caption)
    image = f'<img loading="lazy" src="{uri}" alt="{escape(caption)}">'
    title = f' title="{escape(caption)}"' if cut != caption else ""
    return f"<figure>{image}<figcaption{title}>{escape(cut)}</figcaption></figure>"


def _charts(data: Dataset) -> str:
    box_sides = np.sqrt(sides(data.boxes).prod(1))
    n_objects = np.bincount(data.labels, minlength=len(data.class_names) + 1)[1:]
    sizes = Counter(f"{w} x {h}" for h, w in data.sizes.tolist())
    charts = [
        histogram("Objects per image", "images", Axis("objects"), data.counts),
        histogram("Size of objects", "objects", Axis("side of the box, px"), box_sides),
        category_bars("Size of images", "images, by width x height", sizes),
    ]
    if len(data.class_names) > 1:
        counts = {
            name if data.class_names.count(name) == 1 else f"{name} ({class_id})": int(n)
            for name, class_id, n in zip(data.class_names, data.class_ids, n_objects, strict=True)
        }
        charts.append(category_bars("Classes", "objects", counts))
    return chart_grid(charts)


def _images(data: Dataset) -> str:
    """Show images with all their masks, and what the colours mean."""
    colors = data.labels if len(data.class_names) > 1 else None
    figures = []
    for i in typical_images(data, MAX_IMAGES):
        name, n = data.names[i], int(data.counts[i])
        try:
            uri = data_uri(whole_image(data, i, None if colors is None else colors[data.instances(i)]))
        except ImageError as error:
            figures.append(f"<figure><figcaption>{escape(str(error))}</figcaption></figure>")
            continue
        caption = f"{name}: {counted(n, 'object')}, {data.hw(i)[1]} x {data.hw(i)[0]} px"
        figures.append(_figure(uri, caption))
    meaning = "Colours tell neighbours apart." if colors is None else "Colours mark classes."
    legend = "" if colors is None else _legend(data.class_names)
    order_text = f"<p>From the image with the most objects to the one with the fewest. {meaning}</p>"
    return f'{order_text}{legend}<div class="shots">{"".join(figures)}</div>'


def _legend(class_names: Sequence[str]) -> str:
    """List the colours of classes, which repeat where there are more classes than colours."""
    names_of_color: dict[int, list[str]] = {}
    for label, name in enumerate(class_names, 1):
        names_of_color.setdefault(label % len(PALETTE), []).append(name)
    entries = []
    for color, names in names_of_color.items():
        red, green, blue = PALETTE[color].tolist()
        more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
        swatch = f'<b style="color:rgb({red},{green},{blue})" aria-hidden="true">■</b>'
        entries.append(f'<li>{swatch} <span dir="auto">{escape(", ".join(names[:MAX_NAMED]))}</span>{more}</li>')
    return f'<ul class="legend">{"".join(entries)}</ul>'


def _notes(data: Dataset) -> str:
    return "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in data.notes) + "</ul>"
