"""Models that ship with the package: `maskrcnn.load("nuclei")` works offline right after installation.

models/NAME.safetensors   half-precision weights, for prediction and further training with torch
models/NAME-int8/         int8 bundle of the same model, for prediction without torch
models/NAME.md            model card: data, recipe, scores, limits, hashes
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from maskrcnn.config import PrecisionChoice

FOLDER = Path(__file__).parents[1] / "models"


def shipped_names() -> list[str]:
    """Return the names of all shipped models, sorted."""
    return sorted(path.name.removesuffix(".safetensors") for path in FOLDER.iterdir() if path.suffix != ".md")


def find_shipped(name: str, precision: PrecisionChoice = "auto") -> Path | None:
    """Return the file of the model `name`, for int8 or without torch its bundle; None for an unknown name."""
    if name not in shipped_names():
        return None
    if name.endswith("-int8"):
        return FOLDER / name
    return FOLDER / (f"{name}.safetensors" if find_spec("torch") and precision != "int8" else f"{name}-int8")
