"""Images a second and peak memory as batches, processes and pictures grow: ours in some precisions, and torchvision.

    python benchmarks/capacity.py [--precisions fp32 int8] [--batches 1 4 16 64] [--pixels 256 512 1024 2048] [--json]

ResNet-50-FPN with 1000 proposals and 100 detections a picture, random weights, as in `inference.py`. Every measurement
is a process of its own, so that its peak memory is its own. One process has two threads; two processes have one thread
each and work at the same time. Rates come from the median of three batches after a warm-up, of one for 64 pictures. A
process that fails, for example because it needs more than `MEMORY_LIMIT`, has its error in the row.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from alone import CLASSES, SIZE, theirs_detect_batch

MEMORY_LIMIT = 20 * 2**30
"""Bytes of address space that a measured process may take."""

THREADS = 2


def measured(program: str, model: Path, pixels: int, batch: int) -> None:
    """Predict batches, and print seconds of a batch, peak memory in MB and detections of a picture as JSON."""
    pictures = np.load(model / f"pictures-{pixels}.npy")
    pictures = [pictures[k % len(pictures)] for k in range(batch)]
    predict = theirs_predictor(model, pixels) if program == "torchvision" else ours_predictor(model, pixels, program)
    found = predict(pictures)
    print("ready", flush=True)
    sys.stdin.readline()
    times = []
    for _ in range(3 if batch < 64 else 1):
        began = time.perf_counter()
        found = predict(pictures)
        times.append(time.perf_counter() - began)
    peak_kb = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
    print(json.dumps({"seconds": statistics.median(times), "peak_mb": peak_kb // 1024, "found": found / batch}))


def ours_predictor(folder: Path, pixels: int, precision: Any) -> Any:
    import maskrcnn

    model = maskrcnn.load(folder / f"bundle-{pixels}", precision=precision)

    def predict(pictures: list[np.ndarray]) -> int:
        found = model.predict_many(pictures, batch_size=len(pictures))
        return sum(len([rle.to_coco() for rle in detections.rles]) for detections in found)

    return predict


def theirs_predictor(folder: Path, pixels: int) -> Any:
    import torch
    from torchvision.models import detection

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES + 1, min_size=pixels, max_size=pixels
    )
    model.load_state_dict(torch.load(folder / "state.pth", weights_only=True, mmap=True), assign=True)
    model.eval()
    return lambda pictures: sum(len(result[0]) for result in theirs_detect_batch(model, pictures))


def measure(program: str, folder: Path, pixels: int, batch: int, processes: int) -> dict[str, Any]:
    """Run `processes` at the same time; return the sum of their rates and of their peaks."""
    threads = str(max(THREADS // processes, 1))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}
    command = [sys.executable, __file__, "--measure", program, str(folder / "models"), str(pixels), str(batch)]
    cores = sorted(os.sched_getaffinity(0))
    children = []
    for k in range(processes):
        share = cores[:THREADS] if processes == 1 else cores[k : k + 1]
        pinned = ["taskset", "-c", ",".join(map(str, share)), *command]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        children.append(subprocess.Popen(pinned, env=environment, **pipes))
    ready = all(child.stdout.readline() == "ready\n" for child in children)
    results, errors = zip(*(child.communicate("go\n" if ready else None) for child in children), strict=True)
    row = {"program": program, "pixels": pixels, "batch": batch, "processes": processes}
    if not ready or any(child.returncode for child in children):
        lines = [text.strip().splitlines()[-1] for text in errors if text.strip()]
        return row | {"images_s": None, "peak_mb": None, "found": None, "error": lines[:1]}
    values = [json.loads(text) for text in results]
    return row | {
        "images_s": round(sum(batch / v["seconds"] for v in values), 2),
        "peak_mb": sum(v["peak_mb"] for v in values),
        "found": round(statistics.mean(v["found"] for v in values), 1),
    }


def write_models(folder: Path, all_pixels: list[int], seed: int) -> None:
    """Write torchvision's weights, a bundle for each size of picture, and pictures."""
    import torch
    from sides import picture, torchvision_model

    from inference import write_bundle
    from maskrcnn.checkpoints.load import import_checkpoint

    folder.mkdir()
    theirs = torchvision_model(seed)
    torch.save(theirs.state_dict(), folder / "state.pth")
    for pixels in all_pixels:
        np.save(folder / f"pictures-{pixels}.npy", np.stack([picture(k, (pixels, pixels)) for k in range(4)]))
    model = import_checkpoint(theirs.state_dict(), "torchvision", min_size=SIZE, max_size=SIZE)
    write_bundle(model, [picture(k) for k in range(4)], folder / "bundle")
    for pixels in all_pixels:  # the graphs take inputs of any size
        resized = import_checkpoint(theirs.state_dict(), "torchvision", min_size=pixels, max_size=pixels)
        shutil.copytree(folder / "bundle", folder / f"bundle-{pixels}")
        file = folder / f"bundle-{pixels}" / "model.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | resized.description.to_dict()))


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        program, model, pixels, batch = sys.argv[2:]
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        measured(program, Path(model), int(pixels), int(batch))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"], choices=["fp32", "bf16", "fp16", "int8"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--pixels", nargs="+", type=int, default=[256, 512, 1024, 2048])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    points = [(SIZE, batch, 1) for batch in args.batches] + [(SIZE, 1, 2)]
    points += [(pixels, 1, 1) for pixels in args.pixels if pixels != SIZE]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        write_models(Path(name) / "models", sorted({SIZE, *args.pixels}), args.seed)
        for (pixels, batch, processes), program in product(points, ["torchvision", *args.precisions]):
            rows.append(measure(program, Path(name), pixels, batch, processes))
            if not args.json:
                print(rows[-1], flush=True)
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
