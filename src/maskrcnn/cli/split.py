"""``maskrcnn split``."""

from __future__ import annotations

from pathlib import Path

from maskrcnn.cli.common import DataOptions, Seed, say
from maskrcnn.config import VALIDATION_SHARE
from maskrcnn.data.parts import describe_parts, train_and_val
from maskrcnn.errors import UserError, counted
from maskrcnn.files import write_text


def split(
    data: Path, *, out: Path, val: float = VALIDATION_SHARE, seed: Seed = 0, options: DataOptions | None = None
) -> None:
    """Choose validation images, stratified by class, instance count and image size, and write their names.

    Parameters
    ----------
    data
        Annotations: a file or a folder of any format.
    out
        Text file to write, one name on each line. Pass it to maskrcnn train --val-ids.
    val
        Share of the images to choose.
    seed
        Seed of the random choice.
    """
    from maskrcnn.data.split import absent_classes, untrained_classes

    if out.exists():
        raise UserError(f"{out} exists; choose another name for the list")
    if val == 0:
        raise UserError("--val 0 chooses no image; train without validation with maskrcnn train --val 0")
    options = options or DataOptions()
    opened = options.open(data)
    if options.part is None and train_and_val(opened) is not None:
        raise UserError(
            f"{data} is already divided into {describe_parts(opened.part_sizes)}: maskrcnn train validates on its part "
            "val. To divide one part, name it: --part train"
        )
    train_part, val_part = opened.split(val, seed)
    write_text("".join(f"{name}\n" for name in val_part.names), out)
    say(
        f"{out}: {counted(len(val_part), 'image')} with "
        f"{counted(val_part.without_crowd.n_instances, 'instance')} for validation; "
        f"{counted(len(train_part), 'image')} with "
        f"{counted(train_part.without_crowd.n_instances, 'instance')} remain for training"
    )
    for note in filter(None, (untrained_classes(train_part), absent_classes(val_part))):
        say(note)
