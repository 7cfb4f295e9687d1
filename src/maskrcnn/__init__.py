"""Mask R-CNN from images and run-length masks to a trained, scored and deployed model.

Public names are imported at first use: ``import maskrcnn`` itself loads neither torch nor numba.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskrcnn.checkpoints.load import import_checkpoint, load
    from maskrcnn.config import Config
    from maskrcnn.data.formats import open_dataset
    from maskrcnn.data.table import Dataset
    from maskrcnn.deploy.export import export
    from maskrcnn.errors import ImageError, UserError
    from maskrcnn.evaluation import evaluate
    from maskrcnn.rle import RLE, RLEError, iou_matrix
    from maskrcnn.structures import Detections
    from maskrcnn.training.loop import train

__version__ = "0.1.0"

_HOME = {
    "RLE": "maskrcnn.rle",
    "RLEError": "maskrcnn.rle",
    "Config": "maskrcnn.config",
    "Dataset": "maskrcnn.data.table",
    "Detections": "maskrcnn.structures",
    "ImageError": "maskrcnn.errors",
    "UserError": "maskrcnn.errors",
    "export": "maskrcnn.deploy.export",
    "evaluate": "maskrcnn.evaluation",
    "import_checkpoint": "maskrcnn.checkpoints.load",
    "iou_matrix": "maskrcnn.rle",
    "load": "maskrcnn.checkpoints.load",
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
