"""Keep freed memory in the process between training steps on a CPU.

By default, glibc returns each large array to the system when it is freed, and the system zeroes every page of the next
one. That takes a tenth to a third of a step (docs/experiments/allocator.md).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
"""Parameters of mallopt (malloc.h): minimum bytes at the heap's free end that go back to the system; minimum bytes of
an array with a mapping of its own, which goes back when it is freed; maximum number of such mappings."""

KEEP_FREED = {TRIM_THRESHOLD: -1, MMAP_MAX: 0}
"""No trimming and no mappings: nothing goes back."""

GLIBC_DEFAULTS = {TRIM_THRESHOLD: 2**26, MMAP_THRESHOLD: 2**25, MMAP_MAX: 2**16}
"""Defaults of glibc, with the thresholds that it adapts to in a program that frees large arrays."""


@contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[None]:
    """Keep freed memory until the block ends. A no-op off the CPU, without glibc or if the environment tunes malloc."""
    configured = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if device.type != "cpu" or os.name != "posix" or configured or not hasattr(ctypes.CDLL(None), "malloc_trim"):
        yield
        return
    libc = ctypes.CDLL(None)
    _set(libc, KEEP_FREED)
    try:
        yield
    finally:
        _set(libc, GLIBC_DEFAULTS)
        libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, values: dict[int, int]) -> None:
    for name, value in values.items():
        libc.mallopt(name, value)
