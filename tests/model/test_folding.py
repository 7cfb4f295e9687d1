"""A convolution that takes its frozen norm's part gives the same maps and the same gradients."""

import copy

import pytest
import timm
import torch
from torch import nn

from maskrcnn.model.folding import fold_frozen_norms, foldable_pairs
from maskrcnn.model.layers import norms

NAMES = ["test_resnet", "tf_efficientnet_lite0", "resnetv2_50", "densenet121"]


def body(name: str) -> nn.Module:
    """A network in evaluation mode, its norms as if it had been trained."""
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


def close(a: torch.Tensor, b: torch.Tensor, part: float) -> bool:
    return bool((a - b).abs().max() <= part * b.abs().max() + 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_maps_and_gradients_are_those_of_two_layers(name):
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
def test_tensors_keep_their_names_and_order(name):
    """A folded network loads and saves the weights of the plain one."""
    plain = body(name)
    before, after = plain.state_dict(), folded(plain).state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    fast = folded(body(name))
    with torch.no_grad():
        fast.load_state_dict({key: torch.ones_like(value) for key, value in before.items()})
    assert all((value == 1).all() for value in fast.state_dict().values())


class Branches(nn.Module):
    """Convolutions whose outputs go past the norm as well, to two norms, through an activation, and to one norm; and
    one that is called twice.
    """

    pretrained_cfg = {"input_size": (3, 16, 16)}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(5))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(7))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        past, twice, active = (conv(x) for conv in self.convs[:3])
        return [
            past + self.norms[0](past),
            self.norms[1](twice),
            self.norms[2](twice),
            self.norms[3](active.relu_()),
            self.norms[4](self.convs[3](x)),
            self.norms[5](self.convs[4](x)),
            self.norms[6](self.convs[4](x + 1)),
        ]


def test_only_a_norm_that_takes_a_convolution_alone_is_folded():
    network = Branches()
    assert foldable_pairs(network) == [("convs.3", "norms.4")]


def test_copies_are_folded_with_their_own_weights():
    fast = folded(body("test_resnet"))
    twin = copy.deepcopy(fast)
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.zero_()
    assert all(m.abs().max() > 0 for m in twin(torch.randn(1, 3, 64, 64)))
