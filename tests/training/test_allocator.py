"""Freed memory stays in the process during a run and goes back to the system at its end."""

import ctypes
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from maskrcnn.training import allocator
from maskrcnn.training.allocator import freed_memory_kept

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def unconfigured(monkeypatch):
    for name in list(os.environ):
        if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES":
            monkeypatch.delenv(name)


PROGRAM = """
import resource, sys, torch
from contextlib import nullcontext
from maskrcnn.training.allocator import freed_memory_kept

def resident():
    return int(open("/proc/self/statm").read().split()[1])

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(20_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with freed_memory_kept(torch.device("cpu")) if sys.argv[1] == "kept" else nullcontext():
    new_pages(), new_pages()  # warm up the heap
    print(new_pages())
    full = resident()
print(full - resident())
"""


def count_pages(mode: str) -> tuple[int, int]:
    """Return the pages that a new process gets for four arrays of 80 MB, and those that it returns at the end."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
    new, returned = done.stdout.split()
    return int(new), int(returned)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept_and_then_returned():
    new_when_kept, returned = count_pages("kept")
    new_by_default, _ = count_pages("default")
    assert new_when_kept < new_by_default / 2
    assert returned > 10_000


@pytest.mark.parametrize(
    ("device", "library", "variable", "n_changes"),
    [
        (CPU, SimpleNamespace(malloc_trim=lambda pad: None), "OTHER", 2),
        (CPU, SimpleNamespace(malloc_trim=lambda pad: None), "MALLOC_ARENA_MAX", 0),
        (CPU, SimpleNamespace(), "OTHER", 0),
        (torch.device("meta"), SimpleNamespace(malloc_trim=lambda pad: None), "OTHER", 0),
    ],
    ids=["glibc", "configured glibc", "another library", "another device"],
)
def test_only_an_unconfigured_glibc_changes(monkeypatch, device, library, variable, n_changes):
    calls = []
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(allocator, "_set", lambda libc, values: calls.append(values))
    monkeypatch.setenv(variable, "2")
    with freed_memory_kept(device):
        pass
    assert len(calls) == n_changes
