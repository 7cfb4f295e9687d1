"""Small parts that several modules are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from maskrcnn.kernels.convolution import convolve as kernel_convolve
from maskrcnn.kernels.convolution import weight_gradient
from maskrcnn.kernels.winograd import transform_weights

LEAST_OPERATIONS, LEAST_CELLS = 4e9, 2048
"""From this size on Winograd's algorithm trains a convolution faster (docs/benchmarks.md). Smaller ones are done before
torch's own threads, which go on spinning for some milliseconds, have left their cores; with few cells the weights take
the time."""


def convolution(in_channels: int, out_channels: int, size: int, *, norm: bool) -> nn.Module:
    """A convolution that keeps height and width; with `norm`, batch norm follows and takes the bias's place."""
    conv = _Convolution(in_channels, out_channels, size, padding=size // 2, bias=not norm)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels)) if norm else conv


class _Convolution(nn.Conv2d):
    """`nn.Conv2d`, by `convolve`."""

    def forward(self, input: Tensor) -> Tensor:
        return convolve(self, input, self.weight, self.bias)


def convolve(conv: nn.Conv2d, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `conv` makes of `input` with this weight and bias. On a CPU large 3x3 convolutions train by Winograd's
    algorithm; a network in evaluation has torch's.
    """
    shape_fits = conv.kernel_size == (3, 3) and conv.stride == conv.dilation == conv.padding == (1, 1)
    on_cpu = input.device.type == "cpu" and input.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if shape_fits and conv.groups == 1 and on_cpu and conv.training:
        cells = input.shape[0] * input.shape[2] * input.shape[3]
        if cells >= LEAST_CELLS and 2 * cells * weight.numel() >= LEAST_OPERATIONS:
            return _Winograd.apply(input, weight, bias)
    return F.conv2d(input, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


class _Winograd(torch.autograd.Function):
    """A 3x3 convolution whose outputs and gradients are those of `kernels.convolution`."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        shift = np.zeros(len(weight), np.float32) if bias is None else bias.numpy()
        return _convolved(input, transform_weights(weight.numpy()), shift)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        grad = grads[0]
        of_input = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            turned = weight.flip(2, 3).transpose(0, 1)  # (C', C, 3, 3) -> (C, C', 3, 3)
            of_input = _convolved(grad, transform_weights(turned.numpy()), np.zeros(weight.shape[1], np.float32))
        if ctx.needs_input_grad[1]:
            threads = torch.get_num_threads()
            of_weight = torch.from_numpy(weight_gradient(channels_last(input), channels_last(grad), threads=threads))
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum((0, 2, 3))
        return of_input, of_weight, of_bias


def _convolved(input: Tensor, weights: np.ndarray, bias: np.ndarray) -> Tensor:
    """(B, C, M, N) with transformed weights (36, C, C') -> (B, C', M, N)."""
    shape = len(input), len(bias), *input.shape[2:]
    out = torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)
    cells = out.permute(0, 2, 3, 1).numpy()
    kernel_convolve(channels_last(input), weights, bias, cells, threads=torch.get_num_threads())
    return out


def channels_last(maps: Tensor) -> Any:
    """(B, C, M, N) -> a NumPy view (B, M, N, C), copied only where memory is laid out otherwise."""
    return maps.detach().permute(0, 2, 3, 1).contiguous().numpy()


def norms(module: nn.Module) -> Iterator[_BatchNorm]:
    """All batch norm layers inside `module`."""
    return (m for m in module.modules() if isinstance(m, _BatchNorm))


def convolutions(module: nn.Module) -> Iterator[nn.Conv2d]:
    """All convolutions inside `module`."""
    return (m for m in module.modules() if isinstance(m, nn.Conv2d))
