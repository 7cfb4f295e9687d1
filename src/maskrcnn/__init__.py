"""Mask R-CNN from images and run-length masks to a trained, scored and deployed model.

The public names are imported when they are first used: ``import maskrcnn`` itself loads neither torch nor numba.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskrcnn.checkpoints import load
    from maskrcnn.checkpoints.foreign import import_checkpoint
    from maskrcnn.config import Config
    from maskrcnn.data.formats import open_dataset
    from maskrcnn.data.images import ImageError
    from maskrcnn.data.table import Dataset
    from maskrcnn.deploy.export import export
    from maskrcnn.errors import UserError
    from maskrcnn.evaluation import evaluate
    from maskrcnn.rle import RLE, RLEError, iou_matrix
    from maskrcnn.structures import Detections
    from maskrcnn.training.loop import train

__version__ = "0.1.0"

# OpenVINO and NNCF report their use over the network, at import and from a forked process. Where this package of
# theirs is missing they do not; a program that has imported them before has decided for itself.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

_HOME = {
    "RLE": "maskrcnn.rle",
    "RLEError": "maskrcnn.rle",
    "Config": "maskrcnn.config",
    "Dataset": "maskrcnn.data.table",
    "Detections": "maskrcnn.structures",
    "ImageError": "maskrcnn.data.images",
    "UserError": "maskrcnn.errors",
    "export": "maskrcnn.deploy.export",
    "evaluate": "maskrcnn.evaluation",
    "import_checkpoint": "maskrcnn.checkpoints.foreign",
    "iou_matrix": "maskrcnn.rle",
    "load": "maskrcnn.checkpoints",
    "open_dataset": "maskrcnn.data.formats",
    "train": "maskrcnn.training.loop",
}

__all__ = [
    "RLE",
    "Config",
    "Dataset",
    "Detections",
    "ImageError",
    "RLEError",
    "UserError",
    "evaluate",
    "export",
    "import_checkpoint",
    "iou_matrix",
    "load",
    "open_dataset",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'maskrcnn' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
