"""Model files: our own, and those of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn.checkpoints.bundle import is_bundle, read_bundle
from maskrcnn.checkpoints.shipped import find_shipped, shipped_names
from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from maskrcnn.inference.predictor import Predictor

RUN_FILES = ("best.safetensors", "last.safetensors")


def load(path: str | Path, *, device: str = "auto") -> Predictor:
    """A model ready to predict, from a run folder (its best, else its last weights), a model file or a bundle.

    "nuclei" and "nuclei-int8" come with the package; a file or folder of that name goes first. `device` is "auto",
    "cpu", "cuda", "cuda:1" or "mps". Raises `UserError`.
    """
    path = Path(path)
    if not path.exists():
        path = find_shipped(str(path)) or path
    if is_bundle(path):
        return read_bundle(path)
    if path.is_dir():
        found = next((path / name for name in RUN_FILES if (path / name).exists()), None)
        if found is None:
            raise UserError(f"{path} is neither a run folder nor a bundle: it holds neither {' nor '.join(RUN_FILES)}")
        path = found
    if not path.exists():
        raise UserError(
            f"{path}: there is no such run folder or model file, and no such model comes with the package; "
            f"{' and '.join(shipped_names())} do"
        )
    if path.suffix != ".safetensors":
        raise UserError(
            f"{path}: a model is a run folder or a .safetensors file; maskrcnn import {path} -o NAME.safetensors makes "
            "one of another program's checkpoint"
        )
    from maskrcnn.checkpoints.native import read_model

    return read_model(path, device)
