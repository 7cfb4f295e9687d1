"""``maskrcnn export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from maskrcnn.cli.common import DataOptions, JsonFlag, print_json, say


def export(
    model: Path,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    runtime: Literal["openvino", "onnx", "torchvision"] = "openvino",
    precision: Literal["fp32", "int8"] = "fp32",
    calibrate: Path | None = None,
    most_loss: float = 1.0,
    whole: Annotated[bool, Parameter(negative="")] = False,
    options: DataOptions | None = None,
    json: JsonFlag = False,
) -> None:
    """Write a model for use without torch, or for torchvision.

    Parameters
    ----------
    model
        Run folder or model file.
    out
        Bundle (a folder) or, for torchvision, a .pth file to write.
    runtime
        What will run it. Bundles of openvino and onnx need no torch.
    precision
        int8 is a quarter of the size, and faster where the processor has VNNI; its cost in AP is measured and shown.
    calibrate
        CSV of masks; some of its images calibrate int8, others measure it.
    most_loss
        Points of AP that int8 may cost; more is refused.
    whole
        Put one ONNX graph from pictures to detections, whole.onnx, into the bundle too.
    json
        Print the measured scores as one JSON object.
    """
    from maskrcnn.checkpoints import load
    from maskrcnn.deploy.export import export as write

    data = (options or DataOptions()).open(calibrate) if calibrate else None
    scores = write(
        load(model, device="cpu"),
        out,
        runtime=runtime,
        precision=precision,
        calibrate=data,
        most_loss=most_loss,
        whole=whole,
        say=say,
    )
    files = [out] if out.is_file() else list(out.iterdir())
    size = sum(file.stat().st_size for file in files)
    say(f"written for {runtime}, {precision}, {size / 1e6:.1f} MB: {out}")
    if json:
        print_json({"out": str(out), "bytes": size, **scores})
