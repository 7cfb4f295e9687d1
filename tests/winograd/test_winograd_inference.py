"""The convolutions that a bundle stores beside its graphs match torch."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from maskrcnn.winograd.inference import Convolutions


def layer(rng, n_out, n_in):
    scale = np.sqrt(2 / (9 * n_in))
    return rng.normal(0, scale, (n_out, n_in, 3, 3)).astype(np.float32), rng.normal(size=n_out).astype(np.float32)


def arrays_of(rng, **layers):
    """Return weights and biases by name, including an `anchors` layer for three anchors a cell."""
    named = {"anchors": (rng.normal(size=(5 * 3, 8)).astype(np.float32), rng.normal(size=15).astype("f")), **layers}
    return {f"{n}.{k}": v for n, pair in named.items() for k, v in zip(("weight", "bias"), pair, strict=True)}


def reference(maps, weight, bias, relu):
    """Convolve channels-last maps with torch in double precision."""
    images = torch.from_numpy(maps).double().permute(0, 3, 1, 2)
    out = F.conv2d(images, torch.from_numpy(weight).double(), torch.from_numpy(bias).double(), padding=1)
    return (out.relu() if relu else out).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("shape", [(3, 14, 14, 64), (1, 4, 3, 5), (40, 7, 7, 16)])
def test_mask_tower_matches_torch(shape, rng):
    first, second = layer(rng, 24, shape[-1]), layer(rng, 8, 24)
    anchors = rng.normal(size=(5, shape[-1])).astype("f"), rng.normal(size=5).astype("f")
    arrays = arrays_of(rng, **{"mask.0": first, "mask.1": second, "anchors": anchors})
    convolutions = Convolutions(arrays, shape[-1])
    maps = rng.normal(size=shape).astype(np.float32)
    expected = reference(reference(maps, *first, relu=True), *second, relu=True)
    assert np.abs(convolutions.mask(maps) - expected).max() < 1e-5 * max(expected.std(), 1)
    assert convolutions.box(maps) is maps


def test_trunk_gives_pyramid_maps_and_rpn_outputs(rng):
    layers = layer(rng, 8, 8), layer(rng, 8, 8), layer(rng, 8, 8)
    arrays = arrays_of(rng, **{"pyramid.0": layers[0], "pyramid.1": layers[1], "rpn.0": layers[2]})
    convolutions = Convolutions(arrays, 8)
    merged = [rng.normal(size=(2, *hw, 8)).astype(np.float32) for hw in ((12, 17), (6, 9))]
    maps, objectness, deltas = convolutions.trunk(merged)
    expected = [reference(m, *w, relu=False) for m, w in zip(merged, layers, strict=False)]
    for actual, reference_map in zip(maps, expected, strict=True):
        assert np.abs(actual - reference_map).max() < 1e-5
    weight, bias = arrays["anchors.weight"], arrays["anchors.bias"]
    rpn_outputs = [reference(m, *layers[2], relu=True) @ weight.T + bias for m in (*expected, expected[1][:, ::2, ::2])]
    assert np.abs(objectness - np.concatenate([a[..., :3].reshape(2, -1) for a in rpn_outputs], 1)).max() < 1e-4
    assert np.abs(deltas - np.concatenate([a[..., 3:].reshape(2, -1, 4) for a in rpn_outputs], 1)).max() < 1e-4
    assert objectness.shape == (2, 3 * (12 * 17 + 6 * 9 + 3 * 5))


def test_single_map_is_returned_unchanged(rng):
    convolutions = Convolutions(arrays_of(rng, **{"rpn.0": layer(rng, 8, 8)}), 8)
    maps, objectness, _ = convolutions.trunk([feature := rng.normal(size=(1, 5, 6, 8)).astype(np.float32)])
    assert maps == [feature]
    assert objectness.shape == (1, 3 * 5 * 6)


def test_arrays_of_wrong_shape_or_type_are_refused(rng):
    valid = {"rpn.0": layer(rng, 8, 8), "mask.0": layer(rng, 24, 8), "mask.1": layer(rng, 8, 24)}
    Convolutions(arrays_of(rng, **valid), 8)
    double = tuple(value.astype(np.float64) for value in layer(rng, 8, 8))
    for changes, message in (
        ({"mask.1": layer(rng, 8, 8)}, "mask.1 takes 8 channels, but gets 24"),
        ({"rpn.0": layer(rng, 16, 8)}, "anchors has float32"),
        ({"rpn.0": (layer(rng, 8, 8)[0], np.zeros(7, np.float32))}, "rpn.0 has float32"),
        ({"box.0": double}, "box.0 has float64"),
    ):
        with pytest.raises(ValueError, match=message):
            Convolutions(arrays_of(rng, **{**valid, **changes}), 8)
    incomplete = arrays_of(rng, **valid)
    del incomplete["mask.0.bias"]
    with pytest.raises(ValueError, match=r"mask\.0\.bias is missing"):
        Convolutions(incomplete, 8)
    with pytest.raises(ValueError, match="gets 9"):
        Convolutions(arrays_of(rng, **valid), 9)
