"""The network in torch, on a CPU or a GPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from maskrcnn.config import HALVES, Precision
from maskrcnn.detection.arrays import on_host, to_device
from maskrcnn.detection.detect import Network
from maskrcnn.detection.stages import FLOAT_REGIONS, Array, Observe, Trunk, ignore
from maskrcnn.errors import UserError
from maskrcnn.inference.runtimes import Runtime
from maskrcnn.model.mask_rcnn import MaskRCNN

HALF_TYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def half_precisions(device: torch.device) -> list[Precision]:
    """The half precisions for which torch finds instructions in a device."""
    if device.type == "cuda":
        return ["bf16", "fp16"] if torch.cuda.is_bf16_supported(including_emulation=False) else ["fp16"]
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        supported = {
            "bf16": torch.ops.mkldnn._is_mkldnn_bf16_supported,
            "fp16": torch.ops.mkldnn._is_mkldnn_fp16_supported,
        }
        return [name for name in HALVES if supported[name]()]
    return ["fp16"] if device.type == "mps" else []


def pick_device(name: str) -> torch.device:
    """The device for "auto" or one of torch's names. Raises `UserError` if it cannot be used."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"the device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device


class TorchRuntime(Runtime):
    """Runs `model` on `device`, in evaluation mode. On a GPU, all arrays between the steps stay there.

    The network computes in `autocast_to` where that is safe, or in float32 if it is None. Its outputs are float32.
    """

    name = "torch"
    region_formats = FLOAT_REGIONS

    def __init__(
        self, model: MaskRCNN, device: torch.device | str = "cpu", autocast_to: torch.dtype | None = None
    ) -> None:
        super().__init__(model.config, model.conventions)
        self.device = torch.device(device)
        self.autocast_to = autocast_to
        self.precision = next((name for name in HALVES if HALF_TYPES[name] == autocast_to), "fp32")
        self.model = model.to(self.device).eval()

    def network(self) -> Network:
        """Itself: torch serves any thread."""
        return self

    @torch.no_grad()
    def trunk(self, pixels: np.ndarray, windows: np.ndarray, observe: Observe = ignore) -> Trunk:
        images = self.model.normalize(to_device(pixels, self.device), to_device(windows, self.device))
        if self.model.conventions.planar:
            images = images.contiguous()
        with self._autocast():
            features, rpn = self.model(images, observe)
        return self.model.trunk(features, rpn.float(), (pixels.shape[1], pixels.shape[2]))

    @torch.no_grad()
    def box_head(self, pooled: Array) -> tuple[Array, Array]:
        with self._autocast():
            class_logits, box_deltas = self.model.box_head(self._channels_first(pooled))
        return on_host(class_logits.float()), on_host(box_deltas.float())

    @torch.no_grad()
    def mask_head(self, pooled: Array, labels: Array) -> Array:
        with self._autocast():
            logits = self.model.mask_head(self._channels_first(pooled), to_device(labels, self.device))
        return on_host(logits.float())

    def _channels_first(self, pooled: Array) -> Tensor:
        """(R, S, S, C) -> (R, C, S, S), a view."""
        return to_device(pooled, self.device).permute(0, 3, 1, 2)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.autocast_to, enabled=self.autocast_to is not None)
