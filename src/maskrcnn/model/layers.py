"""Small parts that several modules are made of."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def convolution(in_channels: int, out_channels: int, size: int, *, norm: bool) -> nn.Module:
    """A convolution that keeps height and width. With `norm`, batch norm follows and replaces the bias."""
    conv = nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=not norm)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels)) if norm else conv


class SharedConv2d(nn.Conv2d):
    """A convolution with the settings and the very tensors of `conv`, to stand in for it under the same names."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            bias=False,
            padding_mode=conv.padding_mode,
            device="meta",
        )
        self.weight, self.bias = conv.weight, conv.bias


def norms(module: nn.Module) -> Iterator[_BatchNorm]:
    """All batch norm layers inside `module`."""
    return (m for m in module.modules() if isinstance(m, _BatchNorm))


def convolutions(module: nn.Module) -> Iterator[nn.Conv2d]:
    """All convolutions inside `module`."""
    return (m for m in module.modules() if isinstance(m, nn.Conv2d))


def replace_module(root: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` in the place of the submodule called `name`, dots included."""
    parent, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent), leaf, module)
