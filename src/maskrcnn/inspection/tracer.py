"""Run a prediction and keep every stage: the observer, and what follows from the stages that it is handed.

B images, T candidates, R proposals, P class candidates, K anchors of all levels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from maskrcnn.config import PredictConfig
from maskrcnn.data.table import Dataset
from maskrcnn.detection.anchors import Anchors
from maskrcnn.detection.arrays import to_numpy
from maskrcnn.detection.boxes import to_pixels, to_units, voters
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.fit import stack
from maskrcnn.detection.pool import assign_levels
from maskrcnn.detection.propose import is_large, reaches_floor, sigmoid
from maskrcnn.detection.select import VOTING_IOU, reaches, refine, softmax
from maskrcnn.detection.stages import Candidates, ClassCandidates, Proposals, Selection, Trunk
from maskrcnn.errors import UserError
from maskrcnn.evaluation.classes import match_classes, model_labels
from maskrcnn.inspection.suppression import NOBODY, Suppression, explain_suppression
from maskrcnn.inspection.trace import (
    BELOW_FLOOR,
    BELOW_THRESHOLD,
    CUT,
    KEPT,
    SUPPRESSED,
    TOO_SMALL,
    CandidateStage,
    ClassCandidateStage,
    Levels,
    MaskStage,
    ProposalStage,
    Trace,
    Truth,
)
from maskrcnn.rle import RLE

if TYPE_CHECKING:
    from maskrcnn.inference.predictor import Picture, Predictor


class Recorder:
    """An `Observe` that keeps a copy of every result, as NumPy arrays."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}

    def __call__(self, name: str, result: Any) -> None:
        self.results[name] = _owned(result)


TrueObjects = Sequence[tuple[RLE, Any]] | tuple[Dataset, int]
"""The objects of a picture: masks with class ids or names of the model, or a data set and an index of a picture."""


def true_objects(predictor: Predictor, truth: TrueObjects, hw: tuple[int, int]) -> Truth:
    """Return the objects with the model's labels. Raises `UserError` for other sizes than `hw` and unknown classes."""
    if len(truth) == 2 and isinstance(truth[0], Dataset):
        data, i = cast("tuple[Dataset, int]", truth)
        match_classes(predictor, data)  # raises if they have nothing in common
        label_of = model_labels(predictor, data)
        labels = [label_of.get(int(k), 0) for k in data.labels[data.instances(i)]]
        pairs = [(rle, label) for rle, label in zip(data.rles(i), labels, strict=True) if label]
        n_unknown = labels.count(0)
    else:
        objects = cast("Sequence[tuple[RLE, Any]]", truth)
        known = {str(name): k for k, name in enumerate(predictor.class_names, 1)}
        known |= {str(class_id): k for k, class_id in enumerate(predictor.class_ids, 1)}
        unknown = [name for _, name in objects if str(name) not in known]
        if unknown:
            classes = ", ".join(predictor.class_names)
            raise UserError(
                f"the truth names {unknown[0]!r}, which is no class of the model; the classes are {classes}"
            )
        pairs, n_unknown = [(rle, known[str(name)]) for rle, name in objects], 0
    for k, (rle, _) in enumerate(pairs):
        if rle.hw != hw:
            raise UserError(f"mask {k} of the truth is for a picture of (height, width) {rle.hw}; this one has {hw}")
    return Truth(tuple(rle for rle, _ in pairs), np.array([label for _, label in pairs], np.int64), n_unknown)


def trace(predictor: Predictor, picture: Picture, recorder: Recorder | None = None) -> Trace:
    """Trace the prediction of one picture. `recorder` keeps the results, whose boxes are in the network's units.

    Raises `ImageError` if the picture cannot be decoded.
    """
    item, recorder = predictor.prepare(picture), recorder or Recorder()
    (detections,) = predictor.detect([item], keep_pixels=True, observe=recorder)
    results = recorder.results
    detector, predict = predictor.runtime.detector, predictor.config.predict
    conventions = detector.conventions
    trunk: Trunk = results["trunk"]
    anchors, maps = detector.anchors, _all_maps(trunk)
    window = np.array(item.fitted.window, np.float32)
    bounds = to_units(window, trunk.input_hw, conventions)
    candidates: Candidates = results["candidates"]
    proposals: Proposals = results["proposals"]
    classified: ClassCandidates = results["class_candidates"]
    selection: Selection = results["selection"]
    assert candidates.anchor_index is not None
    assert proposals.columns is not None
    assert selection.candidate_index is not None
    maps_hw = [(m.shape[1], m.shape[2]) for m in trunk.maps]

    def in_pixels(boxes: np.ndarray) -> np.ndarray:
        return to_pixels(boxes, trunk.input_hw, conventions)

    def pooled_level(boxes: np.ndarray) -> np.ndarray:
        return assign_levels(boxes, maps_hw, anchors.pooled_strides[0], conventions)

    level, row, column, cell_anchor = _places(candidates.anchor_index[0], trunk.maps_hw, anchors)
    fates, fought = _candidate_fates(candidates, proposals, detector.config.proposal_nms_threshold, conventions)
    class_fates, class_fought = _class_fates(classified, selection, predict, conventions)
    all_boxes = np.repeat(proposals.boxes[:, None], results["class_logits"].shape[1], 1)
    votes = voters(classified.boxes, classified.labels, selection.candidate_index, VOTING_IOU)
    if not predict.box_voting:
        votes &= selection.candidate_index[:, None] == np.arange(len(classified.boxes))
    side, channels = detector.config.mask_size, trunk.maps[0].shape[3]
    nothing = np.zeros((0, side // 2, side // 2, channels), np.float32), np.zeros((0, side, side), np.float32)
    return Trace(
        picture=item.pixels,
        network_input=stack([item.fitted.pixels])[0],
        window=window,
        backbone_maps=tuple(results.get("backbone", ())),
        pyramid_maps=maps,
        anchors=_by_level(in_pixels(anchors(trunk.maps_hw, trunk.input_hw)), trunk.maps_hw, anchors),
        rpn_class_probabilities=tuple(
            sigmoid(np.stack([-logits, logits], -1)).reshape(1, *hw, -1)
            for logits, hw in zip(_by_level(trunk.objectness[0], trunk.maps_hw, anchors), trunk.maps_hw, strict=True)
        ),
        rpn_deltas=tuple(
            deltas.reshape(1, *hw, -1)
            for deltas, hw in zip(_by_level(trunk.deltas[0], trunk.maps_hw, anchors), trunk.maps_hw, strict=True)
        ),
        candidates=CandidateStage(
            boxes=in_pixels(candidates.boxes[0]),
            objectness=sigmoid(candidates.logits[0]),
            anchor=candidates.anchor_index[0],
            level=level,
            row=row,
            column=column,
            cell_anchor=cell_anchor,
            fate=fates,
            suppressed_by=fought.by,
            suppressed_iou=fought.iou,
        ),
        proposals=ProposalStage(
            boxes=in_pixels(proposals.boxes),
            objectness=sigmoid(proposals.logits),
            candidate=proposals.columns,
            pooled_level=pooled_level(proposals.boxes),
            pooled=results["box_pool"],
            class_probabilities=softmax(results["class_logits"]),
            refined_boxes=in_pixels(refine(results["box_deltas"], all_boxes, bounds, conventions)),
        ),
        class_candidates=ClassCandidateStage(
            boxes=in_pixels(classified.boxes),
            scores=classified.scores,
            labels=classified.labels,
            proposal=classified.proposal_index,
            fate=class_fates,
            suppressed_by=class_fought.by,
            suppressed_iou=class_fought.iou,
        ),
        masks=MaskStage(
            class_candidate=selection.candidate_index,
            boxes=in_pixels(selection.boxes),
            voters=tuple(np.flatnonzero(votes_for) for votes_for in votes),
            pooled_level=pooled_level(selection.boxes),
            pooled=results.get("mask_pool", nothing[0]),
            logits=results.get("mask_logits", nothing[1]),
        ),
        detections=detections,
        detected_mask=_rows_of(results["candidate_index"], selection.candidate_index),
        strides=anchors.strides,
        conventions=conventions,
        config=predictor.config,
    )


def _candidate_fates(
    candidates: Candidates, proposals: Proposals, threshold: float, conventions: Conventions
) -> tuple[np.ndarray, Suppression]:
    """What became of each candidate (T,), and the suppression among all of them."""
    large, above_floor = is_large(candidates, conventions)[0], reaches_floor(candidates, conventions)[0]
    assert proposals.columns is not None
    fought = _suppression_among(
        np.flatnonzero(large & above_floor),
        candidates.boxes[0],
        candidates.levels,
        proposals.columns,
        threshold,
        conventions,
    )
    return np.select([~large, ~above_floor], [TOO_SMALL, BELOW_FLOOR], _fates(fought)), fought


def _class_fates(
    classified: ClassCandidates, selection: Selection, predict: PredictConfig, conventions: Conventions
) -> tuple[np.ndarray, Suppression]:
    """What became of each class candidate (P,), and the suppression among all of them."""
    assert selection.candidate_index is not None
    fought = _suppression_among(
        np.flatnonzero(classified.competes),
        classified.boxes,
        classified.labels,
        selection.candidate_index,
        predict.nms_threshold,
        conventions,
    )
    below = ~reaches(classified.scores, predict.score_threshold, conventions)
    return np.select([below, ~classified.competes], [BELOW_THRESHOLD, TOO_SMALL], _fates(fought)), fought


def _suppression_among(
    competing: np.ndarray,
    boxes: np.ndarray,
    groups: np.ndarray,
    kept: np.ndarray,
    threshold: float,
    conventions: Conventions,
) -> Suppression:
    """`explain_suppression` among the rows `competing` of boxes (N, 4), in rows of all of them."""
    among = explain_suppression(
        boxes[competing], groups[competing], _rows_of(kept, competing), threshold, conventions.groups_shifted
    )
    result = Suppression(np.zeros(len(boxes), bool), np.full(len(boxes), NOBODY), np.zeros(len(boxes), np.float32))
    result.kept[competing], result.iou[competing] = among.kept, among.iou
    result.by[competing] = np.where(among.by == NOBODY, NOBODY, competing[among.by]) if len(competing) else []
    return result


def _fates(fought: Suppression) -> np.ndarray:
    return np.select([fought.kept, fought.cut], [KEPT, CUT], SUPPRESSED)


def _rows_of(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return the row in `table` of each of `values`, all of which it holds once."""
    order = np.argsort(table, kind="stable")
    return order[np.searchsorted(table[order], values)]


def _places(anchor: np.ndarray, maps_hw: Sequence[tuple[int, int]], anchors: Anchors) -> tuple[np.ndarray, ...]:
    """Level, row, column and number in the cell of anchors (T,), counted over all levels."""
    starts = np.cumsum([0, *anchors.counts(tuple(maps_hw))])
    level = np.searchsorted(starts, anchor, "right") - 1
    cell, cell_anchor = np.divmod(anchor - starts[level], anchors.per_cell)
    row, column = np.divmod(cell, np.array([columns for _, columns in maps_hw])[level])
    return level, row, column, cell_anchor


def _by_level(values: np.ndarray, maps_hw: tuple[tuple[int, int], ...], anchors: Anchors) -> Levels:
    """Split values (K, ..) of all anchors by level."""
    ends = accumulate(anchors.counts(maps_hw), initial=0)
    return tuple(values[start:end] for start, end in pairwise(ends))


def _all_maps(trunk: Trunk) -> Levels:
    """The maps of all levels with anchors: P6, which RoIAlign does not read, is every second cell of P5."""
    if len(trunk.maps_hw) == len(trunk.maps):
        return tuple(trunk.maps)
    return (*trunk.maps, np.ascontiguousarray(trunk.maps[-1][:, ::2, ::2]))


def _owned(result: Any) -> Any:
    """Copy the arrays of a result into memory that nothing else writes."""
    if result is None or isinstance(result, str | int | float):
        return result
    if is_dataclass(result) and not isinstance(result, type):
        return replace(result, **{f.name: _owned(getattr(result, f.name)) for f in fields(result)})
    if isinstance(result, list | tuple):
        return type(result)(_owned(value) for value in result)
    return np.array(to_numpy(result))
