"""What a step frees stays for the next one, and goes back to the system behind the run."""

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
def nothing_set(monkeypatch):
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
    new_pages(), new_pages()  # the heap settles
    print(new_pages())
    full = resident()
print(full - resident())
"""


def pages(how: str) -> tuple[int, int]:
    """Of a new process: those that it is handed for four arrays of 80 MB, and those that it gives back in the end."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    new, back = done.stdout.split()
    return int(new), int(back)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another")
def test_freed_memory_is_kept_and_given_back():
    kept, back = pages("kept")
    usual, _ = pages("as usual")
    assert kept < usual / 2
    assert back > 10_000


@pytest.mark.parametrize(
    ("device", "library", "variable", "changed"),
    [
        (CPU, SimpleNamespace(malloc_trim=lambda pad: None), "OTHER", 2),
        (CPU, SimpleNamespace(malloc_trim=lambda pad: None), "MALLOC_ARENA_MAX", 0),
        (CPU, SimpleNamespace(), "OTHER", 0),
        (torch.device("meta"), SimpleNamespace(malloc_trim=lambda pad: None), "OTHER", 0),
    ],
    ids=["glibc", "glibc that was set on purpose", "another library", "another device"],
)
def test_where_it_changes_something(monkeypatch, device, library, variable, changed):
    calls = []
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(allocator, "_set", lambda libc, values: calls.append(values))
    monkeypatch.setenv(variable, "2")
    with freed_memory_kept(device):
        pass
    assert len(calls) == changed
