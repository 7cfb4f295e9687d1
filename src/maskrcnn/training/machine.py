"""What the machine decides: on a CUDA GPU, open settings get a larger network and more threads, each with its reason.

`memory.py` decides the batch size, for which it needs the network.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from maskrcnn.config import GPU_PRESET, PRESETS
from maskrcnn.settings import Origin, Settings

MAX_WORKERS = 8
"""Threads that prepare images for a GPU. Between decoding and scaling, Python runs them one at a time."""


@dataclass(frozen=True)
class Machine:
    """Where a process computes: the type of its device, such as "cuda", and the number of its processors."""

    device: str
    processors: int

    @classmethod
    def of(cls, device: str) -> Machine:
        """This process's share of the processors that the system grants to all processes of the run."""
        granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(device, max(granted // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1))


def fit_to_machine(settings: Settings, machine: Machine) -> tuple[Settings, list[str]]:
    """Let `machine` decide the open settings; returns a sentence for each choice. A CPU keeps the defaults."""
    if machine.device != "cuda":
        return settings, []
    reasons = []
    network = PRESETS[GPU_PRESET]
    if settings.is_open(*(f"model.{name}" for name in network["model"])):
        settings = settings.updated(network, Origin.PLAN)
        reasons.append(f"preset {GPU_PRESET}: the default on a GPU; --preset lite trains a smaller network")
    if settings.is_open("train.workers"):
        workers = min(max(machine.processors, settings.config.train.workers), MAX_WORKERS)
        settings = settings.updated({"train": {"workers": workers}}, Origin.PLAN)
        reasons.append(f"workers {workers}: threads that prepare images for the GPU; processors: {machine.processors}")
    return settings, reasons
