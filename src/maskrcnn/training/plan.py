"""What the data decides: settings that the user left open are filled in, each with its reason."""

from __future__ import annotations

import numpy as np

from maskrcnn.config import LEVELS, Config
from maskrcnn.data.table import Dataset
from maskrcnn.model.anchors import DEFAULT_ANCHOR_SIZES

DETECTIONS_HEADROOM = 1.25
SMALLEST_ANCHOR = (8.0, 32.0)
"""Bounds of the side at P2: below two strides neighbours blur, above eight the finest map would idle."""


def fill_in(config: Config, data: Dataset) -> tuple[Config, list[str]]:
    """`config` with anchor sizes and the number of detections taken from `data`, and a sentence for each choice."""
    reasons = []
    if config.model.anchor_sizes is None:
        sizes, reason = anchor_sizes(config, data)
        config = config.changed(model={"anchor_sizes": sizes})
        reasons.append(reason)
    if config.predict.detections is None:
        most = int(data.counts.max(initial=0))
        detections = max(100, int(np.ceil(most * DETECTIONS_HEADROOM / 50)) * 50)
        config = config.changed(predict={"detections": detections})
        reasons.append(f"detections {detections}: the fullest image has {most} instances")
    return config, reasons


def anchor_sizes(config: Config, data: Dataset) -> tuple[tuple[float, ...], str]:
    """Sides at P2 to P6, in input pixels: doubling from the 10th percentile of the instances' sides, within bounds."""
    boxes = data.boxes
    if len(boxes) == 0:
        return DEFAULT_ANCHOR_SIZES, "anchor sizes 16 to 256: the data has no instance to measure"
    scale = config.model.image_size / data.sizes[data.image_index].max(1)
    side = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)) * scale
    low, high = np.quantile(side, [0.1, 0.9])
    first = float(np.clip(np.round(low), *SMALLEST_ANCHOR))
    sizes = tuple(first * 2**level for level in range(LEVELS))
    return sizes, (
        f"anchor sizes {sizes[0]:g} to {sizes[-1]:g}: in the network's input, instances measure {low:.0f} px "
        f"(10th percentile) to {high:.0f} px (90th)"
    )
