"""Measure the resident memory while thousands of images are predicted and written as by `maskrcnn predict`.

    python benchmarks/soak.py MODEL PICTURES... [--images 10000] [--no-overlays] [--json]

The images repeat and their overlays are overwritten. Memory is read ten times; "grown_mb" is the growth after the first
tenth, in which kernels are compiled for every image shape.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import maskrcnn
from maskrcnn.inference.outputs import Writer

READINGS = 10


def resident_mb() -> float:
    """Return the resident memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=10_000, help="at least 10")
    parser.add_argument("--no-overlays", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.images < READINGS:
        parser.error(f"--images must be at least {READINGS}")
    overlays, n_pictures = not options.no_overlays, len(options.pictures)
    model = maskrcnn.load(options.model)
    readings = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(Path(folder), overlays=overlays, labels=False, with_class=False)
        with writer.open(submission=True, coco=True):
            stream = model.predict_many(islice(cycle(options.pictures), options.images), keep_pixels=overlays)
            for number, detections in enumerate(stream, 1):
                writer.add(Path(f"{number % n_pictures}.png"), f"{number}.png", detections)
                if number * READINGS // options.images > len(readings):
                    readings.append(round(resident_mb(), 1))
    seconds = time.perf_counter() - began
    result = {
        "images": options.images,
        "a_second": round(options.images / seconds, 1),
        "resident_mb": readings,
        "grown_mb": round(readings[-1] - readings[0], 1),
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"{options.images} images, {result['a_second']} per second; resident memory after each tenth, in MB:")
    print(", ".join(map(str, readings)))
    print(f"grown by {result['grown_mb']} MB after the first tenth")


if __name__ == "__main__":
    main()
