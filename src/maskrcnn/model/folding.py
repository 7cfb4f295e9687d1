"""Frozen batch norm without its passes: while gradients are taken, a convolution and the norm behind it are one.

    norm(W x) = (g W) x + b,  g = weight / sqrt(variance + eps),  b = bias - mean g

Gradients reach W, weight and bias through g and b, as they would through the norm. Without gradients both layers do
what they always did, so that predictions keep their last bit.
"""

from __future__ import annotations

import copy
from collections import Counter
from functools import partial
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from maskrcnn.model.layers import convolve, norms


def fold_frozen_norms(body: nn.Module) -> None:
    """Let every convolution of `body` whose output goes to a batch norm, and nowhere else, take that norm's part.

    It does so wherever the norm is in evaluation mode and gradients are enabled.
    """
    for conv, norm in _pairs(body):
        conv.forward = partial(_folded, conv, norm)  # type: ignore[method-assign]
        norm.forward = partial(_what_is_left, norm)


def folded_weights(conv: nn.Conv2d, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does what `conv` and the norm behind it do in evaluation."""
    factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * factor
    if conv.bias is not None:
        shift = shift + conv.bias * factor
    return conv.weight * factor[:, None, None, None], shift


def _is_folded(norm: Any) -> bool:
    return torch.is_grad_enabled() and not norm.training


def _folded(conv: nn.Conv2d, norm: Any, x: Tensor) -> Tensor:
    if not _is_folded(norm):
        return type(conv).forward(conv, x)
    scaled: Any = _Scaled(conv, *folded_weights(conv, norm))
    if type(conv) is nn.Conv2d:
        return convolve(conv, x, scaled.weight, scaled.bias)
    return type(conv).forward(scaled, x)


def _what_is_left(norm: Any, x: Tensor) -> Tensor:
    """The activation, where timm has put one into the norm."""
    if not _is_folded(norm):
        return type(norm).forward(norm, x)
    return norm.act(norm.drop(x)) if hasattr(norm, "act") else x


class _Scaled:
    """A convolution with another weight and bias, for the forward functions of its subclasses."""

    def __init__(self, conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
        self.conv, self.weight, self.bias = conv, weight, bias

    def __getattr__(self, name: str) -> Any:
        return getattr(self.conv, name)


def _pairs(body: nn.Module) -> list[tuple[nn.Conv2d, nn.Module]]:
    """Convolutions and the norms that alone take their outputs, read off the graph of a forward pass without numbers.

    A norm without weights or running statistics has no part to take.
    """
    if next(norms(body), None) is None:
        return []
    twin: Any = copy.deepcopy(body).to("meta").eval().requires_grad_()
    made: list[tuple[Any, str]] = []
    taken: list[tuple[Any, str]] = []
    for name, module in twin.named_modules():
        if type(module) in (nn.Conv2d, Conv2dSame):
            module.register_forward_hook(lambda _, x, output, name=name: made.append((output.grad_fn, name)))
        elif isinstance(module, _BatchNorm) and module.affine and module.track_running_stats:
            module.register_forward_pre_hook(lambda _, x, name=name: taken.append((x[0].grad_fn, name)))
    with torch.enable_grad():
        maps = twin(torch.zeros(1, *twin.pretrained_cfg["input_size"], device="meta"))
    maker, users = dict(made), _users(maps)
    calls = Counter(name for _, name in [*made, *taken])
    return [
        (body.get_submodule(maker[node]), body.get_submodule(name))  # type: ignore[misc]
        for node, name in taken
        if node in maker and users[node] == calls[maker[node]] == calls[name] == 1
    ]


def _users(outputs: list[Tensor]) -> Counter[Any]:
    """How many times the result of each node of a graph is used, `outputs` being used once more."""
    users: Counter[Any] = Counter(x.grad_fn for x in outputs)
    waiting = list(users)
    while waiting:
        for node, _ in waiting.pop().next_functions:
            users[node] += 1
            if node is not None and users[node] == 1:
                waiting.append(node)
    return users
