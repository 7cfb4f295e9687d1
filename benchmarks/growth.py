"""Paste 28 x 28 mask probabilities as COCO run lengths: ours against torchvision's paste and pycocotools' encode.

    python benchmarks/growth.py [--json]

Images of 512 to 4096 pixels; 10 to 1000 detections with boxes of about a tenth of the side. Medians of 3 runs, both
sides in one process, with the lowest IoU between their masks. torchvision is skipped if its canvas exceeds 4 GB.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torchvision.models.detection.roi_heads import paste_masks_in_image

from maskrcnn import RLE, iou_matrix
from maskrcnn.detection.conventions import TORCHVISION
from maskrcnn.detection.finish import paste_masks

SIZES, COUNTS = (512, 1024, 2048, 4096), (10, 100, 1000)
CANVAS_LIMIT = 4e9


def detections(n: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return smooth random masks (n, 28, 28) in [0, 1] and their boxes (n, 4)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:28, :28] - 13.5
    radius = rng.uniform(8, 14, (n, 1, 1)) * (1 + 0.2 * np.sin(3 * np.arctan2(y, x) + rng.uniform(0, 6, (n, 1, 1))))
    masks = 1 / (1 + np.exp((np.hypot(y, x) - radius) / 0.8))
    low = rng.uniform(0, 0.88 * side, (n, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.05, 0.12, (n, 2)) * side], 1)
    return masks.astype(np.float32), boxes.astype(np.float32)


def ours(masks: np.ndarray, boxes: np.ndarray, side: int) -> list[dict[str, Any]]:
    return [rle.to_coco() for rle in paste_masks(masks, boxes, (side, side), TORCHVISION)]


def theirs(masks: np.ndarray, boxes: np.ndarray, side: int) -> list[dict[str, Any]]:
    canvas = paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), (side, side))
    return coco_mask.encode(np.asfortranarray((canvas[:, 0] >= 0.5).permute(1, 2, 0).numpy().astype(np.uint8)))


def measure(run: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """Return the median seconds of three runs after a warm-up, and the result."""
    result, times = run(*args), []
    for _ in range(3):
        began = time.perf_counter()
        run(*args)
        times.append(time.perf_counter() - began)
    return statistics.median(times), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = []
    for side in SIZES:
        for n in COUNTS:
            masks, boxes = detections(n, side)
            ours_s, our_rles = measure(ours, masks, boxes, side)
            tracemalloc.start()
            ours(masks, boxes, side)
            peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
            tracemalloc.stop()
            row = {"side": side, "detections": n, "ours_ms": round(1000 * ours_s, 2), "ours_peak_mb": round(peak_mb, 1)}
            if 5 * n * side * side < CANVAS_LIMIT:
                theirs_s, their_rles = measure(theirs, masks, boxes, side)
                pairs = [
                    (RLE.from_coco(a), RLE.from_coco({**b, "counts": b["counts"].decode()}))
                    for a, b in zip(our_rles, their_rles, strict=True)
                ]
                row |= {
                    "torchvision_ms": round(1000 * theirs_s, 1),
                    "ratio": round(theirs_s / ours_s, 1),
                    "canvas_mb": round(5 * n * side * side / 1e6),
                    "mask_iou": round(min(float(iou_matrix([a], [b])[0, 0]) for a, b in pairs), 5),
                }
            rows.append(row)
            if not args.json:
                print(row, flush=True)
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
