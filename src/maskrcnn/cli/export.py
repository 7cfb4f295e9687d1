"""``maskrcnn export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from maskrcnn.cli.common import say


def export(
    model: Path,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    runtime: Literal["torchvision"],
) -> None:
    """Write a model for use without this package.

    Parameters
    ----------
    model
        Run folder or model file.
    out
        File to write.
    runtime
        What will run it: "torchvision" makes a .pth that its own model loads.
    """
    from maskrcnn.checkpoints import load
    from maskrcnn.checkpoints.export import export as write

    write(load(model, device="cpu"), out, runtime=runtime)
    say(f"written for {runtime}: {out}")
