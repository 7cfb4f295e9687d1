"""Checkpoints of other programs: whose is it, and what does it become here?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskrcnn.checkpoints.safe_pickle import read_pickle, read_torch
from maskrcnn.checkpoints.torchvision import from_torchvision
from maskrcnn.errors import UserError
from maskrcnn.inference.predictor import Predictor

# A tensor that only this program's Mask R-CNN has.
TELLTALE = {
    "torchvision": "roi_heads.box_predictor.cls_score.weight",
    "detectron2": "proposal_generator.rpn_head.conv.weight",
}


def import_checkpoint(
    checkpoint: str | Path | Mapping[str, Any], source: str | None = None, **options: Any
) -> Predictor:
    """A model that gives the detections that `checkpoint` gave where it comes from.

    `checkpoint` is a ``.pth``, ``.pt`` or ``.pkl`` file or a state dictionary; `source` is guessed from its keys when
    None. Only "torchvision" can be read so far: ResNets with a plain feature pyramid, whose class ids stay
    torchvision's. `options` are those of `from_torchvision`: class_names, min_size, max_size, score_threshold,
    nms_threshold, detections_per_image, anchor_sizes, anchor_ratios. Raises `UserError`.
    """
    state = _read(Path(checkpoint)) if isinstance(checkpoint, str | Path) else dict(checkpoint)
    for wrapper in ("model", "state_dict", "model_state_dict"):
        if isinstance(state.get(wrapper), Mapping):
            state = dict(state[wrapper])
    found = source or next((name for name, key in TELLTALE.items() if key in state), None)
    if found is None:
        raise UserError("the checkpoint's tensors are not those of a Mask R-CNN that is known here; say its source")
    if found != "torchvision":
        raise UserError(f"checkpoints of {found} cannot be read yet; those of torchvision can")
    return from_torchvision(state, **options)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    content = read_pickle(path) if path.suffix == ".pkl" else read_torch(path)
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds no dictionary of tensors but a {type(content).__name__}")
    return dict(content)
