"""Small parts that several modules are made of."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def convolution(in_channels: int, out_channels: int, size: int, *, norm: bool) -> nn.Module:
    """A convolution that keeps height and width; with `norm`, batch norm follows and takes the bias's place."""
    conv = nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=not norm)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels)) if norm else conv


def norms(module: nn.Module) -> Iterator[_BatchNorm]:
    """All batch norm layers inside `module`."""
    return (m for m in module.modules() if isinstance(m, _BatchNorm))


def convolutions(module: nn.Module) -> Iterator[nn.Conv2d]:
    """All convolutions inside `module`."""
    return (m for m in module.modules() if isinstance(m, nn.Conv2d))
