"""Detections of made masks on a made picture, and names that break what does not escape them."""

import numpy as np

from maskrcnn import RLE, Detections

HOSTILE = [
    "<script>alert(1)</script>",
    "תא גדול",
    "</td><img src=x onerror=alert(2)>",
    "\u202egnp.exe",
    "a & b",
    "$x^{$",
    "x" * 5000,
]


def detections(n: int, hw=(60, 80), names=("cell",), seed=0, **more) -> Detections:
    rng = np.random.default_rng(seed)
    corners = np.stack([rng.integers(0, hw[1] - 8, n), rng.integers(0, hw[0] - 8, n)], 1)
    boxes = np.concatenate([corners, corners + 6], 1).astype(np.float32)
    masks = [np.zeros(hw, bool) for _ in range(n)]
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    labels = np.arange(n) % len(names)
    fields = {
        "boxes": boxes,
        "scores": np.linspace(0.99, 0.1, n).astype(np.float32),
        "class_ids": labels,
        "class_names": [names[k] for k in labels],
        "rles": [RLE.from_mask(mask) for mask in masks],
        "pixels": rng.integers(0, 255, (*hw, 3), dtype=np.uint8),
        "vocabulary": tuple(names),
    }
    return Detections(hw=hw, **{**fields, **more})
