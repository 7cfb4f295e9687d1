"""Fit the batch to the free memory: estimate what training holds, with a copy of the network on the meta device.

weights, gradients, moments, average + outputs of backbone, pyramid and RPN -> bytes -> images per batch
"""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from maskrcnn.detection.fit import STRIDE, round_up
from maskrcnn.model.layers import norms
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.settings import Origin, Settings

GPU_BATCHES = (8, 4)
"""Batch sizes that are tried for a GPU, before the default. A larger batch means fewer steps in an epoch."""

COPIES_OF_WEIGHTS = 6
"""The weights, their gradients, AdamW's two moments, the moving average, and the network under validation."""

USABLE_FRACTION = 0.7
"""Fraction of the free memory that the estimate may reach; the heads, the data and other programs need the rest."""

FLOAT_BYTES = 4

MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
"""Memory of the machine and limits of the container (cgroup v2), on Linux."""


def fit_to_memory(settings: Settings, model: MaskRCNN, device: str, free: int | None) -> tuple[Settings, str | None]:
    """Fit the batch to the `free` bytes of a type of device; return the changed settings and the reason.

    On a GPU ("cuda") it grows to the largest of `GPU_BATCHES` that fits. A batch that does not fit is accumulated image
    by image: the number of images per step stays the same. That changes the result of a batch norm that is trained, so
    it then stays. Return `settings` and None if nothing changes, if `free` is unknown, or if the user set the batch
    size or the accumulation.
    """
    config = settings.config
    batch_size = config.train.batch_size
    if free is None or not settings.is_open("train.batch_size", "train.accumulate"):
        return settings, None
    side = round_up(config.augment.crop or config.model.image_size, STRIDE)
    usable = free * USABLE_FRACTION
    for larger in GPU_BATCHES if device == "cuda" else ():
        if (needed := training_bytes(model, larger, side)) <= usable:
            return settings.updated({"train": {"batch_size": larger}}, Origin.PLAN), (
                f"batch_size {larger}: images of {side} x {side}, about {needed / 1e9:.1f} of the GPU's free "
                f"{free / 1e9:.1f} GB"
            )
    if any(p.requires_grad for layer in norms(model) for p in layer.parameters()):
        return settings, None
    needed = training_bytes(model, batch_size, side)
    if needed <= usable:
        return settings, None
    reason = (
        f"batch_size 1, accumulate {batch_size}: {batch_size} images of {side} x {side} would take about "
        f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
    )
    if training_bytes(model, 1, side) > usable:
        reason += "; even one image may be too much: use a smaller --crop"
    return settings.updated({"train": {"batch_size": 1, "accumulate": batch_size}}, Origin.PLAN), reason


def training_bytes(model: MaskRCNN, images: int, side: int) -> float:
    """Estimate the bytes that training holds in float32 with `images` inputs of `side` x `side` pixels."""
    outputs = 0

    def count(_layer: nn.Module, _inputs: tuple, output: Tensor) -> None:
        nonlocal outputs
        outputs += output.numel() if isinstance(output, Tensor) else 0

    meta_model = copy.deepcopy(model).to("meta")
    for layer in meta_model.modules():
        if next(layer.children(), None) is None:
            layer.register_forward_hook(count)
    with torch.no_grad():
        meta_model.rpn(meta_model.extract(torch.empty(1, 3, side, side, device="meta")))
    weights = sum(parameter.numel() for parameter in model.parameters())
    return FLOAT_BYTES * (COPIES_OF_WEIGHTS * weights + images * outputs)


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a GPU, or for a CPU this process's share of the machine's or container's; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu" or not MEMINFO.exists():
        return None
    available = _read_number(MEMINFO, "MemAvailable:") * 1024
    limit = CGROUP / "memory.max"
    if limit.exists() and limit.read_text().strip() != "max":
        # The cgroup counts cached files as used, but the kernel evicts them on demand.
        used = int((CGROUP / "memory.current").read_text()) - _read_number(CGROUP / "memory.stat", "inactive_file")
        available = min(available, max(int(limit.read_text()) - used, 0))
    return available // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _read_number(path: Path, name: str) -> int:
    """Return the number after `name` in a kernel table, in the table's unit."""
    return int(re.findall(rf"^{name}\s+(\d+)", path.read_text(), re.MULTILINE)[0])
