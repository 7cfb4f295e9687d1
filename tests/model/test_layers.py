"""Convolutions that train by Winograd's algorithm give torch's outputs and gradients; others are torch's own."""

import pytest
import torch
from torch import nn

from maskrcnn.model import layers
from maskrcnn.model.layers import convolve
from maskrcnn.model.rpn import RPN


@pytest.fixture
def large(monkeypatch):
    """Let small convolutions count as large ones, and tell which went through Winograd's algorithm."""
    monkeypatch.setattr(layers, "LEAST_OPERATIONS", 0)
    monkeypatch.setattr(layers, "LEAST_CELLS", 1)
    calls = []
    convolved = layers._convolved
    monkeypatch.setattr(layers, "_convolved", lambda *args: calls.append(1) or convolved(*args))
    return calls


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("shape", [(2, 16, 20, 15), (1, 3, 5, 5)])
def test_outputs_and_gradients_are_torchs(large, bias, memory, shape):
    torch.manual_seed(0)
    conv = nn.Conv2d(shape[1], 24, 3, padding=1, bias=bias)
    images = torch.randn(shape).contiguous(memory_format=memory)
    gradients = torch.randn(shape[0], 24, *shape[2:]).contiguous(memory_format=memory)
    results = []
    for plain in (False, True):
        x = (images.double() if plain else images.clone()).requires_grad_()
        conv = conv.double() if plain else conv
        conv.zero_grad()
        y = convolve(conv, x, conv.weight, conv.bias)
        y.relu_().backward(gradients.to(y.dtype))  # what follows may work in place
        results.append([y, x.grad, conv.weight.grad, *([conv.bias.grad] if bias else [])])
    assert len(large) == 2
    for found, expected in zip(*results, strict=True):
        assert (found - expected).abs().max() < 2e-5 * max(expected.std(), 1)


def test_it_takes_as_many_threads_as_torch(large, monkeypatch):
    seen = []
    for name in ("kernel_convolve", "weight_gradient"):
        kernel = getattr(layers, name)
        monkeypatch.setattr(
            layers, name, lambda *a, kernel=kernel, threads: seen.append(threads) or kernel(*a, threads=threads)
        )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    conv, x = nn.Conv2d(4, 4, 3, padding=1), torch.randn(1, 4, 8, 8, requires_grad=True)
    convolve(conv, x, conv.weight, conv.bias).sum().backward()
    assert seen == [5, 5, 5]


def test_a_frozen_layer_passes_gradients_on(large):
    conv = nn.Conv2d(4, 4, 3, padding=1).requires_grad_(False)
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    convolve(conv, x, conv.weight, conv.bias).sum().backward()
    assert x.grad is not None
    assert conv.weight.grad is None


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 5, padding=2),
        nn.Conv2d(4, 4, 3, padding=1, stride=2),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, (3, 1), padding=(1, 0)),
    ],
    ids=str,
)
def test_other_convolutions_are_torchs(large, conv):
    x = torch.randn(1, 4, 12, 12)
    assert torch.equal(convolve(conv, x, conv.weight, conv.bias), conv(x))
    assert large == []


def test_evaluation_and_autocast_have_torchs(large):
    conv, x = nn.Conv2d(4, 4, 3, padding=1).eval(), torch.randn(1, 4, 12, 12)
    assert torch.equal(convolve(conv, x, conv.weight, conv.bias), conv(x))
    conv.train()
    with torch.autocast("cpu", torch.bfloat16):
        assert convolve(conv, x, conv.weight, conv.bias).dtype == torch.bfloat16
    assert large == []


def test_the_proposals_of_a_step_take_it_without_gradients(large):
    rpn = RPN(4, 3)
    features = [torch.randn(2, 4, 12, 12), torch.randn(2, 4, 6, 6)]
    with torch.no_grad():
        trained, evaluated = rpn(features), rpn.eval()(features)
    assert len(large) == 2  # levels
    for level in range(2):
        assert torch.allclose(trained.objectness_logits[level], evaluated.objectness_logits[level], atol=1e-6)


def test_small_convolutions_are_torchs():
    conv, x = nn.Conv2d(4, 4, 3, padding=1), torch.randn(1, 4, 12, 12)
    assert torch.equal(convolve(conv, x, conv.weight, conv.bias), conv(x))
