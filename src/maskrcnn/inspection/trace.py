"""`Trace`: every stage of one prediction as named arrays, from the network's input to the pasted masks.

fit -> backbone -> pyramid -> RPN -> candidates -> proposals -> box head -> class candidates -> masks -> detections

The arrays are those that `Detector.detect` hands to an observer (`tracer`): nothing is computed a second time. What
follows from them (sampling points, who suppressed whom, who voted) comes from the definitions in `maskrcnn.detection`.

H x W pixels of the picture, h x w of the network's input, L pyramid levels, M x N cells of a map, k anchors a cell,
C channels, T candidates, R proposals, K classes, P class candidates, S masks of G x G cells, D detections
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import numpy as np

from maskrcnn.config import Config
from maskrcnn.detection.boxes import clip_boxes, decode_boxes, to_pixels, to_units
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.pool import sample_points
from maskrcnn.errors import UserError
from maskrcnn.rle import RLE
from maskrcnn.structures import Detections

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from maskrcnn.inspection.explain import Explanation

KEPT, SUPPRESSED, CUT = "kept", "suppressed", "cut by the limit"
TOO_SMALL, BELOW_FLOOR, BELOW_THRESHOLD = "too small", "below the floor", "below the threshold"
"""What may become of a box: the values of ``fate``."""

PARTS = ("candidates", "proposals", "class_candidates", "masks", "lesson")
"""Fields of a trace that hold several arrays of as many rows."""

Levels = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Stage:
    """Describes an array of a trace: its shape, its unit and what it is."""

    shape: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class CandidateStage:
    """The best anchors of each level, decoded and clipped, and what became of each; see `Trace.summary`."""

    boxes: Annotated[
        np.ndarray, Stage("(T, 4)", "input px", "The best anchors of each level after their deltas, clipped.")
    ]
    objectness: Annotated[np.ndarray, Stage("(T,)", "probability", "Probability of the foreground.")]
    anchor: Annotated[np.ndarray, Stage("(T,)", "index", "The anchor of each candidate, counted over all levels.")]
    level: Annotated[np.ndarray, Stage("(T,)", "index", "Pyramid level of that anchor, 0 for the finest.")]
    row: Annotated[np.ndarray, Stage("(T,)", "cells", "Row of that anchor's cell.")]
    column: Annotated[np.ndarray, Stage("(T,)", "cells", "Column of that anchor's cell.")]
    cell_anchor: Annotated[np.ndarray, Stage("(T,)", "index", "Which of the k anchors of the cell.")]
    fate: Annotated[
        np.ndarray, Stage("(T,)", "words", "kept, suppressed, cut by the limit, too small or below the floor.")
    ]
    suppressed_by: Annotated[np.ndarray, Stage("(T,)", "index", "The candidate that suppressed this one, else -1.")]
    suppressed_iou: Annotated[np.ndarray, Stage("(T,)", "IoU", "Overlap of those two, else 0.")]


@dataclass(frozen=True)
class ProposalStage:
    """The candidates that survived suppression, best first, and what the box head made of each; see `Trace.summary`."""

    boxes: Annotated[np.ndarray, Stage("(R, 4)", "input px", "The candidates that survived suppression, best first.")]
    objectness: Annotated[np.ndarray, Stage("(R,)", "probability", "Probability of the foreground.")]
    candidate: Annotated[np.ndarray, Stage("(R,)", "index", "The candidate that each proposal is.")]
    pooled_level: Annotated[np.ndarray, Stage("(R,)", "index", "Pyramid level that RoIAlign reads.")]
    pooled: Annotated[np.ndarray, Stage("(R, 7, 7, C)", "features", "RoIAlign's output, the box head's input.")]
    class_probabilities: Annotated[
        np.ndarray, Stage("(R, K + 1)", "probability", "The box head's softmax; 0 is background.")
    ]
    refined_boxes: Annotated[
        np.ndarray, Stage("(R, K + 1, 4)", "input px", "The box after the deltas of each class, clipped.")
    ]


@dataclass(frozen=True)
class ClassCandidateStage:
    """Every class of every proposal that may be detected or vote, and what became of each; see `Trace.summary`."""

    boxes: Annotated[
        np.ndarray, Stage("(P, 4)", "input px", "Every class of every proposal that may be detected or vote: its box.")
    ]
    scores: Annotated[np.ndarray, Stage("(P,)", "probability", "Its probability.")]
    labels: Annotated[np.ndarray, Stage("(P,)", "index", "Its class; 1 is the first.")]
    proposal: Annotated[np.ndarray, Stage("(P,)", "index", "Its proposal.")]
    fate: Annotated[
        np.ndarray, Stage("(P,)", "words", "kept, suppressed, cut by the limit, too small or below the threshold.")
    ]
    suppressed_by: Annotated[
        np.ndarray, Stage("(P,)", "index", "The class candidate that suppressed this one, else -1.")
    ]
    suppressed_iou: Annotated[np.ndarray, Stage("(P,)", "IoU", "Overlap of those two, else 0.")]


@dataclass(frozen=True)
class MaskStage:
    """The class candidates that were kept, with their masks; see `Trace.summary`."""

    class_candidate: Annotated[
        np.ndarray, Stage("(S,)", "index", "The class candidates that survived suppression, best first.")
    ]
    boxes: Annotated[np.ndarray, Stage("(S, 4)", "input px", "Their boxes after the votes.")]
    voters: Annotated[
        Levels, Stage("S x (V,)", "index", "The class candidates whose boxes were averaged, itself included.")
    ]
    pooled_level: Annotated[np.ndarray, Stage("(S,)", "index", "Pyramid level that RoIAlign reads.")]
    pooled: Annotated[
        np.ndarray, Stage("(S, G / 2, G / 2, C)", "features", "RoIAlign's output, the mask head's input.")
    ]
    logits: Annotated[
        np.ndarray, Stage("(S, G, G)", "logit", "The mask head's output for the detected class; above 0 is mask.")
    ]


@dataclass(frozen=True)
class Truth:
    """The true objects of a picture, G of them: masks in its pixels, and the model's labels (G,).

    `n_unknown` more are left out, because the model does not know their class.
    """

    masks: tuple[RLE, ...]
    labels: np.ndarray
    n_unknown: int = 0


@dataclass(frozen=True)
class Lesson:
    """What a training step makes of the picture: see `Trace.summary`. It is trained as it is, without augmentation.

    `losses` are the five of the step and "loss", their weighted sum.
    """

    losses: dict[str, float]
    anchor_object: Annotated[np.ndarray, Stage("(M * N * k,)", "index", "The object that each anchor overlaps most.")]
    anchor_iou: Annotated[np.ndarray, Stage("(M * N * k,)", "IoU", "Its overlap with that object.")]
    anchor_label: Annotated[np.ndarray, Stage("(M * N * k,)", "1, 0, -1", "Positive, negative, or neither.")]
    sampled_anchors: Annotated[np.ndarray, Stage("(A,)", "index", "The anchors that the step samples.")]
    proposals: Annotated[np.ndarray, Stage("(Q, 4)", "input px", "The step's proposals, and the true boxes.")]
    proposal_object: Annotated[np.ndarray, Stage("(Q,)", "index", "The object that each of them overlaps most.")]
    proposal_iou: Annotated[np.ndarray, Stage("(Q,)", "IoU", "Its overlap with that object.")]
    proposal_label: Annotated[np.ndarray, Stage("(Q,)", "1, 0", "Positive or negative.")]
    sampled_regions: Annotated[np.ndarray, Stage("(N, 4)", "input px", "The regions that the step samples.")]
    region_labels: Annotated[np.ndarray, Stage("(N,)", "index", "Their true classes; 0 is background.")]


@dataclass(frozen=True, repr=False)
class Trace:
    """Every stage of one prediction. `summary` (and ``print``) lists names, shapes, units and meanings.

    Boxes are xyxy in pixels of the network's input, where the picture fills `window`; detections are in pixels of the
    picture. Everything is float32, indices are int64, and labels count from 1.

    `network_input` (1, h, w, 3) is uint8, or float32 where the conventions do not round it. `backbone_maps`,
    `pyramid_maps`: (1, M, N, C) of each level, finest first; a bundle has no backbone maps. `anchors`: (M * N * k, 4)
    of each level by row, column and anchor of the cell. `rpn_class_probabilities`: (1, M, N, 2k), background and
    foreground of each anchor; `rpn_deltas`: (1, M, N, 4k), tx, ty, tw, th. The fields of `candidates` (T,),
    `proposals` (R,), `class_candidates` (P,) and `masks` (S,) refer to each other by row, so that `origin` follows a
    detection back to its anchor.
    """

    picture: Annotated[np.ndarray, Stage("(H, W, 3) uint8", "0 to 255", "The picture as it was read.")]
    network_input: Annotated[np.ndarray, Stage("(1, h, w, 3)", "0 to 255", "The picture, scaled and padded.")]
    window: Annotated[np.ndarray, Stage("(4,)", "input px", "Where the picture lies in the network's input.")]
    backbone_maps: Annotated[Levels, Stage("levels x (1, M, N, C)", "features", "C2 to C5; none in a bundle.")]
    pyramid_maps: Annotated[Levels, Stage("L x (1, M, N, C)", "features", "P2 to P6, or the single map.")]
    anchors: Annotated[Levels, Stage("L x (M * N * k, 4)", "input px", "The anchors of every cell.")]
    rpn_class_probabilities: Annotated[
        Levels, Stage("L x (1, M, N, 2k)", "probability", "Background, foreground of an anchor.")
    ]
    rpn_deltas: Annotated[Levels, Stage("L x (1, M, N, 4k)", "deltas", "tx, ty, tw, th of an anchor.")]
    candidates: CandidateStage
    proposals: ProposalStage
    class_candidates: ClassCandidateStage
    masks: MaskStage
    detections: Annotated[
        Detections, Stage("D", "picture px", "What `predict` returns: boxes, scores, classes, masks as runs.")
    ]
    detected_mask: Annotated[np.ndarray, Stage("(D,)", "index", "The row of `masks` that each detection is.")]
    strides: tuple[int, ...]
    conventions: Conventions
    config: Config
    truth: Truth | None = None
    lesson: Lesson | None = None

    def __repr__(self) -> str:
        return self.summary()

    @property
    def stages(self) -> list[tuple[str, str, str, str]]:
        """Name, shape, unit and meaning of each array."""
        return [(name, _shape(value), stage.unit, stage.meaning) for name, value, stage in _described(self, "")]

    def summary(self) -> str:
        """Return a table of the stages: name, shape, unit and meaning of each array."""
        rows = [("stage", "shape", "unit", "meaning"), *self.stages]
        widths = [max(len(row[k]) for row in rows) for k in range(3)]
        return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]) for row in rows)

    def in_input(self, boxes: np.ndarray) -> np.ndarray:
        """Return boxes (.., 4) of the picture's pixels in those of the network's input, float32."""
        scale, offset = self._placing
        return boxes.astype(np.float32) * scale + offset

    def in_picture(self, boxes: np.ndarray) -> np.ndarray:
        """Return boxes (.., 4) of the network's input in pixels of the picture."""
        scale, offset = self._placing
        return (boxes - offset) / scale

    @property
    def _placing(self) -> tuple[np.ndarray, np.ndarray]:
        """Factors and offsets (4,) from the picture's pixels to those of the network's input."""
        (h, w), (x1, y1, x2, y2) = self.detections.hw, self.window
        return np.array([(x2 - x1) / w, (y2 - y1) / h] * 2, np.float32), np.array([x1, y1, x1, y1], np.float32)

    @cached_property
    def rpn_boxes(self) -> np.ndarray:
        """The boxes of all anchors after their deltas, clipped to the picture: (sum of M * N * k, 4), input pixels."""
        conventions, input_hw = self.conventions, (self.network_input.shape[1], self.network_input.shape[2])
        anchors = to_units(np.concatenate(self.anchors), input_hw, conventions)
        deltas = np.concatenate([d.reshape(-1, 4) for d in self.rpn_deltas])
        boxes = decode_boxes(deltas, anchors, conventions.rpn_delta_weights, conventions.delta_clip)
        return clip_boxes(to_pixels(boxes, input_hw, conventions), self.window)

    def plot(self) -> Figure:
        """Return the input, the objectness, the proposals and the detections side by side, as a figure of matplotlib.

        Raise `UserError` without matplotlib.
        """
        from maskrcnn.inspection.plots import plot_trace

        return plot_trace(self)

    def _repr_html_(self) -> str:
        from maskrcnn.inspection.notebook import trace_view

        return trace_view(self)

    def origin(self, detection: int) -> Origin:
        """Follow row `detection` of `detections` back to its anchor."""
        candidates, row = self.candidates, int(self.detected_mask[detection])
        class_candidate = int(self.masks.class_candidate[row])
        proposal = int(self.class_candidates.proposal[class_candidate])
        candidate = int(self.proposals.candidate[proposal])
        return Origin(
            detection=detection,
            mask=row,
            class_candidate=class_candidate,
            proposal=proposal,
            candidate=candidate,
            anchor=int(candidates.anchor[candidate]),
            level=int(candidates.level[candidate]),
            row=int(candidates.row[candidate]),
            column=int(candidates.column[candidate]),
            cell_anchor=int(candidates.cell_anchor[candidate]),
            anchor_box=np.concatenate(self.anchors)[candidates.anchor[candidate]],
            proposal_box=self.proposals.boxes[proposal],
            box=self.masks.boxes[row],
        )

    def explain(self, instance: int) -> Explanation:
        """Say whether object `instance` of the truth was found, or which stage lost it. Raises `UserError`."""
        from maskrcnn.inspection.explain import explain

        if self.truth is None:
            raise UserError("this trace knows no objects; give them to trace(picture, truth)")
        return explain(self, self.truth.masks[instance], int(self.truth.labels[instance]))

    def sampling_points(self, proposal: int, *, of_mask: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Where RoIAlign reads for a proposal, or for row `proposal` of `masks`: x (X,) and y (Y,) in input pixels.

        Every x pairs with every y. A bin averages the same number of neighbouring points along each axis.
        """
        stage = self.masks if of_mask else self.proposals
        level, size = int(stage.pooled_level[proposal]), stage.pooled.shape[1]
        _, rows, columns, _ = self.pyramid_maps[level].shape
        input_hw = (self.network_input.shape[1], self.network_input.shape[2])
        box = to_units(stage.boxes[proposal], input_hw, self.conventions)
        stride = self.strides[level]
        x, y = sample_points(box, (rows, columns), size, stride, self.conventions)
        return (x + 0.5) * stride, (y + 0.5) * stride  # position 0 is the centre of cell 0


@dataclass(frozen=True)
class Origin:
    """The rows of a trace that a detection comes from, its anchor's place, and the box at three stages, in input px."""

    detection: int
    mask: int
    class_candidate: int
    proposal: int
    candidate: int
    anchor: int
    level: int
    row: int
    column: int
    cell_anchor: int
    anchor_box: np.ndarray
    proposal_box: np.ndarray
    box: np.ndarray


def _described(part: Any, prefix: str) -> Iterator[tuple[str, Any, Stage]]:
    """Yield name, value and description of every array of a trace and of its parts."""
    for name, hint in get_type_hints(type(part), include_extras=True).items():
        value = getattr(part, name)
        stages = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Stage)]
        if stages:
            yield prefix + name, value, stages[0]
        elif name in PARTS and value is not None:
            yield from _described(value, f"{name}.")


def _shape(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return str(value.shape)
    if isinstance(value, Detections):
        return str(len(value))
    shapes = [str(v.shape) for v in value]
    return shapes[0] if len(shapes) == 1 else f"{len(shapes)} x {shapes[0]} .." if shapes else "none"
