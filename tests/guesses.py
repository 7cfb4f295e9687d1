"""Detections made up from the truth, for tests of scores and of what is shown of them."""

from __future__ import annotations

import numpy as np

from maskrcnn import RLE, Detections
from maskrcnn.data.table import Dataset


def guesses(data: Dataset, rng: np.random.Generator, per_image: int = 0) -> list[Detections]:
    """Moved, regraded and invented versions of the truth."""
    results = []
    for i in range(len(data)):
        hw, rles = data.hw(i), data.rles(i)
        labels = data.labels[data.instances(i)]
        found = [
            (r.shift(*rng.integers(-3, 4, 2).tolist()), int(k))
            for r, k in zip(rles, labels, strict=True)
            if rng.random() < 0.8
        ]
        for _ in range(int(rng.integers(0, 3)) + per_image):
            mask = np.zeros(hw, bool)
            y, x = rng.integers(0, hw[0] - 6), rng.integers(0, hw[1] - 6)
            mask[y : y + 6, x : x + 6] = True
            found.append((RLE.from_mask(mask), int(rng.integers(1, len(data.class_ids) + 1))))
        found = [(r, k) for r, k in found if r.area]
        scores = rng.random(len(found)).astype(np.float32)
        order = np.argsort(-scores)
        results.append(
            Detections(
                boxes=np.array([found[j][0].box for j in order], np.float32).reshape(-1, 4),
                scores=scores[order],
                class_ids=np.array([data.class_ids[found[j][1] - 1] for j in order]),
                class_names=[data.class_names[found[j][1] - 1] for j in order],
                rles=[found[j][0] for j in order],
                hw=hw,
            )
        )
    return results
