"""``maskrcnn import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from maskrcnn.cli.common import say
from maskrcnn.config import ImportConfig, set_values
from maskrcnn.errors import UserError, counted


def import_(
    checkpoint: Path,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    source: Literal["torchvision", "detectron2", "matterport"] | None = None,
    settings: Annotated[ImportConfig | None, Parameter(name="*")] = None,
) -> None:
    """Turn another program's Mask R-CNN into a model file that gives the same detections here.

    Only arrays and tensors are read from the file: code in it is refused.

    Parameters
    ----------
    checkpoint
        torchvision's .pth or a .ckpt around it, Detectron2's .pkl or .pth, Matterport's .h5.
    out
        Model file to write, ending in .safetensors.
    source
        The program it comes from. Default: recognised by the tensors' names.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"{out}: a model file ends in .safetensors")
    if out.exists():
        raise UserError(f"{out} exists; choose another name")
    from maskrcnn.checkpoints.load import import_checkpoint, save

    options = set_values(settings) if settings else {}
    model = import_checkpoint(checkpoint, source, **options)
    save(model, out)
    source_name, unused = model.provenance["source"], model.provenance["unused"]
    say(
        f"{checkpoint}: a {source_name} Mask R-CNN on {model.config.model.backbone}, "
        f"{counted(len(model.class_ids), 'class', 'classes')} ({model.class_ids[0]} to {model.class_ids[-1]})"
    )
    say(f"every tensor has a place; {len(unused)} are not needed" + (f": {', '.join(unused[:6])}" if unused else ""))
    conventions, predict = model.conventions, model.config.predict
    say(
        f"input {conventions.resize}, {conventions.shorter_side} to {model.config.model.image_size} px; "
        f"score_threshold {predict.score_threshold:g}, nms_threshold {predict.nms_threshold:g}, "
        f"detections {predict.detections}. What the file does not say is {source_name}'s default"
    )
    say(f"model: {out}  (maskrcnn predict --model {out}, maskrcnn train --init {out})")
