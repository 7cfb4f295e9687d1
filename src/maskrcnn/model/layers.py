"""Small parts that several modules are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

LARGE_MAP = 64 * 64
"""Cells from which on a 3x3 convolution's weight gradient is slow with channels last in memory."""


def convolution(in_channels: int, out_channels: int, size: int, *, norm: bool) -> nn.Module:
    """A convolution that keeps height and width; with `norm`, batch norm follows and takes the bias's place."""
    conv = _Convolution(in_channels, out_channels, size, padding=size // 2, bias=not norm)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels)) if norm else conv


class _Convolution(nn.Conv2d):
    """`nn.Conv2d`, by `convolve`."""

    def forward(self, input: Tensor) -> Tensor:
        return convolve(self, input, self.weight, self.bias)


def convolve(conv: nn.Conv2d, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `conv` makes of `input` with this weight and bias; on a CPU, large maps train faster."""
    large = conv.kernel_size != (1, 1) and input.shape[-2] * input.shape[-1] >= LARGE_MAP
    plain = conv.stride == conv.dilation == (1, 1) and conv.groups == 1
    on_cpu = input.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if large and plain and on_cpu and torch.is_grad_enabled():
        return _PlainOrderGradient.apply(input, weight, bias, conv.padding)
    return F.conv2d(input, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


class _PlainOrderGradient(torch.autograd.Function):
    """A convolution whose weight gradient is taken in plain memory order.

    oneDNN needs 1.05 s for it with channels last, for 2 maps of 256 channels on 128 x 128 cells, and 0.37 s in plain
    order, the copies counted. Everything else stays with channels last, which is the faster order there.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.padding, ctx.bias_shape = padding, None if bias is None else list(bias.shape)
        return F.conv2d(input, weight, bias, padding=padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        of_input, of_weight, of_bias, _ = ctx.needs_input_grad

        def gradient(grad: Tensor, source: Tensor, wanted: list[bool]) -> tuple[Tensor | None, ...]:
            fixed = ([1, 1], list(ctx.padding), [1, 1], False, [0, 0], 1)
            return torch.ops.aten.convolution_backward(grad, source, weight, ctx.bias_shape, *fixed, wanted)

        grad_input = gradient(grads[0], input, [True, False, False])[0] if of_input else None
        plain = grads[0].contiguous(), input.contiguous()
        _, grad_weight, grad_bias = gradient(*plain, [False, of_weight, of_bias])
        return grad_input, grad_weight, grad_bias, None


def norms(module: nn.Module) -> Iterator[_BatchNorm]:
    """All batch norm layers inside `module`."""
    return (m for m in module.modules() if isinstance(m, _BatchNorm))


def convolutions(module: nn.Module) -> Iterator[nn.Conv2d]:
    """All convolutions inside `module`."""
    return (m for m in module.modules() if isinstance(m, nn.Conv2d))
