"""Checkpoints of other programs: whose is it, and what does it become here?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from maskrcnn.checkpoints import detectron2, matterport, torchvision
from maskrcnn.checkpoints.published import PUBLISHED, fetch
from maskrcnn.checkpoints.safe_pickle import read_pickle, read_torch
from maskrcnn.config import ImportConfig, explain
from maskrcnn.errors import UserError
from maskrcnn.inference.predictor import Predictor

# source -> (a tensor that only this program's Mask R-CNN has, the reader)
SOURCES: dict[str, tuple[str, Callable[[Mapping[str, Any], ImportConfig], Predictor]]] = {
    "torchvision": (torchvision.TELLTALE, torchvision.from_torchvision),
    "detectron2": (detectron2.TELLTALE, detectron2.from_detectron2),
    "matterport": (matterport.TELLTALE, matterport.from_matterport),
}
SUFFIXES = (".pth", ".pt", ".pkl", ".h5", ".hdf5")
WRAPPERS = ("model", "state_dict", "model_state_dict")
"""Where training scripts put the weights beside the optimizer's state."""


def import_checkpoint(
    checkpoint: str | Path | Mapping[str, Any], source: str | None = None, **options: Any
) -> Predictor:
    """A model that gives the detections that `checkpoint` gave where it comes from.

    `checkpoint` is a ``.pth``, ``.pt``, ``.pkl`` or ``.h5`` file, a dictionary of arrays or tensors, or "coco" or
    "coco-v2": what torchvision published, fetched when it is not there yet. `source` is
    "torchvision", "detectron2" or "matterport", guessed from the names of the tensors when None. `options` are the
    fields of `maskrcnn.config.ImportConfig`. Class ids stay those of the source: 1 to K - 1 for torchvision and
    Matterport, 0 to K - 1 for Detectron2. ``provenance["unused"]`` lists the tensors that no model needs. Nothing but
    arrays is read from a file. Raises `UserError`, for a tensor that is missing, unknown or misshapen too.
    """
    try:
        settings = ImportConfig.model_validate(options)
    except ValidationError as error:
        raise UserError(f"import options: {explain(error, list(ImportConfig.model_fields))}") from None
    if str(checkpoint) in PUBLISHED:
        published = PUBLISHED[str(checkpoint)]
        asked = settings.model_dump(exclude_unset=True)
        settings = ImportConfig(**{"class_names": _coco_names(), "norm_eps": published.norm_eps, **asked})
        checkpoint, source = fetch(published), "torchvision"
    state = _read(Path(checkpoint)) if isinstance(checkpoint, str | Path) else dict(checkpoint)
    for wrapper in WRAPPERS:
        if isinstance(state.get(wrapper), Mapping):
            state = dict(state[wrapper])
    if not state:
        raise UserError("the checkpoint holds no tensors")
    source = source or _guess(state)
    if source not in SOURCES:
        raise UserError(f"there is no source {source!r}; there are {', '.join(SOURCES)}")
    return SOURCES[source][1](state, settings)


def _coco_names() -> tuple[str, ...]:
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    return tuple(MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"][1:])


def _guess(state: Mapping[str, Any]) -> str:
    for name, (telltale, _) in SOURCES.items():
        if telltale in state or f"module.{telltale}" in state:
            return name
    raise UserError(
        "the checkpoint's tensors are not those of a Mask R-CNN that is known here: none is called "
        + ", ".join(f"{telltale} ({name})" for name, (telltale, _) in SOURCES.items())
        + f". It has, for example, {', '.join(list(state)[:3])}"
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    if path.suffix in (".h5", ".hdf5"):
        return matterport.read_h5(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: a checkpoint ends in {', '.join(SUFFIXES)}")
    content = read_pickle(path) if path.suffix == ".pkl" else read_torch(path)
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds no dictionary of tensors but a {type(content).__name__}")
    return dict(content)
