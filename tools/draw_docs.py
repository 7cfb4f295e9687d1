"""Draw the pictures of docs/stages/: every stage of one prediction of the shipped model `nuclei`.

    python tools/draw_docs.py [--out FOLDER]

The picture is synthetic: `make_picture` draws it from a seed.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from PIL.PngImagePlugin import PngInfo

import maskrcnn
from figures import BLUE, FAINT, GREEN, INK, ORANGE, RED, YELLOW, View, bars, figure, heat, heat_view
from maskrcnn.detection.boxes import to_centers
from maskrcnn.detection.propose import sigmoid
from maskrcnn.detection.stages import Window
from maskrcnn.inspection.trace import BELOW_THRESHOLD, KEPT, SUPPRESSED, Origin, Trace
from maskrcnn.kernels.masks import coverage_of_boxes
from maskrcnn.rle import RLE, RunTable

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images" / "stages"

SEED = 7
PICTURE_HW = (170, 250)

LEVEL_COLORS = (BLUE, GREEN, YELLOW, ORANGE, RED)


def make_picture(seed: int = SEED) -> tuple[np.ndarray, list[RLE]]:
    """Draw bright nuclei on a dark ground, (H, W, 3) uint8, and return the visible part of each, topmost last."""
    rng = np.random.default_rng(seed)
    height, width = PICTURE_HW
    y, x = np.mgrid[:height, :width] + 0.5
    light = rng.normal(18, 3, PICTURE_HW)
    top = np.full(PICTURE_HW, -1)
    centers: list[np.ndarray] = []
    while len(centers) < 16:
        center = rng.uniform((4, 4), (width - 4, height - 4))
        if all(np.hypot(*(center - other)) > 23 for other in centers):
            centers.append(center)
    for number, (cx, cy) in enumerate(centers):
        angle, radii = rng.uniform(0, np.pi), rng.uniform(9, 15, 2)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        inside = (u / radii[0]) ** 2 + (v / radii[1]) ** 2 <= 1
        light[inside] = rng.uniform(95, 190) + rng.normal(0, 9, inside.sum())
        top[inside] = number
    blurred = Image.fromarray(light.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.2))
    picture = np.repeat(np.asarray(blurred)[:, :, None], 3, 2)
    masks = [RLE.from_mask(top == number) for number in range(len(centers))]
    return picture, [mask for mask in masks if mask.area >= 40]


def strength(feature_map: np.ndarray) -> np.ndarray:
    """Mean magnitude over the channels of a map (1, M, N, C) -> (M, N)."""
    return np.abs(feature_map[0]).mean(-1)


class Figures:
    """The figures of one trace. `focus` is the detection nearest to the middle of the picture."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        boxes = trace.detections.boxes
        middle = np.array(trace.picture.shape[1::-1]) / 2
        self.focus = int(np.hypot(*(to_centers(boxes)[0] - middle).T).argmin())
        self.origin: Origin = trace.origin(self.focus)
        self.input = trace.network_input[0]

    def near(self, box: np.ndarray, share: float = 0.9) -> Window:
        """Return a square window around a box of the input, wider by `share` of its longer side on each side."""
        x1, y1, x2, y2 = box.tolist()
        half = max(x2 - x1, y2 - y1) * (0.5 + share)
        cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
        width, height = self.input.shape[1], self.input.shape[0]
        half = min(half, width / 2, height / 2)
        cx, cy = min(max(cx, half), width - half), min(max(cy, half), height - half)
        return round(cx - half), round(cy - half), round(cx + half), round(cy + half)

    def overview(self) -> Image.Image:
        trace, width = self.trace, 270
        objectness = trace.rpn_class_probabilities[2][0, :, :, 1::2].max(-1)
        candidates = trace.class_candidates
        return figure(
            [
                ("1  input", View(self.input, width)),
                ("2  pyramid (P2)", heat_view(strength(trace.pyramid_maps[0]), width)),
                ("3  objectness (P4)", heat_view(objectness, width, 0, 1)),
                ("4  proposals", View(self.input, width).boxes(trace.proposals.boxes[:150], BLUE, 1)),
                ("5  boxes", View(self.input, width).boxes(candidates.boxes[candidates.fate == KEPT], GREEN)),
                ("6  masks", self.masks(width)),
            ],
            columns=3,
        )

    def fit(self) -> Image.Image:
        trace, width = self.trace, 600
        (rows, columns), (height, picture_width) = self.input.shape[:2], trace.picture.shape[:2]
        picture = View(trace.picture, round(picture_width * width / columns))
        view = View(self.input, width).boxes(trace.window, YELLOW, 2)
        first, depth = np.arange(0, columns, 12.0), rows - trace.window[3]
        hatching = np.stack([first, np.full_like(first, rows)], 1)
        view.lines(hatching, hatching + np.array([depth, -depth]), FAINT)
        title = f"network input: {rows} x {columns}, with padding below"
        return figure([(f"picture: {height} x {picture_width}", picture), (title, view)], columns=2)

    def backbone(self) -> Image.Image:
        maps = self.trace.backbone_maps
        titles = (f"C{k + 2}: {m.shape[1]} x {m.shape[2]} cells, {m.shape[3]} channels" for k, m in enumerate(maps))
        return figure([(t, heat_view(strength(m), 420)) for t, m in zip(titles, maps, strict=True)], columns=2)

    def pyramid(self) -> Image.Image:
        panels = [("input", View(self.input, 280))]
        for k, (level, stride) in enumerate(zip(self.trace.pyramid_maps, self.trace.strides, strict=True)):
            rows, columns = level.shape[1:3]
            panels.append((f"P{k + 2}: stride {stride}, {rows} x {columns}", heat_view(strength(level), 280)))
        return figure(panels, columns=3)

    def anchors(self) -> Image.Image:
        trace = self.trace
        middle = to_centers(self.origin.box)[0]
        chosen = []
        for anchors, stride in zip(trace.anchors, trace.strides, strict=True):
            centers = to_centers(anchors)[0]
            chosen.append(anchors[(np.abs(centers - middle) <= stride / 2).all(1)])
        of_cell = View(self.input, 420, self.widened(self.near(chosen[-1][0], 0.3)))
        for anchors, color in zip(chosen, LEVEL_COLORS, strict=True):
            of_cell.boxes(anchors, color, 2)
        of_level = trace.anchors[2]
        centers = np.unique(to_centers(of_level)[0], axis=0)
        every = View(self.input, 420).dots(centers, YELLOW, 1.4)
        return figure(
            [
                ("anchors of a cell: P2 (blue), P3 (green),\nP4 (yellow), P5 (orange), P6 (red)", of_cell),
                (f"centres of the cells of P4:\n{len(of_level) // len(centers)} anchors around each", every),
            ],
            columns=2,
        )

    def rpn(self) -> Image.Image:
        trace = self.trace
        panels = []
        for level, probabilities in enumerate(trace.rpn_class_probabilities):
            best = probabilities[0, :, :, 1::2].max(-1)
            panels.append((f"P{level + 2}: objectness", heat_view(best, 280, 0, 1)))
        candidates, chosen = trace.candidates, self.best_of_each_object()
        anchors = np.concatenate(trace.anchors)[candidates.anchor[chosen]]
        view = View(self.input, 280).boxes(anchors, FAINT, 1).boxes(candidates.boxes[chosen], GREEN, 1.5)
        return figure([*panels, ("anchors (grey), moved (green)", view)], columns=3)

    def best_of_each_object(self) -> np.ndarray:
        """Return the row of `candidates` that each detection comes of."""
        return np.array([self.trace.origin(d).candidate for d in range(len(self.trace.detections))])

    def proposals(self) -> Image.Image:
        candidates = self.trace.candidates
        window = self.near(self.origin.box, 1.2)
        likely = candidates.objectness > 0.5
        inside = likely & self.is_inside(candidates.boxes, window)
        kept, dropped = inside & (candidates.fate == KEPT), inside & (candidates.fate == SUPPRESSED)
        before = View(self.input, 420, window).boxes(candidates.boxes[inside], BLUE, 1)
        after = View(self.input, 420, window).boxes(candidates.boxes[kept], GREEN, 1.5)
        return figure(
            [
                (f"candidates with objectness above 0.5:\n{inside.sum()} here", before),
                (f"after suppression within levels:\n{kept.sum()} kept, {dropped.sum()} suppressed", after),
            ],
            columns=2,
        )

    def is_inside(self, boxes: np.ndarray, window: Window) -> np.ndarray:
        """Return whether the centre of each box lies in the window."""
        centers = to_centers(boxes)[0]
        return ((centers > window[:2]) & (centers < window[2:])).all(1)

    def roi_align(self) -> Image.Image:
        trace, row = self.trace, self.origin.proposal
        box, level = self.origin.proposal_box, int(trace.proposals.pooled_level[row])
        x, y = trace.sampling_points(row)
        points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
        edges = np.linspace(box[:2], box[2:], trace.proposals.pooled.shape[1] + 1)  # (S + 1, 2)
        window = self.near(box, 0.25)
        samples = View(self.input, 280, window)
        (x1, y1), (x2, y2) = box[:2], box[2:]
        for start_x, start_y in edges:
            samples.lines(np.array([[start_x, y1], [x1, start_y]]), np.array([[start_x, y2], [x2, start_y]]), YELLOW)
        samples.boxes(box, YELLOW, 2).dots(points, INK, 1.5)
        stride = trace.strides[level]
        values = strength(trace.pyramid_maps[level])
        cells = np.repeat(np.repeat(heat(values), stride, 0), stride, 1)
        on_map = View(cells, 280, window).boxes(box, YELLOW, 2).dots(points, INK, 1.5)
        pooled = strength(trace.proposals.pooled[row][None])
        return figure(
            [
                ("a proposal: 7 x 7 bins,\n4 samples in each", samples),
                (f"the same samples on P{level + 2},\nwhere they are read", on_map),
                ("the result: 7 x 7 cells\nof all channels", heat_view(pooled, 280)),
            ],
            columns=3,
        )

    def box_head(self) -> Image.Image:
        trace, origin, candidates = self.trace, self.origin, self.trace.class_candidates
        window = self.widened(self.near(origin.box, 0.3))
        label = int(candidates.labels[origin.class_candidate])
        probability = trace.proposals.class_probabilities[origin.proposal, label]
        refined = candidates.boxes[origin.class_candidate]
        voters = candidates.boxes[trace.masks.voters[origin.mask]]
        fates = View(self.input, 280)
        for fate, color in ((BELOW_THRESHOLD, FAINT), (SUPPRESSED, RED), (KEPT, GREEN)):
            fates.boxes(candidates.boxes[candidates.fate == fate], color, 1 if fate != KEPT else 2)
        moved = View(self.input, 280, window).boxes(origin.proposal_box, BLUE, 2).boxes(refined, GREEN, 2)
        voted = View(self.input, 280, window).boxes(voters, FAINT, 1).boxes(origin.box, GREEN, 2)
        return figure(
            [
                (f"proposal (blue), refined\n(green): {probability:.2f} nucleus", moved),
                ("kept (green), suppressed (red),\nbelow the threshold (grey)", fates),
                (f"{len(voters)} boxes vote (grey),\ntheir mean (green)", voted),
            ],
            columns=3,
        )

    def widened(self, window: Window) -> Window:
        """Return a window of the same height with the aspect of the input."""
        x1, y1, x2, y2 = window
        half = (y2 - y1) / 2 * self.input.shape[1] / self.input.shape[0]
        cx = min(max((x1 + x2) / 2, half), self.input.shape[1] - half)
        return round(cx - half), y1, round(cx + half), y2

    def masks(self, width: int) -> View:
        """Show the picture with the outlines of all detections."""
        rles = self.trace.detections.rles
        return View(self.trace.picture, width).masks(rles, [LEVEL_COLORS[k % 5] for k in range(len(rles))])

    def mask_head(self) -> Image.Image:
        trace = self.trace
        rle, box = trace.detections.rles[self.focus], trace.detections.boxes[self.focus]
        probabilities = sigmoid(trace.masks.logits[self.origin.mask])
        x1, y1, x2, y2 = box.tolist()
        half = max(x2 - x1, y2 - y1) * 0.62
        cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
        near = View(trace.picture, 280, (cx - half, cy - half, cx + half, cy + half))
        near.boxes(box, YELLOW, 1.5).masks([rle], [GREEN])
        return figure(
            [
                ("28 x 28 probabilities\nof a box", heat_view(probabilities, 280, 0, 1)),
                ("pasted into its box: pixels\nof 0.5 and above", near),
                (f"all {len(trace.detections)} masks of the picture", self.masks(280)),
            ],
            columns=3,
        )

    def losses(self) -> Image.Image:
        trace, lesson, truth = self.trace, self.trace.lesson, self.trace.truth
        assert lesson is not None
        assert truth is not None
        anchors, sampled = np.concatenate(trace.anchors), lesson.sampled_anchors
        labels = lesson.anchor_label[sampled]
        negatives = anchors[sampled[labels == 0]]
        by_anchors = View(self.input, 420).dots(to_centers(negatives)[0], FAINT, 1.6)
        by_anchors.boxes(anchors[sampled[labels == 1]], GREEN, 1)
        positive = lesson.region_labels > 0
        by_regions = View(self.input, 420).boxes(lesson.sampled_regions[~positive], FAINT, 0.5)
        by_regions.boxes(lesson.sampled_regions[positive], GREEN, 1)
        overlaps = maskrcnn.iou_matrix([trace.detections.rles[self.focus]], list(truth.masks))[0]
        mask, box = truth.masks[int(overlaps.argmax())], trace.detections.boxes[self.focus]
        table = RunTable.of([mask.runs])
        target = coverage_of_boxes(
            table.runs, table.offsets, mask.hw[0], np.zeros(1, np.int64), box[None].astype(float), 28
        )[0]
        named = {name: value for name, value in lesson.losses.items() if name != "loss"}
        return figure(
            [
                (
                    f"{(labels == 1).sum()} positive anchors (green),\ncentres of {len(negatives)} negative ones",
                    by_anchors,
                ),
                (f"{positive.sum()} positive regions (green),\n{(~positive).sum()} of the background", by_regions),
                ("mask target of a region:\nshare of each cell that is covered", heat_view(target, 300, 0, 1)),
                ("the five losses of this picture", bars(named, (420, 300))),
            ],
            columns=2,
        )


FIGURES: dict[str, Callable[[Figures], Image.Image]] = {
    "overview": Figures.overview,
    "fit": Figures.fit,
    "backbone": Figures.backbone,
    "pyramid": Figures.pyramid,
    "anchors": Figures.anchors,
    "rpn": Figures.rpn,
    "proposals": Figures.proposals,
    "roi-align": Figures.roi_align,
    "box-head": Figures.box_head,
    "mask-head": Figures.mask_head,
    "losses": Figures.losses,
}


def draw_all() -> dict[str, Image.Image]:
    """Return every figure by its name."""
    picture, masks = make_picture()
    model = maskrcnn.load("nuclei", device="cpu")
    figures = Figures(model.trace(picture, [(mask, "nucleus") for mask in masks]))
    return {name: draw(figures) for name, draw in FIGURES.items()}


def program_hash() -> str:
    """Return a hash of this program. Each file holds that of the program that drew it."""
    text = "".join((Path(__file__).parent / name).read_text("utf-8") for name in ("draw_docs.py", "figures.py"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the pictures")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    info = PngInfo()
    info.add_text("program", program_hash())
    for name, image in draw_all().items():
        image.save(folder / f"{name}.png", optimize=True, pnginfo=info)


if __name__ == "__main__":
    main()
