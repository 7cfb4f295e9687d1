"""Frozen batch norm folded into the convolution before it, for training.

    norm(W x) = (g W) x + b,  g = weight / sqrt(variance + eps),  b = bias - mean g

Two modules replace each pair and keep its tensors under their names. Gradients reach W, weight and bias as through the
norm, and the activations are passed over once less.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from timm.layers import Conv2dSame, pad_same
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from maskrcnn.model.layers import SharedConv2d, norms, replace_module


def fold_frozen_norms(body: nn.Module) -> None:
    """Replace, in place, each convolution of `body` that feeds one norm alone, and the norm, which must stay frozen."""
    for conv_name, norm_name in foldable_pairs(body):
        conv, norm = body.get_submodule(conv_name), FoldedNorm(body.get_submodule(norm_name))
        assert isinstance(conv, nn.Conv2d)
        replace_module(body, conv_name, FoldedConv(conv, norm))
        replace_module(body, norm_name, norm)


def folded_weights(conv: nn.Conv2d, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does what `conv` and its norm in evaluation mode do together."""
    factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * factor
    if conv.bias is not None:
        shift = shift + conv.bias * factor
    return conv.weight * factor[:, None, None, None], shift


class FoldedConv(SharedConv2d):
    """Stands in for a convolution and computes it together with the norm behind it."""

    def __init__(self, conv: nn.Conv2d, norm: FoldedNorm) -> None:
        super().__init__(conv)
        self.pads_like_tensorflow = isinstance(conv, Conv2dSame)
        self.norm = (norm,)  # in a tuple, which registers nothing: its tensors belong to the norm's own place

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, M, N) -> (B, C', M', N'), normalised."""
        weight, bias = folded_weights(self, self.norm[0])
        if self.pads_like_tensorflow:
            input = pad_same(input, self.kernel_size, self.stride, self.dilation)  # type: ignore[arg-type]
        return self._conv_forward(input, weight, bias)


class FoldedNorm(nn.Module):
    """Stands in for a norm that a `FoldedConv` computes: keeps its tensors and applies timm's activation, if any."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.eps: float = norm.eps  # type: ignore[assignment]
        for name, parameter in norm.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(x))


def foldable_pairs(body: nn.Module) -> list[tuple[str, str]]:
    """Names of convolutions and of the norms that alone read their outputs and have weights and running statistics.

    They are found in the autograd graph of a forward pass on the meta device, which computes no numbers.
    """
    if next(norms(body), None) is None:
        return []
    twin: Any = copy.deepcopy(body).to("meta").eval().requires_grad_()
    conv_outputs: list[tuple[Any, str]] = []
    norm_inputs: list[tuple[Any, str]] = []
    for name, module in twin.named_modules():
        if type(module) in (nn.Conv2d, Conv2dSame):
            module.register_forward_hook(lambda _, x, output, name=name: conv_outputs.append((output.grad_fn, name)))
        elif isinstance(module, _BatchNorm) and module.affine and module.track_running_stats:
            module.register_forward_pre_hook(lambda _, x, name=name: norm_inputs.append((x[0].grad_fn, name)))
    with torch.enable_grad():
        maps = twin(torch.zeros(1, *twin.pretrained_cfg["input_size"], device="meta"))
    conv_of, users = dict(conv_outputs), _count_users(maps)
    calls = Counter(name for _, name in [*conv_outputs, *norm_inputs])
    return [
        (conv_of[node], name)
        for node, name in norm_inputs
        if node in conv_of and users[node] == calls[conv_of[node]] == calls[name] == 1
    ]


def _count_users(outputs: list[Tensor]) -> Counter[Any]:
    """How many times the result of each node of an autograd graph is used; being an output counts as a use."""
    users: Counter[Any] = Counter(x.grad_fn for x in outputs)
    waiting = list(users)
    while waiting:
        for node, _ in waiting.pop().next_functions:
            users[node] += 1
            if node is not None and users[node] == 1:
                waiting.append(node)
    return users
