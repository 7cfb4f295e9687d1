"""Feature pyramid (Lin et al. 2017): C2 to C5 -> P2 to P6 with equal channels. `SingleMap` replaces it by one map."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn.model.layers import convolution, convolutions


class FPN(nn.Module):
    """Lateral 1x1 convolutions, nearest-neighbour top-down path, 3x3 output convolutions, P6 subsampled from P5."""

    def __init__(self, in_channels: list[int], channels: int, *, norm: bool = False) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(convolution(c, channels, 1, norm=norm) for c in in_channels)
        self.outputs = nn.ModuleList(convolution(channels, channels, 3, norm=norm) for _ in in_channels)
        _initialize(self)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (B, C, M, N), finest first -> pyramid, finest first, with one more level."""
        pyramid = [output(sums) for output, sums in zip(self.outputs, self.merge(maps), strict=True)]
        pyramid.append(F.max_pool2d(pyramid[-1], kernel_size=1, stride=2))
        return pyramid

    def merge(self, maps: list[Tensor]) -> list[Tensor]:
        """Return the input of the output convolutions: each lateral plus the upsampled sum of all coarser ones."""
        merged: list[Tensor] = []
        for feature, lateral in reversed(list(zip(maps, self.laterals, strict=True))):
            sums = lateral(feature)
            if merged:
                sums = sums + F.interpolate(merged[0], size=sums.shape[-2:], mode="nearest")
            merged.insert(0, sums)
        return merged


class SingleMap(nn.Module):
    """No pyramid, as in Faster R-CNN: project the map of stride 16 to the channels of the heads."""

    def __init__(self, in_channels: list[int], channels: int, *, norm: bool = False) -> None:
        super().__init__()
        self.project = convolution(in_channels[-1], channels, 1, norm=norm)
        _initialize(self)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return self.merge(maps)

    def merge(self, maps: list[Tensor]) -> list[Tensor]:
        """Same as `forward`: no output convolutions follow."""
        return [self.project(maps[-1])]


def _initialize(module: nn.Module) -> None:
    for conv in convolutions(module):
        nn.init.kaiming_uniform_(conv.weight, a=1)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
