"""Best and worst images as small pictures, truth and detections side by side, for a page that stays small.

Both are scaled to `SIDE` pixels; a mask is looked up in its runs at the pixels of the small picture, so that an image
of any size costs little more than its decoding.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from maskrcnn.data.images import ImageError, read_image, resize
from maskrcnn.drawing import draw_instances
from maskrcnn.evaluation import Evaluation
from maskrcnn.evaluation.errors import KINDS, Judgement
from maskrcnn.rle import RLE

SIDE = 420
QUALITY = 80
SHOWN = 6
"""Best images, and worst."""

RIGHT_COLOR, WRONG_COLOR = 2, 5
"""Bluish green and vermillion of `drawing.PALETTE`, which people of any colour vision tell apart."""

MOST_LABELS = 12
"""More labels than this would hide the picture."""


@dataclass(frozen=True)
class Picture:
    """One image: its name, its Kaggle score and what `pictures` show.

    `pictures` are truth and detections as data URIs, None where the file cannot be read; `n_missed` of `n_truth`
    instances were not found; `kinds` counts the detections of each of `evaluation.errors.KINDS`.
    """

    name: str
    score: float
    pictures: tuple[str, str] | None
    n_truth: int
    n_missed: int
    kinds: dict[str, int]


def best_and_worst(evaluation: Evaluation) -> tuple[list[int], list[int]]:
    """Indices of the images of highest and of lowest score, at most `SHOWN` each and none in both.

    Of equals, the fuller image comes first: an empty image in which nothing was found tells little.
    """
    scores, counts = evaluation.image_scores, evaluation.data.counts
    n = len(scores)
    worst = np.lexsort((-counts, scores))[: min(SHOWN, (n + 1) // 2)]
    best = np.lexsort((-counts, -scores))
    return [int(i) for i in best if i not in worst][:SHOWN], worst.tolist()


def picture(evaluation: Evaluation, judgement: Judgement, i: int) -> Picture:
    """Image i of the evaluation, with the detections that `predict` would return."""
    data, detections = evaluation.data, evaluation.detections[i]
    threshold = evaluation.scores["kaggle"]["score_threshold"]
    mine = np.flatnonzero((judgement.images == i) & (judgement.scores >= threshold))
    kinds, rows = judgement.kinds[mine], judgement.rows[mine]
    missed = judgement.found_at[data.instances(i)] < threshold
    names = [data.class_names[k - 1] for k in data.labels[data.instances(i)]] if len(data.class_names) > 1 else None
    says = [KINDS[k] if k else "" for k in kinds]
    if names is not None:
        says = [" ".join(filter(None, (detections.class_names[r], s))) for r, s in zip(rows, says, strict=True)]
    try:
        pixels = read_image(data.files[i])
    except ImageError:
        pictures = None
    else:
        small = resize(pixels, _fitting(data.hw(i)))
        found = [detections.rles[r] for r in rows]
        pictures = _drawn(small, data.rles(i), missed, names), _drawn(small, found, kinds > 0, says)
    counted = np.bincount(kinds, minlength=len(KINDS))
    return Picture(
        data.names[i],
        float(evaluation.image_scores[i]),
        pictures,
        len(missed),
        int(missed.sum()),
        {name: int(n) for name, n in zip(KINDS, counted, strict=True) if n},
    )


def shrunk(mask: RLE, hw: tuple[int, int]) -> RLE:
    """`mask` on a picture of another size: what lies under the centre of each of its pixels."""
    height, width = mask.hw
    x1, y1, x2, y2 = mask.box
    rows = ((np.arange(hw[0]) + 0.5) * height / hw[0]).astype(np.int64)
    columns = ((np.arange(hw[1]) + 0.5) * width / hw[1]).astype(np.int64)
    (top, bottom), (left, right) = np.searchsorted(rows, [y1, y2]), np.searchsorted(columns, [x1, x2])
    if top == bottom or left == right:
        return RLE.empty(hw)
    index = columns[left:right][None] * height + rows[top:bottom][:, None]
    run = np.searchsorted(mask.runs[:, 0], index, "right") - 1
    inside = (run >= 0) & (index < mask.runs[run].sum(-1))  # a run's start and length add up to its end
    return RLE.from_mask(inside).shift(int(left), int(top), hw)


def _fitting(hw: tuple[int, int]) -> tuple[int, int]:
    factor = SIDE / max(hw)
    return max(1, round(hw[0] * factor)), max(1, round(hw[1] * factor))


def _drawn(image: np.ndarray, masks: list[RLE], wrong: np.ndarray, labels: list[str] | None) -> str:
    """A data URI of the picture with the masks outlined, wrong ones in the other colour."""
    small = [shrunk(mask, (image.shape[0], image.shape[1])) for mask in masks]
    shown = [k for k, mask in enumerate(small) if len(mask.runs)]
    colors = np.where(wrong, WRONG_COLOR, RIGHT_COLOR)[shown]
    labels = [labels[k] for k in shown] if labels is not None else []
    few = 0 < sum(map(bool, labels)) <= MOST_LABELS
    return _data_uri(draw_instances(image, [small[k] for k in shown], None, labels if few else None, colors))


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
