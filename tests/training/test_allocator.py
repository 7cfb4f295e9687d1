"""What a step frees stays for the next one, and goes back to the system behind the run."""

import ctypes
import platform
import resource

import pytest
import torch

from maskrcnn.training.allocator import freed_memory_kept

CPU = torch.device("cpu")


def new_pages() -> int:
    """Pages that the system hands out while an array of 80 MB is filled four times, behind a few to settle."""
    for k in range(12):
        if k == 8:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(20_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another")
def test_freed_memory_is_kept_and_given_back():
    with freed_memory_kept(CPU):
        assert new_pages() < 1000
    assert new_pages() > 10_000


def test_other_devices_and_libraries_are_left_alone(monkeypatch):
    with freed_memory_kept(torch.device("meta")):
        pass
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    with freed_memory_kept(CPU):
        pass
