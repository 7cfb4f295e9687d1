"""``maskrcnn export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from maskrcnn.cli.common import DataOptions, Json, print_json, say
from maskrcnn.errors import UserError


def export(
    model: Path,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    runtime: Literal["openvino", "onnx", "torchvision"] = "openvino",
    precision: Literal["auto", "fp32", "int8"] = "auto",
    calibrate: Path | None = None,
    max_loss: float = 1.0,
    whole: Annotated[bool, Parameter(negative="")] = False,
    options: DataOptions | None = None,
    json: Json = False,
) -> None:
    """Write a model for use without torch, or for torchvision.

    Parameters
    ----------
    model
        Run folder or model file.
    out
        Bundle (a folder) to write, or a .pth file for torchvision.
    runtime
        Program that will run the model. Bundles for openvino and onnx need no torch.
    precision
        What a bundle stores. auto: fp32, and with --calibrate int8 beside it; a prediction takes the faster one. int8
        alone is about a quarter of the size of fp32.
    calibrate
        Annotations of any format: some of the images calibrate int8, others measure the AP of each precision.
    max_loss
        Maximum loss of AP, in points of 100. If that of int8 is greater, nothing is written. auto never predicts in a
        precision that loses more.
    whole
        Add whole.onnx, one graph from pictures to detections, to the bundle. Needs --runtime onnx.
    json
        Print the path, size and measured scores as one JSON object.
    """
    from maskrcnn.checkpoints.load import load
    from maskrcnn.deploy.export import export as write

    if options is not None and calibrate is None:
        raise UserError("data options such as --images apply to --calibrate; name its annotations, or leave them out")
    data = (options or DataOptions()).open(calibrate) if calibrate else None
    scores = write(
        load(model, device="cpu"),
        out,
        runtime=runtime,
        precision=precision,
        calibrate=data,
        max_loss=max_loss,
        whole=whole,
        say=say,
    )
    files = [out] if out.is_file() else [file for file in out.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    both = precision == "auto" and data is not None
    stored = "fp32 and int8" if both else "int8" if precision == "int8" else "fp32"
    say(f"{out}: written for {runtime}, {stored}, {size / 1e6:.1f} MB")
    if json:
        print_json({"out": str(out), "bytes": size, **scores})
