"""The count of operations and numbers that `benchmarks/roofline.py` makes, against counts by hand."""

import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from maskrcnn.model.mask_head import MaskHead

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from roofline import Peak, Work, floor, work_of


def test_layers_are_counted_as_modules_and_as_functions():
    convolution = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
    image = torch.zeros(2, 3, 10, 12)
    expected = Work(2 * 2 * 10 * 12 * 8 * 3 * 9, 2 * 3 * 10 * 12 + 8 * 3 * 9 + 2 * 8 * 10 * 12)
    assert work_of(lambda: convolution(image)) == expected
    assert work_of(lambda: F.relu(F.conv2d(image, convolution.weight, padding=1))) == expected
    linear = torch.nn.Linear(20, 5)
    rows = torch.zeros(7, 20)
    assert work_of(lambda: linear(rows)) == Work(2 * 7 * 20 * 5, 7 * 20 + 20 * 5 + 5 + 7 * 5)
    depthwise = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
    assert work_of(lambda: depthwise(torch.zeros(1, 8, 4, 4))).operations == 2 * 4 * 4 * 8 * 9
    assert work_of(lambda: image + 1) == Work()


def test_the_mask_head_counts_its_deconvolution():
    """It runs as a product of matrices, which hooks on modules do not see."""
    channels, regions, size, classes = 16, 3, 14, 5
    head = MaskHead(channels=channels, n_convs=2, hidden=channels, deconv=None, norm=False, n_classes=classes)
    pooled, labels = torch.zeros(regions, channels, size, size), torch.ones(regions, dtype=torch.int64)
    cells = regions * size * size
    convolutions, deconvolution, logits = (
        2 * cells * channels * channels * 9,
        cells * channels * channels * 4,
        4 * cells * channels,
    )
    assert work_of(lambda: head(pooled, labels)).operations == 2 * (convolutions + deconvolution + logits)


def test_the_floor_is_the_longer_of_computing_and_moving():
    peak = Peak(operations=100.0, bytes=10.0)
    assert floor(Work(200, 5), peak, 1).seconds == 2.0
    assert floor(Work(200, 5), peak, 8) == (2.0, 4.0)
    assert floor(Work(200, 5), peak, 8).seconds == pytest.approx(4.0)
