"""`export`: a model as a file or folder for another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from maskrcnn.checkpoints.torchvision import to_torchvision
from maskrcnn.errors import UserError
from maskrcnn.files import atomic
from maskrcnn.inference.predictor import Predictor


def export(predictor: Predictor, out: str | Path, *, runtime: Literal["torchvision"]) -> None:
    """Write `predictor` to `out`, which must not exist.

    "torchvision": a ``.pth`` state dictionary that ``maskrcnn_resnet50_fpn`` or its kin loads; models that came from
    torchvision alone. Raises `UserError`.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"{out} exists; choose another name")
    state = to_torchvision(predictor)
    with atomic(out) as beside:
        torch.save(state, beside)
