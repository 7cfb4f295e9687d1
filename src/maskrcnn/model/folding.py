"""Frozen batch norm costs nothing: while gradients are taken, a convolution and the norm behind it are one convolution.

    norm(W x) = (g W) x + b,  g = weight / sqrt(variance + eps),  b = bias - mean g

Gradients reach W, weight and bias through g and b, as they would through the norm. Without gradients both layers do
what they always did, so that predictions keep their last bit.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn.model.layers import convolve, norms


def fold_frozen_norms(body: nn.Module) -> None:
    """Let every convolution of `body` whose output goes to a batch norm, and nowhere else, take that norm's part.

    It does so wherever the norm is in evaluation mode and gradients are enabled.
    """
    for conv, norm in _pairs(body):
        conv.forward = partial(_folded, conv, norm)  # type: ignore[method-assign]
        norm.forward = partial(_what_is_left, norm)


def _is_folded(norm: Any) -> bool:
    return torch.is_grad_enabled() and not norm.training


def _folded(conv: nn.Conv2d, norm: Any, x: Tensor) -> Tensor:
    if not _is_folded(norm):
        return type(conv).forward(conv, x)
    factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * factor
    if conv.bias is not None:
        shift = shift + conv.bias * factor
    scaled: Any = _Scaled(conv, conv.weight * factor[:, None, None, None], shift)
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
    """Convolutions and the norms that alone take their outputs, read off the graph of one small forward pass.

    A norm without weights or running statistics has no part to take.
    """
    if next(norms(body), None) is None:
        return []
    made_by: dict[Tensor, nn.Conv2d] = {}
    taken_by: list[tuple[Tensor, Any]] = []
    hooks = [
        module.register_forward_hook(lambda conv, _, output: made_by.update({output: conv}))
        for module in body.modules()
        if isinstance(module, nn.Conv2d)
    ]
    hooks += [norm.register_forward_pre_hook(lambda norm, x: taken_by.append((x[0], norm))) for norm in norms(body)]
    training = body.training
    with torch.enable_grad():
        maps = body.eval()(torch.zeros(1, 3, 64, 64))
    body.train(training)
    for hook in hooks:
        hook.remove()
    users = _users(maps)
    return [
        (made_by[x], norm)
        for x, norm in taken_by
        if x in made_by and users[x.grad_fn] == 1 and norm.affine and norm.track_running_stats
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
