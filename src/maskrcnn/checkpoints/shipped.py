"""Models that come with the package: `maskrcnn.load("nuclei")` works offline right after installation.

models/NAME.safetensors   weights in half precision, to predict with and to go on from where torch is installed
models/NAME-int8/         a bundle of the same model, for where it is not
models/NAME.md            its card: data, recipe, scores, limits, hashes
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "models"


def shipped_names() -> list[str]:
    """Every name that `load` knows."""
    return sorted(path.name.removesuffix(".safetensors") for path in FOLDER.iterdir() if path.suffix != ".md")


def find_shipped(name: str) -> Path | None:
    """File or bundle of the model `name`, where there is no torch its int8 bundle; None for an unknown name."""
    if name not in shipped_names():
        return None
    if name.endswith("-int8"):
        return FOLDER / name
    return FOLDER / (f"{name}.safetensors" if find_spec("torch") else f"{name}-int8")
