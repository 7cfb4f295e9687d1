"""The roofline of a network: operations and bytes that its layers need, against what a device does in a second.

    layers of a torch module -> Work -> Floor: the longer of computing and of moving memory

A device computes and moves memory at once, so neither alone bounds the time. Operations are the multiplications and
additions of plain convolutions and matrix products. Bytes are the inputs, weights and outputs of each of these layers,
every one read or written once; elementwise layers count as fused. Winograd's algorithm needs fewer operations, and a
layer whose arrays stay in the cache moves fewer bytes: both may pass their floor.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

COPY_BYTES = 2**28
"""Size of the copied array: far larger than any cache."""


class Work(NamedTuple):
    """Operations, and numbers read or written once by each layer. A number has the width of the precision."""

    operations: int = 0
    numbers: int = 0


class Peak(NamedTuple):
    """What a device does in a second: operations in one precision, and bytes copied (read plus written)."""

    operations: float
    bytes: float


class Floor(NamedTuple):
    """Seconds that `Work` takes at the rates of `Peak`."""

    compute: float
    memory: float

    @property
    def seconds(self) -> float:
        """The longer of the two."""
        return max(self.compute, self.memory)


class _Counter(TorchDispatchMode):
    """Count convolutions and matrix products as torch dispatches them, those of functions and modules alike."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        output = func(*args, **(kwargs or {}))
        operations = flop_registry.get(func._overloadpacket)
        if operations is not None:
            self.operations += operations(*args, **(kwargs or {}), out_val=output)
            self.numbers += sum(value.numel() for value in (*args, output) if isinstance(value, torch.Tensor))
        return output


def work_of(call: Callable[[], object]) -> Work:
    """Count what `call` computes with torch, on any device."""
    with torch.no_grad(), _Counter() as counter:
        call()
    return Work(counter.operations, counter.numbers)


def floor(work: Work, peak: Peak, number_bytes: int) -> Floor:
    """Return the floor of `work` whose numbers take `number_bytes` each."""
    return Floor(work.operations / peak.operations, work.numbers * number_bytes / peak.bytes)


def median_seconds(call: Callable[[], object], device: str, repeats: int = 12, warm_up: int = 2) -> float:
    """Return the median time of `call` with its work on `device` finished."""
    times = []
    for _ in range(warm_up + repeats):
        began = time.perf_counter()
        call()
        if device != "cpu":
            torch.accelerator.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[warm_up:])


def copied_bytes_per_second(device: str = "cpu") -> float:
    """Measure the bytes that a large copy reads and writes in a second, with torch's threads on a CPU."""
    source = torch.ones(COPY_BYTES // 4, device=device)
    target = torch.zeros_like(source)
    return 2 * COPY_BYTES / median_seconds(lambda: target.copy_(source), device)
