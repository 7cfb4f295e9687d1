"""In which numbers the network computes, and whether the same ones come out twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def half_type(precision: str, device: torch.device) -> torch.dtype | None:
    """The type that `precision` stands for on `device`; None is float32."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return HALF.get(precision)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """With `wanted`, torch takes the algorithms that give the same bits every time, and raises where it has none."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS's own condition, read at its first call
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
