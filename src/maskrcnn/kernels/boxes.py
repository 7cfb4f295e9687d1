"""Decoding, non-maximum suppression and voting on NumPy arrays. Boxes are xyxy float32; N boxes, K kept boxes."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def decode(deltas, anchors, weights, clip):
    """Decode like `detection.boxes.decode_boxes`: deltas (N, 4) on anchors (N, 4), with `weights` (4,) float32."""
    out = np.empty_like(anchors)
    half = np.float32(0.5)
    limit = np.float32(clip)
    for i in range(len(anchors)):
        for axis in range(2):
            low, side = anchors[i, axis], anchors[i, axis + 2] - anchors[i, axis]
            center = deltas[i, axis] / weights[axis] * side + (low + half * side)
            half_side = half * np.exp(min(deltas[i, axis + 2] / weights[axis + 2], limit)) * side
            out[i, axis], out[i, axis + 2] = center - half_side, center + half_side
    return out


@njit(cache=True, nogil=True)
def _shared_and_union(a, b):
    """Return the areas of intersection and union of two boxes; without overlap, 0 and the area of `a`."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    area = (a[2] - a[0]) * (a[3] - a[1])
    if w <= 0 or h <= 0:
        return np.float32(0.0), area
    shared = w * h
    return shared, area + (b[2] - b[0]) * (b[3] - b[1]) - shared


@njit(cache=True, nogil=True)
def nms(boxes, groups, threshold, limit):
    """Return the indices of at most `limit` kept boxes. Boxes (N, 4) come best first; groups (N,) do not compete.

    A box is dropped if its IoU with a kept box of its group is above `threshold`.
    """
    kept = np.empty(min(len(boxes), limit), np.int64)
    n = 0
    for i in range(len(boxes)):
        if n == limit:
            break
        survives = True
        for k in range(n):
            j = kept[k]
            if groups[j] != groups[i]:
                continue
            shared, union = _shared_and_union(boxes[i], boxes[j])
            if shared > 0 and shared / union > threshold:
                survives = False
                break
        if survives:
            kept[n] = i
            n += 1
    return kept[:n]


@njit(cache=True, nogil=True)
def vote(boxes, scores, groups, kept, threshold):
    """Return each of `kept` (K,) as the mean box, weighted by score, of itself and the boxes (N, 4) that vote for it.

    A box votes if it is of the same group and its IoU with the kept box is above `threshold`.
    """
    out = np.empty((len(kept), 4), np.float32)
    for k in range(len(kept)):
        i = kept[k]
        total, mean = scores[i], scores[i] * boxes[i]
        for j in range(len(boxes)):
            if j == i or groups[j] != groups[i]:
                continue
            shared, union = _shared_and_union(boxes[i], boxes[j])
            if shared > threshold * union:
                total += scores[j]
                mean += scores[j] * boxes[j]
        out[k] = mean / total
    return out
