"""Mask kernels: exact coverage, pasting, and their round trip, which limits the quality of any predicted mask."""

import numpy as np
import pytest

from maskrcnn.kernels.masks import coverage, coverage_of_boxes, grid_to_runs
from maskrcnn.rle import RLE, RunTable, iou_matrix


def ellipse(hw, center, axes, angle):
    y, x = np.mgrid[: hw[0], : hw[1]] + 0.5
    u = (x - center[0]) * np.cos(angle) + (y - center[1]) * np.sin(angle)
    v = -(x - center[0]) * np.sin(angle) + (y - center[1]) * np.cos(angle)
    return (u / axes[0]) ** 2 + (v / axes[1]) ** 2 <= 1


def dense_coverage(mask, box, size, fine=64):
    """Average nearest-pixel samples on a fine lattice in each cell."""
    x1, y1, x2, y2 = box
    x = np.floor(x1 + (np.arange(size * fine) + 0.5) / (size * fine) * (x2 - x1)).astype(int)
    y = np.floor(y1 + (np.arange(size * fine) + 0.5) / (size * fine) * (y2 - y1)).astype(int)
    inside = ((y >= 0) & (y < mask.shape[0]))[:, None] & ((x >= 0) & (x < mask.shape[1]))
    values = mask[np.clip(y, 0, mask.shape[0] - 1)[:, None], np.clip(x, 0, mask.shape[1] - 1)] & inside
    return values.reshape(size, fine, size, fine).mean((1, 3))


def dense_paste(grid, box, hw):
    """Interpolate bilinearly at each pixel centre inside the box."""
    size = len(grid)
    x1, y1, x2, y2 = box
    u = np.clip((np.arange(hw[1]) + 0.5 - x1) / (x2 - x1) * size - 0.5, 0, size - 1)
    v = np.clip((np.arange(hw[0]) + 0.5 - y1) / (y2 - y1) * size - 0.5, 0, size - 1)
    i, j = np.minimum(v.astype(int), size - 2), np.minimum(u.astype(int), size - 2)
    f, g = (v - i)[:, None], u - j
    top = grid[i][:, j] * (1 - g) + grid[i][:, j + 1] * g
    bottom = grid[i + 1][:, j] * (1 - g) + grid[i + 1][:, j + 1] * g
    y, x = np.mgrid[: hw[0], : hw[1]] + 0.5
    inside = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
    return ((top * (1 - f) + bottom * f) >= 0) & inside


@pytest.mark.parametrize("round_shape", [True, False], ids=["discs", "ellipses"])
def test_a_mask_survives_target_and_paste(rng, round_shape):
    """Mean IoU is at least 0.99 for radii of 3 to 40 pixels. Integer boxes and unaligned RoIAlign reach 0.744 at 4."""
    ious, small_ious = [], []
    for _ in range(150):
        axes = rng.uniform(3, 40, 2)
        if round_shape:
            axes[1] = axes[0]
        mask = RLE.from_mask(ellipse((200, 200), 100 + rng.random(2), axes, rng.uniform(0, np.pi)))
        box = np.array(mask.box, float)
        grid = coverage(mask.runs, 200, box, 28)
        pasted = RLE(grid_to_runs(grid.astype(float) - 0.5, box, 200, 200), (200, 200))
        ious.append(iou_matrix([mask], [pasted])[0, 0])
        small_ious += [ious[-1]] * int(max(axes) < 9)
    assert np.mean(ious) >= 0.99
    assert np.min(ious) >= 0.98
    assert np.mean(small_ious) >= 0.995


def test_coverage_is_the_average_over_each_cell(rng):
    for _ in range(20):
        mask = rng.random((30, 40)) < 0.5
        box = np.sort(rng.uniform(-5, 45, (2, 2)), 0)[:, ::1].ravel()
        box[2:] = box[:2] + np.maximum(box[2:] - box[:2], 1.0)
        grid = coverage(RLE.from_mask(mask).runs, 30, box, 7)
        assert np.abs(grid - dense_coverage(mask, box, 7)).max() < 0.03


def test_coverage_of_many_boxes_reads_the_right_masks(rng):
    masks = [rng.random((20, 20)) < p for p in (0.2, 0.5, 0.8)]
    table = RunTable.of(RLE.from_mask(m).runs for m in masks)
    boxes = np.array([[2, 3, 15, 14], [0, 0, 20, 20], [5.5, 5.5, 9.25, 18]], float)
    mask_index = np.array([2, 0, 1])
    grids = coverage_of_boxes(table.runs, table.offsets, 20, mask_index, boxes, 14)
    for grid, box, k in zip(grids, boxes, mask_index, strict=True):
        assert np.array_equal(grid, coverage(table[k], 20, box, 14))


def test_paste_is_bilinear_interpolation_inside_the_box(rng):
    for _ in range(60):
        box = rng.uniform(-10, 60, 4)
        box[2:] = box[:2] + rng.uniform(0.6, 50, 2)
        grid = rng.normal(size=(28, 28))
        runs = grid_to_runs(grid, box, 48, 56)
        assert np.array_equal(RLE(runs, (48, 56)).to_mask(), dense_paste(grid, box, (48, 56)))


def test_paste_outside_the_image_is_empty():
    assert len(grid_to_runs(np.ones((28, 28)), np.array([60.0, 5, 80, 20]), 48, 56)) == 0
    assert len(grid_to_runs(np.ones((28, 28)), np.array([5.2, 5.2, 5.4, 5.4]), 48, 56)) == 0
