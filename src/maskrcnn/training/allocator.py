"""Memory that a step gives back and the next one asks for again, kept in between.

glibc returns large arrays to the system at once, and the system clears every page of the next one: a tenth to a third
of a training step on a CPU (docs/benchmarks.md).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
"""Parameters of mallopt (malloc.h): from how many bytes on the heap's free end goes back; from how many on an array
has a mapping of its own, which goes back at once; and how many may have one."""

KEPT = {TRIM_THRESHOLD: -1, MMAP_MAX: 0}
"""Nothing goes back."""

USUAL = {TRIM_THRESHOLD: 2**26, MMAP_THRESHOLD: 2**25, MMAP_MAX: 2**16}
"""glibc's own; the thresholds are those that it ends up with in a program that frees large arrays."""


@contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[None]:
    """Inside, the C library keeps what is freed, for a CPU's work; behind it, that goes back to the system.

    Does nothing where the library is not glibc, or where the environment has settings for it.
    """
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if device.type != "cpu" or os.name != "posix" or chosen or not hasattr(ctypes.CDLL(None), "malloc_trim"):
        yield
        return
    libc = ctypes.CDLL(None)
    _set(libc, KEPT)
    try:
        yield
    finally:
        _set(libc, USUAL)
        libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, values: dict[int, int]) -> None:
    for name, value in values.items():
        libc.mallopt(name, value)
