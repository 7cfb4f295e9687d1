"""Winograd convolutions in training match torch's outputs and gradients; unsupported ones are left to torch."""

import copy

import pytest
import torch
from torch import nn

from maskrcnn.model.folding import fold_frozen_norms
from maskrcnn.model.rpn import RPN
from maskrcnn.winograd import training
from maskrcnn.winograd.training import accelerate


@pytest.fixture
def winograd_calls(monkeypatch):
    """Accelerate small convolutions too, and record each call of the algorithm."""
    monkeypatch.setattr(training, "MIN_OPERATIONS", 0)
    monkeypatch.setattr(training, "MIN_CELLS", 1)
    calls = []
    original = training._convolved
    monkeypatch.setattr(training, "_convolved", lambda *args: calls.append(1) or original(*args))
    return calls


def accelerated(module: nn.Module) -> nn.Module:
    holder = nn.Sequential(copy.deepcopy(module))
    accelerate(holder)
    return holder[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("shape", [(2, 16, 20, 15), (1, 3, 5, 5)])
def test_outputs_and_gradients_match_torch(winograd_calls, bias, memory, shape):
    torch.manual_seed(0)
    plain = nn.Conv2d(shape[1], 24, 3, padding=1, bias=bias)
    fast = accelerated(plain)
    images = torch.randn(shape).contiguous(memory_format=memory)
    gradients = torch.randn(shape[0], 24, *shape[2:]).contiguous(memory_format=memory)
    results = []
    for conv, dtype in ((fast, torch.float32), (plain.double(), torch.float64)):
        x = images.to(dtype, copy=True).requires_grad_()
        y = conv(x)
        y.relu_().backward(gradients.to(dtype))  # the next layer may modify the output in place
        results.append([y, x.grad, conv.weight.grad, *([conv.bias.grad] if bias else [])])
    assert len(winograd_calls) == 2
    for actual, expected in zip(*results, strict=True):
        assert (actual - expected).abs().max() < 2e-5 * max(expected.std(), 1)


def test_uses_as_many_threads_as_torch(winograd_calls, monkeypatch):
    threads_of_calls = []
    for name in ("convolve", "weight_gradient"):
        kernel = getattr(training, name)
        monkeypatch.setattr(
            training,
            name,
            lambda *a, kernel=kernel, threads: threads_of_calls.append(threads) or kernel(*a, threads=threads),
        )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    accelerated(nn.Conv2d(4, 4, 3, padding=1))(torch.randn(1, 4, 8, 8, requires_grad=True)).sum().backward()
    assert threads_of_calls == [5, 5, 5]


def test_gradients_flow_through_a_frozen_layer(winograd_calls):
    conv = accelerated(nn.Conv2d(4, 4, 3, padding=1).requires_grad_(False))
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    conv(x).sum().backward()
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
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    ],
    ids=str,
)
def test_unsupported_convolutions_are_not_replaced(winograd_calls, conv):
    assert type(accelerated(conv)) is nn.Conv2d


def test_small_inputs_and_autocast_use_torch(winograd_calls, monkeypatch):
    plain, x = nn.Conv2d(4, 4, 3, padding=1), torch.randn(1, 4, 12, 12)
    fast = accelerated(plain)
    with torch.autocast("cpu", torch.bfloat16):
        assert fast(x).dtype == torch.bfloat16
    monkeypatch.setattr(training, "MIN_CELLS", 145)
    assert torch.equal(fast(x), plain(x))
    assert winograd_calls == []


def test_folded_norm_stays_folded(winograd_calls):
    """A 3x3 convolution of the backbone can both fold its norm and use the algorithm."""

    class Body(nn.Sequential):
        pretrained_cfg = {"input_size": (4, 16, 16)}  # noqa: RUF012

        def forward(self, x):
            return [super().forward(x)]

    torch.manual_seed(0)
    body = Body(nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)).eval()
    body[1].running_mean.normal_()
    body[1].running_var.uniform_(0.5, 2)
    names, x = list(body.state_dict()), torch.randn(2, 4, 16, 16)
    expected = body(x)[0]
    fold_frozen_norms(body)
    accelerate(body)
    assert torch.allclose(body(x)[0], expected, atol=1e-5)
    assert len(winograd_calls) == 1
    assert list(body.state_dict()) == names


def test_rpn_uses_winograd_without_gradients(winograd_calls):
    plain = RPN(4, 3)
    fast = accelerated(plain)
    features = [torch.randn(2, 4, 12, 12), torch.randn(2, 4, 6, 6)]
    with torch.no_grad():
        ours, theirs = fast(features), plain(features)
    assert len(winograd_calls) == 2  # one call per level
    for level in range(2):
        assert torch.allclose(ours.objectness_logits[level], theirs.objectness_logits[level], atol=1e-6)
