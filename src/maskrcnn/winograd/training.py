"""Large 3x3 convolutions of a model in training, forward and backward, by Winograd's algorithm."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from maskrcnn.detection.tensors import channels_last
from maskrcnn.model.folding import FoldedConv
from maskrcnn.model.layers import SharedConv2d, replace_module
from maskrcnn.winograd.convolution import convolve, weight_gradient
from maskrcnn.winograd.transforms import transform_weights

MIN_OPERATIONS, MIN_CELLS = 4e9, 2048
"""Smaller convolutions stay torch's: they end while its threads, which spin for some milliseconds after an operation,
still hold the cores. With few cells, transforming the weights takes the time."""


def accelerate(model: nn.Module) -> None:
    """Replace, in place, the 3x3 convolutions of `model` that this algorithm can compute. Tensors keep their names."""
    for name, conv in list(model.named_modules()):
        if type(conv) is FoldedConv and _fits(conv):
            replace_module(model, name, _FoldedWinogradConv(conv, conv.norm[0]))
        elif type(conv) is nn.Conv2d and _fits(conv):
            replace_module(model, name, _WinogradConv(conv))


def _fits(conv: nn.Conv2d) -> bool:
    plain = conv.stride == conv.dilation == conv.padding == (1, 1) and conv.padding_mode == "zeros"
    return plain and conv.kernel_size == (3, 3) and conv.groups == 1


class _WinogradConv(SharedConv2d):
    """Computes large float32 inputs on a CPU by Winograd's algorithm, and all others as torch does."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        cells = input.shape[0] * input.shape[2] * input.shape[3]
        large = cells >= MIN_CELLS and 2 * cells * weight.numel() >= MIN_OPERATIONS
        on_cpu = input.device.type == "cpu" and input.dtype == torch.float32
        if large and on_cpu and not torch.is_autocast_enabled("cpu"):
            return _Convolve.apply(input, weight, bias)
        return super()._conv_forward(input, weight, bias)


class _FoldedWinogradConv(_WinogradConv, FoldedConv):
    """The same for a convolution into which a frozen norm is folded."""


class _Convolve(torch.autograd.Function):
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
        input_grad = weight_grad = bias_grad = None
        if ctx.needs_input_grad[0]:
            turned = weight.flip(2, 3).transpose(0, 1)  # (C', C, 3, 3) -> (C, C', 3, 3)
            input_grad = _convolved(grad, transform_weights(turned.numpy()), np.zeros(weight.shape[1], np.float32))
        if ctx.needs_input_grad[1]:
            threads = torch.get_num_threads()
            weight_grad = torch.from_numpy(weight_gradient(channels_last(input), channels_last(grad), threads=threads))
        if ctx.needs_input_grad[2]:
            bias_grad = grad.sum((0, 2, 3))
        return input_grad, weight_grad, bias_grad


def _convolved(input: Tensor, weights: np.ndarray, bias: np.ndarray) -> Tensor:
    """Input (B, C, M, N) with transformed weights (36, C, C') -> (B, C', M, N)."""
    shape = len(input), len(bias), *input.shape[2:]
    out = torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)
    cells = out.permute(0, 2, 3, 1).numpy()
    convolve(channels_last(input), weights, bias, cells, threads=torch.get_num_threads())
    return out
