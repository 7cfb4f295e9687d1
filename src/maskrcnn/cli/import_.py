"""``maskrcnn import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from maskrcnn.cli.common import say
from maskrcnn.errors import UserError


def import_(
    checkpoint: Path,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    source: Literal["torchvision"] | None = None,
    class_names: tuple[str, ...] = (),
    min_size: int = 800,
    max_size: int = 1333,
    score_threshold: float = 0.05,
) -> None:
    """Turn a checkpoint of torchvision's Mask R-CNN into a model file that gives the same detections here.

    Only arrays and tensors are read from the file: code in it is refused.

    Parameters
    ----------
    checkpoint
        The .pth file: a state dictionary of maskrcnn_resnet50_fpn or of any ResNet with a plain feature pyramid.
    out
        Model file to write, ending in .safetensors.
    source
        The program it comes from; found out when not given.
    class_names
        Names of the classes without the background.
    min_size
        Shorter side that pictures are scaled to.
    max_size
        Limit of the longer side.
    score_threshold
        Lowest score of a detection.
    """
    from maskrcnn.checkpoints.foreign import import_checkpoint
    from maskrcnn.checkpoints.native import save

    if out.suffix != ".safetensors":
        raise UserError(f"{out}: a model file ends in .safetensors")
    if out.exists():
        raise UserError(f"{out} exists; choose another name")
    model = import_checkpoint(
        checkpoint,
        source,
        class_names=list(class_names) or None,
        min_size=min_size,
        max_size=max_size,
        score_threshold=score_threshold,
    )
    save(model, out)
    say(
        f"{checkpoint}: torchvision's Mask R-CNN on {model.config.model.backbone}, "
        f"{len(model.class_ids)} classes; every tensor has its place"
    )
    say(f"model: {out}")
