"""Measure what a chain of conversions keeps: which steps are exact, and what the others cost in IoU.

    python benchmarks/formats.py DATA [--images FOLDER] [--chain coco yolo label-images csv] [--json]

Each step writes what the step before read, with links to the pictures, and reads it again. A mask is exact if the same
image has the same mask again. The IoU of a mask is that with the most similar mask of the image.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn import Dataset, open_dataset
from maskrcnn.data.convert import convert
from maskrcnn.data.formats import format_module
from maskrcnn.rle import iou_matrix

CHAIN = ("coco", "yolo", "label-images", "csv")


def masks_of(data: Dataset) -> dict[Path, list]:
    """Return the masks of each image by its original picture, which links lead to."""
    return {file.resolve(): data.rles(i) for i, file in enumerate(data.files)}


def compare(before: Dataset, after: Dataset) -> dict[str, Any]:
    """Return how many masks of `before` are exact in `after`, and the best IoU of each."""
    found = masks_of(after)
    n_exact, best = 0, []
    for file, masks in masks_of(before).items():
        others = found.get(file, [])
        n_exact += sum(mask in set(others) for mask in masks)
        best += iou_matrix(masks, others).max(1).tolist() if masks and others else [0.0] * len(masks)
    return {
        "images": len(after),
        "instances": after.n_instances,
        "exact": n_exact / max(len(best), 1),
        "mean_iou": float(np.mean(best)) if best else 1.0,
        "min_iou": min(best, default=1.0),
    }


def measure(data: Dataset, chain: list[str], folder: Path) -> list[dict[str, Any]]:
    """Convert `data` from format to format, and return a row for each step and one for the whole chain."""
    rows, first = [], data
    for k, name in enumerate(chain):
        target = folder / str(k) / f"data{(*format_module(name).SUFFIXES, '')[0]}"
        began = time.perf_counter()
        conversion = convert(data, target, name, pictures="link")
        written = time.perf_counter()
        again = open_dataset(target, format=name, say=lambda line: None)
        row = {"to": name, **compare(data, again), "write_s": written - began, "read_s": time.perf_counter() - written}
        row["lost"] = {trait.name.lower(): n for trait, n in conversion.lost.items()}
        rows.append(row)
        data = again
    return [*rows, {"to": "first to last", **compare(first, data)}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--chain", nargs="+", default=list(CHAIN))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    data = open_dataset(args.data, args.images, say=lambda line: print(line, file=sys.stderr))
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(data, args.chain, Path(folder))
    if args.json:
        print(json.dumps(rows))
        return
    print("| to | images | instances | exact masks | mean IoU | least IoU | write | read | cannot hold |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        seconds = [f"{row[key]:.1f} s" if key in row else "" for key in ("write_s", "read_s")]
        lost = ", ".join(f"{name} ({n:,})" for name, n in row.get("lost", {}).items())
        figures = f"{row['exact']:.2%} | {row['mean_iou']:.5f} | {row['min_iou']:.3f}"
        print(
            f"| {row['to']} | {row['images']:,} | {row['instances']:,} | {figures} | {' | '.join(seconds)} | {lost} |"
        )


if __name__ == "__main__":
    main()
