"""Label pictures: an integer for each pixel -> runs of every label in one pass, and back."""

import numpy as np
from numba import njit

BLOCK = 64
"""Columns that are copied at a time: reading down one column alone would miss the cache at every pixel."""


@njit(cache=True, nogil=True)
def runs_of_labels(labels, background):
    """Return the runs (n, 2) of `labels` (H, W), column-major, and their labels (n,). `background` has no runs."""
    height, width = labels.shape
    block = np.empty((BLOCK, height), labels.dtype)
    runs = np.empty((1024, 2), np.int64)
    label_of_run = np.empty(1024, np.int64)
    n = 0
    for first in range(0, width, BLOCK):
        n_columns = min(BLOCK, width - first)
        for y in range(height):
            for c in range(n_columns):
                block[c, y] = labels[y, first + c]
        for c in range(n_columns):
            column = block[c]
            start = 0
            while start < height:
                label = np.int64(column[start])
                end = start + 1
                while end < height and column[end] == column[start]:
                    end += 1
                position = (first + c) * height + start
                if label != background:
                    if n > 0 and label_of_run[n - 1] == label and runs[n - 1, 0] + runs[n - 1, 1] == position:
                        runs[n - 1, 1] += end - start
                    else:
                        if n == len(runs):
                            larger_runs, larger_labels = np.empty((2 * n, 2), np.int64), np.empty(2 * n, np.int64)
                            larger_runs[:n], larger_labels[:n] = runs, label_of_run
                            runs, label_of_run = larger_runs, larger_labels
                        runs[n, 0], runs[n, 1], label_of_run[n] = position, end - start, label
                        n += 1
                start = end
    return runs[:n], label_of_run[:n]


@njit(cache=True, nogil=True)
def paint_labels(runs, offsets, order, values, labels):
    """Write ``values[i]`` to the pixels of mask i in `labels` (H, W), for each i of `order`; later ones win."""
    height = labels.shape[0]
    for i in order:
        for k in range(offsets[i], offsets[i + 1]):
            start, end = runs[k, 0], runs[k, 0] + runs[k, 1]
            for column in range(start // height, (end - 1) // height + 1):
                for y in range(max(start - column * height, 0), min(end - column * height, height)):
                    labels[y, column] = values[i]
