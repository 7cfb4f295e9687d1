"""Folding frozen norms into convolutions keeps maps, gradients and tensor names."""

import copy

import pytest
import timm
import torch
from torch import nn

from maskrcnn.model.folding import fold_frozen_norms, foldable_pairs
from maskrcnn.model.layers import norms

NAMES = ["test_resnet", "tf_efficientnet_lite0", "resnetv2_50", "densenet121"]


def body(name: str) -> nn.Module:
    """Return a backbone in evaluation mode with random norms, like a trained one."""
    torch.manual_seed(0)
    network = timm.create_model(name, features_only=True, pretrained=False).eval()
    with torch.no_grad():
        for norm in norms(network):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.1)
    return network


def folded(network: nn.Module) -> nn.Module:
    result = copy.deepcopy(network)
    fold_frozen_norms(result)
    return result


def close(a: torch.Tensor, b: torch.Tensor, rtol: float) -> bool:
    return bool((a - b).abs().max() <= rtol * b.abs().max() + 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_folding_keeps_maps_and_gradients(name):
    plain = body(name)
    fast = folded(plain).double()
    plain.double()
    images = torch.randn(2, 3, 96, 64, dtype=torch.float64)
    maps = [network(images) for network in (plain, fast)]
    for a, b in zip(*maps, strict=True):
        assert close(b, a, 1e-9)
    for outputs in maps:
        sum((m * torch.linspace(-1, 1, m.numel()).view_as(m)).sum() for m in outputs).backward()
    gradients = [dict(network.named_parameters()) for network in (plain, fast)]
    for parameter in gradients[0]:
        assert close(gradients[1][parameter].grad, gradients[0][parameter].grad, 1e-9), parameter


@pytest.mark.parametrize("name", NAMES)
def test_folding_keeps_tensor_names_and_order(name):
    """A folded network loads and saves the plain network's weights."""
    plain = body(name)
    before, after = plain.state_dict(), folded(plain).state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    fast = folded(body(name))
    with torch.no_grad():
        fast.load_state_dict({key: torch.ones_like(value) for key, value in before.items()})
    assert all((value == 1).all() for value in fast.state_dict().values())


class Branches(nn.Module):
    """Convolutions that feed a norm and a sum, two norms, an activation, and one norm; the last is called twice."""

    pretrained_cfg = {"input_size": (3, 16, 16)}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(5))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(7))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        summed, twice, activated = (conv(x) for conv in self.convs[:3])
        return [
            summed + self.norms[0](summed),
            self.norms[1](twice),
            self.norms[2](twice),
            self.norms[3](activated.relu_()),
            self.norms[4](self.convs[3](x)),
            self.norms[5](self.convs[4](x)),
            self.norms[6](self.convs[4](x + 1)),
        ]


def test_only_a_convolution_with_a_single_norm_is_folded():
    network = Branches()
    assert foldable_pairs(network) == [("convs.3", "norms.4")]


def test_copies_are_folded_with_their_own_weights():
    fast = folded(body("test_resnet"))
    twin = copy.deepcopy(fast)
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.zero_()
    assert all(m.abs().max() > 0 for m in twin(torch.randn(1, 3, 64, 64)))
