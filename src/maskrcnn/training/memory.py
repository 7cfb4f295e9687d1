"""Whether a batch fits: what training will hold, counted on a network without numbers, against what is free.

weights, gradients, moments, average + outputs of all layers -> bytes -> images at once
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from maskrcnn.config import Config
from maskrcnn.data.batch import STRIDE
from maskrcnn.model.mask_rcnn import build_model

COPIES_OF_WEIGHTS = 5
"""The weights, their gradients, AdamW's two moments and the running average."""

PART_OF_FREE = 0.7
"""Of what is free. The count was up to 1.3 times what was measured, and never below it (docs/benchmarks.md)."""

FLOAT = 4

MEMINFO, CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
"""Where Linux tells of the machine's memory and of a container's limit (cgroup v2)."""


def fit_to_memory(config: Config, n_classes: int, free: int | None) -> tuple[Config, str | None]:
    """`config`, its batch accumulated image by image where it would not fit into `free` bytes, and why.

    A step keeps its images. A batch that was set on purpose stays, as does any where `free` is not known.
    """
    size = config.train.batch_size
    if free is None or "batch_size" in config.train.model_fields_set:
        return config, None
    side = -(-(config.augment.crop or config.model.image_size) // STRIDE) * STRIDE
    room = free * PART_OF_FREE
    wanted = training_bytes(config, n_classes, size, side)
    if wanted <= room:
        return config, None
    accumulate = size * config.train.accumulate
    told = (
        f"batch_size 1, accumulate {accumulate}: {size} images of {side} x {side} would take about "
        f"{wanted / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
    )
    if training_bytes(config, n_classes, 1, side) > room:
        told += "; even one may be too much, and --crop makes it smaller"
    return config.changed(train={"batch_size": 1, "accumulate": accumulate}), told


def training_bytes(config: Config, n_classes: int, images: int, side: int) -> float:
    """About what training holds with `images` inputs of `side` x `side` pixels, every layer's output in float32."""
    outputs = 0

    def count(_layer: nn.Module, _inputs: tuple, output: Tensor) -> None:
        nonlocal outputs
        outputs += output.numel() if isinstance(output, Tensor) else 0

    with torch.device("meta"), torch.no_grad():
        model = build_model(config.model, n_classes)
        for layer in model.modules():
            if next(layer.children(), None) is None:
                layer.register_forward_hook(count)
        model.rpn(model.extract(torch.empty(1, 3, side, side)))
    weights = sum(parameter.numel() for parameter in model.parameters())
    return FLOAT * (COPIES_OF_WEIGHTS * weights + images * outputs)


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a GPU, or for a CPU on this machine or in its container; None where nobody tells.

    torchrun's processes on one machine have equal parts of the latter.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu" or not MEMINFO.exists():
        return None
    available = int(re.findall(r"MemAvailable:\s+(\d+)", MEMINFO.read_text())[0]) * 1024
    limit = CONTAINER / "memory.max"
    if limit.exists() and limit.read_text().strip() != "max":
        left = int(limit.read_text()) - int((CONTAINER / "memory.current").read_text())
        available = min(available, left)
    return available // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
