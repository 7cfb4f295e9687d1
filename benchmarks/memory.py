"""Measure the peak resident memory of training on crowded images and of opening a large CSV.

    python benchmarks/memory.py [--json] [--preset lite] [--steps 4]

train: images of 2048 x 2048 with 1,000 discs each, crops of 512 x 512 at full scale, batch 2.
open: a CSV of 100,000 instances in 1,000 images of 512 x 512.
Each runs in a separate process; "imports_mb" is its peak before the work starts.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def disc(x: int, y: int, radius: int, height: int) -> str:
    """Return the EncodedPixels of a disc around (x, y) in an image of the given height."""
    columns = np.arange(-radius, radius + 1)
    half = np.floor(np.sqrt(radius**2 - columns**2)).astype(int)
    starts = (x + columns) * height + y - half + 1
    return " ".join(f"{start} {length}" for start, length in zip(starts, 2 * half + 1, strict=True))


def write_data(folder: Path, pictures: int, side: int, discs: int) -> Path:
    """Write noise images to images/ and a train.csv of discs on a jittered grid; return the CSV."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    cells = int(np.ceil(np.sqrt(discs)))
    pitch = side // cells
    rows = ["ImageId,EncodedPixels"]
    noise = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (side, side, 3), np.uint8)).save(noise, "PNG", compress_level=1)
    for k in range(pictures):
        (folder / "images" / f"{k}.png").write_bytes(noise.getvalue())
        for n in range(discs):
            x, y = (int(c * pitch + pitch // 2 + rng.integers(-2, 3)) for c in divmod(n, cells))
            rows.append(f"{k}.png,{disc(x, y, pitch // 3, side)}")
    (folder / "train.csv").write_text("\n".join(rows) + "\n")
    return folder / "train.csv"


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def open_large(csv: Path) -> dict[str, Any]:
    import maskrcnn

    open_dataset, imports_mb = maskrcnn.open_dataset, peak_mb()  # the attribute imports the module
    began = time.perf_counter()
    data = open_dataset(csv, say=lambda _: None)
    seconds = time.perf_counter() - began
    return {"instances": data.n_instances, "seconds": round(seconds, 2), "imports_mb": imports_mb, "peak_mb": peak_mb()}


def train_crowded(csv: Path, preset: str, steps: int) -> dict[str, Any]:
    import maskrcnn

    data, train, imports_mb = maskrcnn.open_dataset(csv, say=lambda _: None), maskrcnn.train, peak_mb()
    from maskrcnn.settings import Settings

    config = Settings.build(preset).config.changed(
        model={"weights": "none"},
        train={"epochs": 1, "epoch_images": 2 * steps, "freeze_norm": True},
        augment={"scale": (4.0, 4.0)},
    )
    began = time.perf_counter()
    train(data, None, out=csv.parent / "run", config=config)
    seconds = time.perf_counter() - began
    return {
        "instances_an_image": int(data.counts.max()),
        "seconds": round(seconds, 2),
        "imports_mb": imports_mb,
        "peak_mb": peak_mb(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--preset", default="lite")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--only", choices=["open", "train"])
    parser.add_argument("--csv", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.csv is not None:
        measured = open_large(args.csv) if args.only == "open" else train_crowded(args.csv, args.preset, args.steps)
        print(json.dumps(measured))
        return
    result = {}
    for task, size in {"open": (1000, 512, 100), "train": (2, 2048, 1000)}.items():
        if args.only in (None, task):
            with tempfile.TemporaryDirectory() as folder:
                csv = write_data(Path(folder) / "data", *size)
                child = [sys.executable, __file__, "--only", task, "--csv", str(csv), "--preset", args.preset]
                done = subprocess.run([*child, "--steps", str(args.steps)], stdout=subprocess.PIPE, check=True)
                result[task] = {k: round(v, 2) for k, v in json.loads(done.stdout).items()}
    print(json.dumps(result) if args.json else "\n".join(f"{k}: {v}" for k, v in result.items()))


if __name__ == "__main__":
    main()
