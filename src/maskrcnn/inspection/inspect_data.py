"""What the scripts of ``maskrcnn inspect``'s page read: a `Trace` and its `Replay` -> one JSON object.

T candidates, P class candidates, S masks of G x G cells, k anchors a cell
"""

from __future__ import annotations

from typing import Any

import numpy as np

from maskrcnn.detection.boxes import MAX_SHIFTED, to_pixels
from maskrcnn.detection.pool import BOX_POOL
from maskrcnn.detection.select import VOTING_IOU, VOTING_SCORE, detection_limit
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inspection.embed import norms, packed, packed_outlines, tenths
from maskrcnn.inspection.replay import Replay
from maskrcnn.inspection.trace import Trace


def page_data(predictor: Predictor, trace: Trace, replay: Replay) -> dict[str, Any]:
    """Return what the page's scripts read. Boxes are in the network's units, which `units` turns into input pixels."""
    _, input_h, input_w, _ = trace.network_input.shape
    classes, masks, wide = replay.classes, replay.masks, replay.wide
    picture_h, picture_w = trace.picture.shape[:2]
    return {
        "input": {"width": input_w, "height": input_h},
        "picture": {"width": picture_w, "height": picture_h},
        "window": [float(v) for v in trace.window],
        "units": _units(trace, (input_h, input_w)),
        "classes": list(predictor.class_names),
        "settings": _settings(predictor, replay),
        "rules": _rules(predictor, replay),
        "levels": _levels(trace),
        "candidates": {
            "boxes": packed(replay.boxes, "float32"),
            "rank": packed(replay.rank, "float32"),
            "group": packed(replay.group, "uint8"),
            "eligible": packed(replay.is_eligible, "uint8"),
            "objectness": packed(trace.candidates.objectness, "float32"),
            "anchor": packed(trace.candidates.anchor, "int32"),
            "level": packed(trace.candidates.level, "uint8"),
            **_pooled(wide, len(replay.boxes)),
        },
        "classCandidates": {
            "boxes": packed(classes.boxes, "float32"),
            "scores": packed(classes.scores, "float32"),
            "labels": packed(classes.labels, "uint16"),
            "candidate": packed(classes.candidate, "int32"),
            "large": packed(classes.is_large, "uint8"),
        },
        "masks": {
            "row": packed(masks.row, "int32"),
            "certainty": packed(masks.certainty, "float32"),
            "side": masks.logits.shape[-1],
            "logits": packed(tenths(masks.logits), "int8"),
            "outlines": packed_outlines(masks.rles, outline_hw(trace)),
        },
    }


def outline_hw(trace: Trace) -> tuple[int, int]:
    """Size of the grid of outlines: that of the picture or of its window in the input, whichever is smaller."""
    x1, y1, x2, y2 = trace.window.astype(int).tolist()
    h, w = trace.picture.shape[:2]
    return (h, w) if h * w <= (y2 - y1) * (x2 - x1) else (y2 - y1, x2 - x1)


def _units(trace: Trace, input_hw: tuple[int, int]) -> dict[str, list[float]]:
    """Span and shift that turn a box in the network's units into input pixels."""
    corners = np.array([[0, 0, 0, 0], [1, 1, 1, 1]], np.float32)
    shift, end = to_pixels(corners, input_hw, trace.conventions)
    return {"span": (end - shift).tolist(), "shift": shift.tolist(), "rounded": trace.conventions.normalized_boxes}


def _settings(predictor: Predictor, replay: Replay) -> dict[str, Any]:
    """The values that the page's sliders start at: the model's."""
    network, predict = predictor.runtime.detector.config, predictor.config.predict
    return {
        "proposalThreshold": network.proposal_nms_threshold,
        "proposals": network.proposals,
        "threshold": predict.nms_threshold,
        "score": max(predict.score_threshold, replay.classes.floor),
        "detections": detection_limit(predict),
    }


def _rules(predictor: Predictor, replay: Replay) -> dict[str, Any]:
    """What selection also depends on, and no slider changes."""
    conventions, predict = predictor.conventions, predictor.config.predict
    return {
        "floor": replay.classes.floor,
        "perLevel": predictor.runtime.detector.config.proposals_per_level,
        "voting": predict.box_voting,
        "votingIou": VOTING_IOU,
        "votingScore": VOTING_SCORE,
        "maskScoring": predict.mask_scoring,
        "bestOnly": conventions.best_class_only,
        "groupsShifted": conventions.groups_shifted,
        "maxShifted": MAX_SHIFTED,
    }


def _levels(trace: Trace) -> list[dict[str, Any]]:
    levels = []
    for number, (anchors, probabilities, stride) in enumerate(
        zip(trace.anchors, trace.rpn_class_probabilities, trace.strides, strict=True)
    ):
        _, rows, columns, _ = probabilities.shape
        cells = anchors.reshape(rows, columns, -1, 4)
        step_x = float(cells[0, 1, 0, 0] - cells[0, 0, 0, 0]) if columns > 1 else float(stride)
        step_y = float(cells[1, 0, 0, 1] - cells[0, 0, 0, 1]) if rows > 1 else float(stride)
        levels.append(
            {
                "name": level_name(trace, number),
                "rows": rows,
                "columns": columns,
                "stride": stride,
                "step": [step_x, step_y],
                "cellAnchors": cells[0, 0].tolist(),
                "objectness": packed(probabilities.reshape(-1, 2)[:, 1], "float32"),
            }
        )
    return levels


def level_name(trace: Trace, level: int) -> str:
    """The usual name of a pyramid level: P2 to P6, or the stride of the only map."""
    return f"P{level + 2}" if len(trace.strides) > 1 else f"stride {trace.strides[0]}"


def _pooled(wide: Trace, n_candidates: int) -> dict[str, Any]:
    """Where RoIAlign reads for every candidate, the size of what it reads, and the background's probability.

    Samples lie at equal distances: first, distance and number along x and y, in input pixels. Zeros for a candidate
    that is no proposal under any setting.
    """
    stage, size = wide.proposals, BOX_POOL
    samples = np.zeros((n_candidates, 6), np.float32)
    level, cells = np.zeros(n_candidates, np.uint8), np.zeros((n_candidates, size, size), np.uint8)
    background = np.ones(n_candidates, np.float32)
    for proposal, candidate in enumerate(stage.candidate.tolist()):
        samples[candidate] = [v for axis in wide.sampling_points(proposal) for v in _progression(axis)]
    length = norms(stage.pooled)
    highest = length.max((1, 2), initial=0)[:, None, None].clip(min=1e-12)
    cells[stage.candidate] = (length / highest * 255).round()
    level[stage.candidate] = stage.pooled_level
    background[stage.candidate] = stage.class_probabilities[:, 0]
    return {
        "samples": packed(samples, "float32"),
        "pooledLevel": packed(level, "uint8"),
        "pooled": packed(cells, "uint8"),
        "background": packed(background, "float32"),
    }


def _progression(points: np.ndarray) -> tuple[float, float, int]:
    """First value, distance and number of points at equal distances."""
    distance = (points[-1] - points[0]) / (len(points) - 1) if len(points) > 1 else 0.0
    return float(points[0]), float(distance), len(points)
