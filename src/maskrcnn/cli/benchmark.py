"""``maskrcnn benchmark``."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators
from rich.table import Table

from maskrcnn.cli.common import Json, Model, PrecisionOption, print_json, say, talk, whole_number
from maskrcnn.errors import counted


def benchmark(
    model: Model,
    *,
    picture: Path | None = None,
    rounds: Annotated[int, Parameter(converter=whole_number, validator=validators.Number(gte=1))] = 10,
    device: str = "auto",
    precision: PrecisionOption = "auto",
    json: Json = False,
) -> None:
    """Measure the time and memory of one prediction on this machine, stage by stage.

    Parameters
    ----------
    picture
        Picture to predict on. Default: square noise, which models trained here see at their image_size.
    rounds
        Number of timed predictions. They follow two untimed ones.
    device
        Where a model that needs torch runs: auto, cpu, cuda, cuda:1 or mps.
    json
        Print the times, the memory and the number of detections as one JSON object.
    """
    from maskrcnn.checkpoints.load import load
    from maskrcnn.data.images import read_image
    from maskrcnn.detection.timing import collect
    from maskrcnn.inference.timings import noise_picture

    began = time.perf_counter()
    predictor = load(model, device=device, precision=precision, say=say)
    load_seconds = time.perf_counter() - began
    noise = noise_picture(predictor.config.model, predictor.conventions)
    image = read_image(picture, predictor.reading) if picture else noise
    began = time.perf_counter()
    predictor.predict(image, keep_pixels=False)
    first_seconds = time.perf_counter() - began
    predictor.predict(image, keep_pixels=False)
    total_seconds = []
    with collect() as stage_seconds:
        for _ in range(rounds):
            began = time.perf_counter()
            detections = predictor.predict(image, keep_pixels=False)
            total_seconds.append(time.perf_counter() - began)
    median_ms = 1000 * statistics.median(total_seconds)
    stages_ms = {name: 1000 * sum(seconds) / rounds for name, seconds in stage_seconds.items()}
    peak_mb = _peak_megabytes()
    if json:
        print_json(
            {
                "runtime": predictor.runtime.name,
                "precision": predictor.runtime.precision,
                "ms": median_ms,
                "stages_ms": stages_ms,
                "opening_s": load_seconds,
                "first_s": first_seconds,
                "peak_mb": peak_mb,
                "detections": len(detections),
            }
        )
        return
    where = f"{predictor.runtime.name} in {predictor.runtime.precision}"
    table = Table("stage", "ms", "share", title=f"{model} on {where}, {counted(len(detections), 'detection')}")
    for name, ms in stages_ms.items():
        table.add_row(name, f"{ms:.1f}", f"{100 * ms / median_ms:.0f} %")
    table.add_row("total (median)", f"{median_ms:.1f}", "100 %")
    talk.print(table)
    peak = "" if peak_mb is None else f", peak memory {peak_mb:.0f} MB"
    say(f"loaded in {load_seconds:.2f} s, first prediction {first_seconds:.2f} s{peak}")


def _peak_megabytes() -> float | None:
    """Return the largest resident memory of this process so far, or None on Windows, where Python cannot tell."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    bytes_per_unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * bytes_per_unit / 2**20
