"""The convolutions beside a bundle's graphs are those of torch."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from maskrcnn.inference import convolutions as module
from maskrcnn.inference.convolutions import Convolutions
from maskrcnn.inference.scratch import Scratch


def layer(rng, wide, channels):
    scale = np.sqrt(2 / (9 * channels))
    return rng.normal(0, scale, (wide, channels, 3, 3)).astype(np.float32), rng.normal(size=wide).astype(np.float32)


def made(rng, **layers):
    """`Convolutions` of weights and biases by layer."""
    named = {**layers, "anchors": (rng.normal(size=(5 * 3, 8)).astype(np.float32), rng.normal(size=15).astype("f"))}
    weights = {f"{n}.{k}": v for n, pair in named.items() for k, v in zip(("weight", "bias"), pair, strict=True)}
    return Convolutions(weights, Scratch()), named


def reference(maps, weight, bias, relu):
    """The same in double precision, channels last."""
    images = torch.from_numpy(maps).double().permute(0, 3, 1, 2)
    out = F.conv2d(images, torch.from_numpy(weight).double(), torch.from_numpy(bias).double(), padding=1)
    return (out.relu() if relu else out).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (3, 14, 14, 64), (2, 9, 30, 8), (1, 4, 3, 5), (40, 7, 7, 16)])
@pytest.mark.parametrize("tiles", [7, 1024])
def test_a_tower_is_that_of_torch(shape, tiles, rng, monkeypatch):
    monkeypatch.setattr(module, "TILES", tiles)  # more tiles than are worked on at a time
    first, second = layer(rng, 24, shape[-1]), layer(rng, 8, 24)
    convolutions, _ = made(rng, **{"mask.0": first, "mask.1": second})
    maps = rng.normal(size=shape).astype(np.float32)
    expected = reference(reference(maps, *first, relu=True), *second, relu=True)
    assert np.abs(convolutions.mask(maps) - expected).max() < 1e-5 * max(expected.std(), 1)
    assert convolutions.box(maps) is maps


def test_the_trunk_has_the_pyramids_maps_and_the_anchors_answers(rng):
    wide = layer(rng, 8, 8), layer(rng, 8, 8), layer(rng, 8, 8)
    convolutions, named = made(rng, **{"pyramid.0": wide[0], "pyramid.1": wide[1], "rpn.0": wide[2]})
    merged = [rng.normal(size=(2, *hw, 8)).astype(np.float32) for hw in ((12, 17), (6, 9))]
    maps, objectness, deltas = convolutions.trunk(merged)
    expected = [reference(m, *w, relu=False) for m, w in zip(merged, wide, strict=False)]
    for found, wanted in zip(maps, expected, strict=True):
        assert np.abs(found - wanted).max() < 1e-5
    weight, bias = named["anchors"]
    answers = [reference(m, *wide[2], relu=True) @ weight.T + bias for m in (*expected, expected[1][:, ::2, ::2])]
    assert np.abs(objectness - np.concatenate([a[..., :3].reshape(2, -1) for a in answers], 1)).max() < 1e-4
    assert np.abs(deltas - np.concatenate([a[..., 3:].reshape(2, -1, 4) for a in answers], 1)).max() < 1e-4
    assert objectness.shape == (2, 3 * (12 * 17 + 6 * 9 + 3 * 5))


def test_a_single_map_passes_as_it_is(rng):
    convolutions, _ = made(rng, **{"rpn.0": layer(rng, 8, 8)})
    maps, objectness, _ = convolutions.trunk([only := rng.normal(size=(1, 5, 6, 8)).astype(np.float32)])
    assert maps == [only]
    assert objectness.shape == (1, 3 * 5 * 6)
