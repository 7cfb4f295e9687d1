"""Feature pyramid (Lin et al. 2017): C2 to C5 -> P2 to P6, all of one depth, or a single map for a plain network."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn.model.layers import convolution, convolutions


class FPN(nn.Module):
    """Lateral 1x1 convolutions, a top-down path of nearest-neighbour steps, 3x3 output convolutions, P6 from P5."""

    def __init__(self, in_channels: list[int], channels: int, *, norm: bool = False) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(convolution(c, channels, 1, norm=norm) for c in in_channels)
        self.outputs = nn.ModuleList(convolution(channels, channels, 3, norm=norm) for _ in in_channels)
        _initialize(self)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Finest first, in and out; one level more comes out."""
        pyramid = [output(sums) for output, sums in zip(self.outputs, self.merge(maps), strict=True)]
        pyramid.append(F.max_pool2d(pyramid[-1], kernel_size=1, stride=2))
        return pyramid

    def merge(self, maps: list[Tensor]) -> list[Tensor]:
        """The laterals with all coarser ones added to them: what the output convolutions take."""
        merged: list[Tensor] = []
        for feature, lateral in reversed(list(zip(maps, self.laterals, strict=True))):
            sums = lateral(feature)
            if merged:
                sums = sums + F.interpolate(merged[0], size=sums.shape[-2:], mode="nearest")
            merged.insert(0, sums)
        return merged


class SingleMap(nn.Module):
    """One map of stride 16 brought to the heads' depth: Faster R-CNN's shape, without a pyramid."""

    def __init__(self, in_channels: list[int], channels: int, *, norm: bool = False) -> None:
        super().__init__()
        self.project = convolution(in_channels[-1], channels, 1, norm=norm)
        _initialize(self)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """The last map only."""
        return self.merge(maps)

    def merge(self, maps: list[Tensor]) -> list[Tensor]:
        """The same: no 3x3 convolutions follow."""
        return [self.project(maps[-1])]


def _initialize(module: nn.Module) -> None:
    for conv in convolutions(module):
        nn.init.kaiming_uniform_(conv.weight, a=1)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
