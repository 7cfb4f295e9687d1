"""What a writer gets of a data set: neither crowd regions nor hidden masks where the format cannot hold them.

A crowd region would become an ordinary object, which a model is trained to find. A format that has one number for each
pixel gives it to the smallest of the masks that overlap there, so that a mask is lost only if smaller ones cover it.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from maskrcnn.data.formats.traits import Trait
from maskrcnn.data.table import Dataset
from maskrcnn.labels import paint_labels
from maskrcnn.rle import RunTable

CROWD, HIDDEN = "crowd regions", "masks that smaller ones cover wholly"


def writable(data: Dataset, module: ModuleType) -> tuple[Dataset, dict[str, int]]:
    """Return the instances of `data` that the writer of `module` keeps, and how many of each kind are left out."""
    kept = data if Trait.CROWD in module.HOLDS else data.without_crowd
    left_out = {CROWD: data.n_instances - kept.n_instances}
    if hasattr(module, "painted_together"):
        shown = np.zeros(kept.n_instances, bool)
        for i in range(len(kept)):
            for instances in module.painted_together(kept, i):
                numbers = paint_instances(kept, i, instances, np.arange(1, len(instances) + 1))
                shown[instances[np.unique(numbers[numbers > 0]) - 1]] = True
        left_out[HIDDEN] = int((~shown).sum())
        kept = kept.take_instances(np.flatnonzero(shown)) if left_out[HIDDEN] else kept
    return kept, {kind: n for kind, n in left_out.items() if n}


def paint_instances(data: Dataset, i: int, instances: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return a picture (H, W) of image i with ``values[k]`` on the instance ``instances[k]``, 0 elsewhere.

    A pixel of several masks goes to the smallest, among equally large ones to the highest score and then to the first.
    """
    masks = data.masks.take(instances)
    return paint_labels(masks, values, data.hw(i), order=_smallest_first(masks, data, instances))


def _smallest_first(masks: RunTable, data: Dataset, instances: np.ndarray) -> np.ndarray:
    if data.scores is None:
        return np.argsort(masks.areas, kind="stable")
    return np.lexsort([-np.nan_to_num(data.scores[instances], nan=-np.inf), masks.areas])


def describe_left_out(left_out: dict[str, int], format: str) -> str:
    """Say what `writable` left out."""
    kinds = " and ".join(f"{kind} ({n:,})" for kind, n in left_out.items())
    return f"{kinds} are left out: the format {format} cannot hold them"
