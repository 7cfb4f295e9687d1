"""``maskrcnn benchmark``."""

from __future__ import annotations

import resource
import statistics
import time
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter, validators
from rich.table import Table

from maskrcnn.cli.common import JsonFlag, print_json, say, talk


def benchmark(
    model: Path,
    *,
    picture: Path | None = None,
    rounds: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 10,
    device: str = "auto",
    json: JsonFlag = False,
) -> None:
    """Measure this machine's time and memory for one picture, stage by stage.

    Parameters
    ----------
    model
        Run folder, model file or bundle.
    picture
        What to predict on; by default square noise, of which our own models make an input of their image_size.
    rounds
        Predictions that are timed, after two that are not.
    device
        Where a model with torch runs: auto, cpu, cuda.
    json
        Print one JSON object.
    """
    from maskrcnn.checkpoints import load
    from maskrcnn.data.images import read_image
    from maskrcnn.inference.timing import collect

    began = time.perf_counter()
    predictor = load(model, device=device)
    opening = time.perf_counter() - began
    network = predictor.config.model
    least = network.min_scale if predictor.conventions.resize == "longer" else 0
    side = int(network.image_size / max(least, 1))
    image = (
        read_image(picture) if picture else np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    )
    began = time.perf_counter()
    predictor.predict(image, keep_pixels=False)
    first = time.perf_counter() - began
    predictor.predict(image, keep_pixels=False)
    totals = []
    with collect() as seconds:
        for _ in range(rounds):
            began = time.perf_counter()
            found = predictor.predict(image, keep_pixels=False)
            totals.append(time.perf_counter() - began)
    whole = statistics.median(totals)
    stages = {name: 1000 * sum(times) / rounds for name, times in seconds.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if json:
        print_json(
            {
                "runtime": predictor.runtime.name,
                "ms": 1000 * whole,
                "stages_ms": stages,
                "opening_s": opening,
                "first_s": first,
                "peak_mb": peak,
                "detections": len(found),
            }
        )
        return
    table = Table("stage", "ms", "share", title=f"{model} on {predictor.runtime.name}, {len(found)} detections")
    for name, ms in stages.items():
        table.add_row(name, f"{ms:.1f}", f"{ms / 10 / whole:.0f} %")
    table.add_row("whole (median)", f"{1000 * whole:.1f}", "100 %")
    talk.print(table)
    say(f"opened in {opening:.2f} s, first prediction {first:.2f} s, peak memory {peak:.0f} MB")
