"""Box decoding, non-maximum suppression and voting, for whatever runs the network.

Boxes are xyxy float32; N boxes. Each function has a plain NumPy twin in the tests.
"""

import numpy as np
from numba import njit, prange


@njit(cache=True, nogil=True, parallel=True)
def decode(deltas, anchors, windows, weights, clip):
    """`model.boxes.decode_boxes`, then cut to `windows` (N, 4): deltas (N, 4) on anchors (N, 4) -> boxes (N, 4)."""
    out = np.empty_like(anchors)
    half = np.float32(0.5)
    limit = np.float32(clip)
    for i in prange(len(anchors)):
        for axis in range(2):
            low, high = anchors[i, axis], anchors[i, axis + 2]
            side = high - low
            center = deltas[i, axis] / weights[axis] * side + (low + half * side)
            reach = half * np.exp(min(deltas[i, axis + 2] / weights[axis + 2], limit)) * side
            first, last = windows[i, axis], windows[i, axis + 2]
            out[i, axis] = min(max(center - reach, first), last)
            out[i, axis + 2] = min(max(center + reach, first), last)
    return out


@njit(cache=True, nogil=True)
def nms(boxes, groups, threshold, most):
    """Indices of the boxes that stay, at most `most`; boxes (N, 4) come best first, and groups (N,) do not compete.

    A box goes when it overlaps a kept one of its group by more than `threshold` of their union.
    """
    kept = np.empty(min(len(boxes), most), np.int64)
    n = 0
    for i in range(len(boxes)):
        if n == most:
            break
        x1, y1, x2, y2 = boxes[i]
        area = (x2 - x1) * (y2 - y1)
        stays = True
        for k in range(n):
            j = kept[k]
            if groups[j] != groups[i]:
                continue
            w = min(x2, boxes[j, 2]) - max(x1, boxes[j, 0])
            h = min(y2, boxes[j, 3]) - max(y1, boxes[j, 1])
            if w <= 0 or h <= 0:
                continue
            shared = w * h
            union = area + (boxes[j, 2] - boxes[j, 0]) * (boxes[j, 3] - boxes[j, 1]) - shared
            if shared / union > threshold:
                stays = False
                break
        if stays:
            kept[n] = i
            n += 1
    return kept[:n]


@njit(cache=True, nogil=True)
def vote(boxes, scores, groups, kept, threshold):
    """`model.boxes.vote_boxes`: the boxes `kept` (K,) of (N, 4), each the mean of what overlaps it, (K, 4)."""
    out = np.empty((len(kept), 4), np.float32)
    for k in range(len(kept)):
        i = kept[k]
        x1, y1, x2, y2 = boxes[i]
        area = (x2 - x1) * (y2 - y1)
        total, mean = scores[i], scores[i] * boxes[i]
        for j in range(len(boxes)):
            if j == i or groups[j] != groups[i]:
                continue
            w = min(x2, boxes[j, 2]) - max(x1, boxes[j, 0])
            h = min(y2, boxes[j, 3]) - max(y1, boxes[j, 1])
            if w <= 0 or h <= 0:
                continue
            shared = w * h
            union = area + (boxes[j, 2] - boxes[j, 0]) * (boxes[j, 3] - boxes[j, 1]) - shared
            if shared > threshold * union:
                total += scores[j]
                mean += scores[j] * boxes[j]
        out[k] = mean / total
    return out
