"""Winograd's 3x3 convolutions and weight gradients, compared with torch in double precision."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from maskrcnn.winograd import convolution as module
from maskrcnn.winograd.convolution import convolve, weight_gradient
from maskrcnn.winograd.transforms import transform_weights

SHAPES = [(1, 1, 1, 3), (3, 14, 14, 64), (2, 9, 30, 8), (1, 4, 3, 5), (40, 7, 7, 16)]


@pytest.fixture(params=[7, 1024])
def tiles(request, monkeypatch):
    """Use blocks smaller and larger than the number of tiles, and few tiles per thread to start several threads."""
    monkeypatch.setattr(module, "TILES", request.param)
    monkeypatch.setattr(module, "TILES_A_THREAD", 3)


def double(maps):
    return torch.from_numpy(maps).double().permute(0, 3, 1, 2)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("relu", [False, True])
def test_convolve_matches_torch(shape, relu, rng):
    maps, bias = rng.normal(size=shape).astype(np.float32), rng.normal(size=24).astype(np.float32)
    weight = (rng.normal(size=(24, shape[-1], 3, 3)) / np.sqrt(9 * shape[-1])).astype(np.float32)
    out = np.full((*shape[:3], 24), np.nan, np.float32)
    convolve(maps, transform_weights(weight), bias, out, relu=relu, threads=3)
    expected = F.conv2d(double(maps), torch.from_numpy(weight).double(), torch.from_numpy(bias).double(), padding=1)
    expected = expected.relu() if relu else expected
    assert np.abs(out - expected.permute(0, 2, 3, 1).numpy()).max() < 1e-5


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("shape", SHAPES)
def test_weight_gradient_matches_torch(shape, rng):
    maps, gradients = (rng.normal(size=(*shape[:3], c)).astype(np.float32) for c in (shape[3], 24))
    weight = torch.zeros(24, shape[3], 3, 3, dtype=torch.float64, requires_grad=True)
    (F.conv2d(double(maps), weight, padding=1) * double(gradients)).sum().backward()
    gradient = weight_gradient(maps, gradients, threads=3)
    assert np.abs(gradient - weight.grad.numpy()).max() < 2e-5 * np.sqrt(maps[..., 0].size)
    assert np.array_equal(gradient, weight_gradient(maps, gradients, threads=3))
