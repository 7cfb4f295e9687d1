"""Checkpoints of other programs: recognise the program, then translate the tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskrcnn.checkpoints import detectron2, matterport, torchvision
from maskrcnn.checkpoints.locate import locate
from maskrcnn.checkpoints.native import Checkpoint
from maskrcnn.checkpoints.published import PUBLISHED, fetch
from maskrcnn.checkpoints.safe_pickle import read_pickle, read_torch
from maskrcnn.config import ImportConfig, set_values, validated
from maskrcnn.errors import UserError

# source -> (a tensor that only this program's Mask R-CNN has, the translation)
SOURCES: dict[str, tuple[str, Callable[[Mapping[str, Any], ImportConfig], Checkpoint]]] = {
    "torchvision": (torchvision.TELLTALE, torchvision.from_torchvision),
    "detectron2": (detectron2.TELLTALE, detectron2.from_detectron2),
    "matterport": (matterport.TELLTALE, matterport.from_matterport),
}
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".tar")
SUFFIXES = (*TORCH_SUFFIXES, ".pkl", ".h5", ".hdf5")


def read_foreign(checkpoint: str | Path | Mapping[str, Any], source: str | None = None, **options: Any) -> Checkpoint:
    """The checkpoint of another program under our names; see `import_checkpoint`. Raises `UserError`."""
    settings = validated(ImportConfig, options, "import options")
    if str(checkpoint) in PUBLISHED:
        published = PUBLISHED[str(checkpoint)]
        defaults = {"class_names": _coco_names(), "norm_eps": published.norm_eps}
        settings = ImportConfig(**{**defaults, **set_values(settings)})
        checkpoint, source = fetch(published), "torchvision"
    state = _read(Path(checkpoint)) if isinstance(checkpoint, str | Path) else dict(checkpoint)
    if source is not None and source not in SOURCES:
        raise UserError(f"there is no source {source!r}; there are {', '.join(SOURCES)}")
    if not state:
        raise UserError("the checkpoint holds no tensors")
    located = locate(state, {name: telltale for name, (telltale, _) in SOURCES.items() if source in (None, name)})
    if located is None:
        raise _unknown(state, source)
    read = SOURCES[located.source][1](located.tensors, settings)
    return replace(read, provenance={**read.provenance, "unused": [*read.provenance["unused"], *located.beside]})


def _coco_names() -> tuple[str, ...]:
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    return tuple(MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"][1:])


def _unknown(state: Mapping[str, Any], source: str | None) -> UserError:
    expected = [f"{telltale} ({name})" for name, (telltale, _) in SOURCES.items() if source in (None, name)]
    return UserError(
        "the checkpoint's tensors are not those of a Mask R-CNN that this package knows. No name in it ends in "
        f"{' or '.join(expected)}. It has, for example, {', '.join(map(str, list(state)[:3]))}"
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    if path.suffix in (".h5", ".hdf5"):
        return matterport.read_h5(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: a checkpoint ends in {', '.join(SUFFIXES)}")
    content = read_torch(path) if path.suffix in TORCH_SUFFIXES else read_pickle(path)
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds no dictionary of tensors but a {type(content).__name__}")
    return dict(content)
