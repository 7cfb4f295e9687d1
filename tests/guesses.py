"""Detections derived from the ground truth, for tests of scores and reports."""

from __future__ import annotations

import numpy as np

from maskrcnn import RLE, Detections
from maskrcnn.data.table import Dataset


def guesses(data: Dataset, rng: np.random.Generator, per_image: int = 0) -> list[Detections]:
    """Return detections of each image: shifted instances, a fifth of them missing, random scores and false positives.

    `per_image` false positives are added to each image beside the random 0 to 2.
    """
    results = []
    for i in range(len(data)):
        hw, rles = data.hw(i), data.rles(i)
        labels = data.labels[data.instances(i)]
        instances = [
            (r.shift(*rng.integers(-3, 4, 2).tolist()), int(k))
            for r, k in zip(rles, labels, strict=True)
            if rng.random() < 0.8
        ]
        for _ in range(int(rng.integers(0, 3)) + per_image):
            mask = np.zeros(hw, bool)
            y, x = rng.integers(0, hw[0] - 6), rng.integers(0, hw[1] - 6)
            mask[y : y + 6, x : x + 6] = True
            instances.append((RLE.from_mask(mask), int(rng.integers(1, len(data.class_ids) + 1))))
        instances = [(r, k) for r, k in instances if r.area]
        scores = rng.random(len(instances)).astype(np.float32)
        order = np.argsort(-scores)
        results.append(
            Detections(
                boxes=np.array([instances[j][0].box for j in order], np.float32).reshape(-1, 4),
                scores=scores[order],
                class_ids=np.array([data.class_ids[instances[j][1] - 1] for j in order]),
                class_names=[data.class_names[instances[j][1] - 1] for j in order],
                rles=[instances[j][0] for j in order],
                hw=hw,
            )
        )
    return results
