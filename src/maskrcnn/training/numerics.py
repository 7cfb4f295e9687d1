"""Precision of the network in training, and reproducible algorithms."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from maskrcnn.inference.runtimes.torch import HALF_TYPES


def half_type(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the half-precision dtype that `precision` means on `device`, or None for float32."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return HALF_TYPES.get(precision)


def validation_type(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the dtype in which the network validates: that of training on a GPU, else float32."""
    return half_type(precision, device) if device.type == "cuda" else None


@contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """If `enabled`, torch uses deterministic algorithms, and raises for an operation that has none."""
    previous = torch.are_deterministic_algorithms_enabled()
    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS requires it and reads it at its first call
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(previous)
