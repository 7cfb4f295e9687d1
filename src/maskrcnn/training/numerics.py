"""Precision of the network and of its layers in training, and reproducible algorithms."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from maskrcnn.inference.runtimes.torch import HALF_TYPES
from maskrcnn.model.layers import convolutions


def half_type(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the half-precision dtype that `precision` means on `device`, or None for float32."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return HALF_TYPES.get(precision)


def validation_type(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the dtype in which the network validates: that of training on a GPU, else float32."""
    return half_type(precision, device) if device.type == "cuda" else None


def keep_depthwise_in_float32(model: nn.Module) -> None:
    """Let the depthwise convolutions of `model` compute in float32 under autocast. Their tensors keep their names.

    On a CPU, torch takes two to three times longer for most of them in bfloat16 (docs/experiments/bf16-training.md).
    """
    for layer in convolutions(model):
        if layer.groups == layer.in_channels > 1:
            kind = type(layer)
            layer.__class__ = type(f"Float32{kind.__name__}", (_InFloat32, kind), {})


class _InFloat32:
    """Precedes the class of a layer. Under autocast, the input becomes float32 and the output the half type again."""

    def forward(self, input: Tensor) -> Tensor:
        device = input.device.type
        if not torch.is_autocast_enabled(device):
            return super().forward(input)  # type: ignore[misc]
        half = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return super().forward(input.float()).to(half)  # type: ignore[misc]


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
