"""Numbers read and written by kernels: bfloat16 as torch converts it, uint8 as OpenVINO quantises."""

import numba
import numpy as np
import pytest
import torch

from maskrcnn.detection.stages import RegionFormat
from maskrcnn.kernels.formats import read, write


@numba.njit
def widened(values):
    out = np.empty(len(values), np.float32)
    for i in range(len(values)):
        out[i] = read(values[i])
    return out


@numba.njit
def written(sums, out, low=0.0, step=1.0):
    write(out, sums, low, step)
    return out


def test_every_bfloat16_is_read_exactly():
    bits = np.arange(2**16, dtype=np.uint16)
    expected = torch.from_numpy(bits).view(torch.bfloat16).float().numpy()
    assert np.array_equal(widened(bits), expected, equal_nan=True)


def test_sums_are_rounded_as_torch_rounds(rng):
    """Random bit patterns, with ties between two neighbours, values around overflow, infinities and NaN."""
    bits = rng.integers(0, 2**32, 200_000, dtype=np.uint32)
    bits[::4] = bits[::4] & 0xFFFF0000 | 0x8000
    edges = [0x7F7F7FFF, 0x7F7F8000, 0x7F800000, 0xFF800000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 1]
    sums = np.concatenate([bits, np.array(edges, np.uint32)]).view(np.float32)
    actual = torch.from_numpy(written(sums, np.empty(len(sums), np.uint16))).view(torch.bfloat16)
    expected = torch.from_numpy(sums).bfloat16()
    assert torch.equal(actual.isnan(), expected.isnan())
    assert expected.isnan().sum() > 100
    finite = ~expected.isnan()
    assert torch.equal(actual[finite].view(torch.int16), expected[finite].view(torch.int16))


def test_float32_is_neither_widened_nor_rounded(rng):
    values = rng.standard_normal(100).astype(np.float32)
    assert np.array_equal(widened(values), values)
    assert np.array_equal(written(values, np.empty(100, np.float32)), values)


@pytest.mark.parametrize(("low", "step"), [(-1.5, 0.01), (0.0, 0.3), (-200.0, 2.0)])
def test_sums_are_counted_in_steps(rng, low, step):
    sums = rng.uniform(low - 20 * step, low + 280 * step, 10_000).astype(np.float32)
    counts = written(sums, np.empty(len(sums), np.uint8), low, step)
    assert set(counts[sums < low]) == {0}
    assert set(counts[sums > low + 255 * step]) == {255}
    inside = (sums >= low) & (sums <= low + 255 * step)
    assert np.abs(low + step * counts[inside] - sums[inside]).max() <= 0.501 * step


def test_formats_of_regions_are_decoded(rng):
    values = rng.uniform(-1, 1, (3, 4)).astype(np.float32)
    for regions, tolerance in (
        (RegionFormat(), 0),
        (RegionFormat(np.uint16), 2**-8),
        (RegionFormat(np.uint8, -1, 2 / 255), 0.004),
    ):
        encoded = regions.encode(values)
        assert encoded.dtype == regions.dtype
        decoded = regions.decode(encoded)
        assert decoded.dtype == np.float32
        assert np.abs(decoded - values).max() <= tolerance
