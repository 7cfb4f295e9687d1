"""Whether a batch fits: what training holds, counted on a copy of the network without numbers, and what is free.

weights, gradients, moments, average + outputs of backbone, pyramid and RPN -> bytes -> images at once
"""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from maskrcnn.config import Config
from maskrcnn.data.batch import STRIDE
from maskrcnn.model.layers import norms
from maskrcnn.model.mask_rcnn import MaskRCNN

COPIES_OF_WEIGHTS = 6
"""The weights, their gradients, AdamW's two moments, the running average, and the network that is validated."""

PART_OF_FREE = 0.7
"""Of what is free; the heads, the data and other programs need some, too."""

FLOAT = 4

MEMINFO, CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
"""Where Linux tells of the machine's memory and of a container's limit (cgroup v2)."""


def fit_to_memory(config: Config, model: MaskRCNN, free: int | None) -> tuple[Config, str | None]:
    """`config`, its batch accumulated image by image where it would not fit into `free` bytes, and why.

    A step keeps its images. What was set on purpose stays, as does any batch where `free` is not known or whose size
    matters to the result: that of a batch norm that is not frozen.
    """
    size, chosen = config.train.batch_size, {"batch_size", "accumulate"} & config.train.model_fields_set
    batch_counts = any(p.requires_grad for layer in norms(model) for p in layer.parameters())
    if free is None or chosen or batch_counts:
        return config, None
    side = -(-(config.augment.crop or config.model.image_size) // STRIDE) * STRIDE
    room = free * PART_OF_FREE
    wanted = training_bytes(model, size, side)
    if wanted <= room:
        return config, None
    told = (
        f"batch_size 1, accumulate {size}: {size} images of {side} x {side} would take about {wanted / 1e9:.1f} GB, "
        f"and {free / 1e9:.1f} GB are free"
    )
    if training_bytes(model, 1, side) > room:
        told += "; even one may be too much, and --crop makes it smaller"
    return config.changed(train={"batch_size": 1, "accumulate": size}), told


def training_bytes(model: MaskRCNN, images: int, side: int) -> float:
    """About what training holds with `images` inputs of `side` x `side` pixels, all of it in float32."""
    outputs = 0

    def count(_layer: nn.Module, _inputs: tuple, output: Tensor) -> None:
        nonlocal outputs
        outputs += output.numel() if isinstance(output, Tensor) else 0

    twin = copy.deepcopy(model).to("meta")
    for layer in twin.modules():
        if next(layer.children(), None) is None:
            layer.register_forward_hook(count)
    with torch.no_grad():
        twin.rpn(twin.extract(torch.empty(1, 3, side, side, device="meta")))
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
    available = _number(MEMINFO, "MemAvailable:") * 1024
    limit = CONTAINER / "memory.max"
    if limit.exists() and limit.read_text().strip() != "max":
        # Files that the kernel keeps in memory count as used there, and give way when they must.
        used = int((CONTAINER / "memory.current").read_text()) - _number(CONTAINER / "memory.stat", "inactive_file")
        available = min(available, max(int(limit.read_text()) - used, 0))
    return available // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _number(path: Path, name: str) -> int:
    """The number behind `name` in a table of the kernel's, in the unit that the table has."""
    return int(re.findall(rf"^{name}\s+(\d+)", path.read_text(), re.MULTILINE)[0])
