"""Weights generated from tensor names, as for the recorded reference outputs.

Recipe: numpy's default_rng seeded with the CRC-32 of the name draws in float64 in the tensor's own layout; kernels are
centred over all but the output axis and scaled by sqrt(gain / fan_in), biases by 0.02, norms vary by 0.1.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np


def make_tensor(key: str, entry: dict) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(key.encode("utf-8")))
    shape, kind = tuple(entry["shape"]), entry["kind"]
    if kind == "kernel":
        value = rng.standard_normal(shape)
        if entry["zero_sum"]:
            reduced_axes = tuple(i for i in range(len(shape)) if i != entry["out_axis"])
            value = value - value.mean(axis=reduced_axes, keepdims=True)
        value = value * np.sqrt(entry["gain"] / entry["fan_in"])
    elif kind == "bias":
        value = 0.02 * rng.standard_normal(shape)
    elif kind in ("gamma", "scale", "bn_weight"):
        value = 1 + 0.1 * rng.standard_normal(shape)
    elif kind in ("var", "variance", "bn_var"):
        value = 1 + 0.1 * rng.random(shape)
    else:
        value = 0.1 * rng.standard_normal(shape)
    return value.astype(np.float32)


def make_weights(folder: Path, table: str, overrides: str) -> dict[str, np.ndarray]:
    """Return the tensors of ``folder/table`` with the `overrides` applied, checked against the recorded sums."""
    entries = json.loads((folder / table).read_text())
    replaced = json.loads((folder / "overrides.json").read_text())[overrides]
    weights = {}
    for key, entry in entries.items():
        value = make_tensor(key, entry)
        if key in replaced:
            value = np.array(replaced[key], np.float32)
        assert np.isclose(np.abs(value.astype(np.float64)).sum(), entry["abssum"], rtol=1e-9), key
        weights[key] = value
    return weights
