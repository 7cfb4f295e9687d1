"""Measure run-length masks: parsing a CSV column, encoding dense arrays, removing overlaps, polygons, label pictures.

    python benchmarks/rle.py [--only parse|encode|overlaps|polygons|outlines|labels] [--json]

Parsing takes a million rows of about twenty runs each. Encoding compares `RLE.from_mask` with pycocotools and
faster-coco-eval, which read arrays in column-major (Fortran) order only: from row-major order, the usual one of images,
their time includes `np.asfortranarray`. Overlaps are removed from discs in an image of 2048 x 2048. Polygons are
rasterised in one table of many and by pycocotools one after the other, from lists of numbers. Medians.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from faster_coco_eval.core import mask as faster_coco_mask
from pycocotools import mask as coco_mask

from maskrcnn import RLE
from maskrcnn.labels import label_masks, paint_labels
from maskrcnn.polygons import join_rings, rasterize_polygons
from maskrcnn.rle import RunTable, parse_column, remove_overlaps

ROWS, RUNS, SIDE, REPEATS = 1_000_000, 20, 512, 3
ENCODED_SIDES = (64, 256, 1024, 2048)
OVERLAP_SIDE, OVERLAP_COUNTS = 2048, (1000, 5000, 20_000)
POLYGONS = ((8, 10, 1_000_000), (20, 15, 1_000_000), (60, 60, 100_000))
"""Vertices, radius in pixels and number of polygons."""


def make_column(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a thousand different masks, repeated, as one text with offsets."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(1000):
        steps = rng.integers(2, SIDE * SIDE // RUNS // 2, (RUNS, 2))
        edges = np.cumsum(steps.ravel())
        texts.append(" ".join(f"{a} {b - a}" for a, b in zip(edges[::2], edges[1::2], strict=True)).encode())
    column = texts * (ROWS // len(texts))
    return np.frombuffer(b"".join(column), np.uint8), np.concatenate([[0], np.cumsum([len(t) for t in column])])


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Call once to warm up, then return the median time of `repeats` calls."""
    call()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def parse() -> list[dict]:
    """Parse the column; the peak memory is that of the process."""
    text, offsets = make_column(0)
    n_pixels = np.full(ROWS, SIDE * SIDE)
    table, bad = parse_column(text, offsets, n_pixels)
    if bad or len(table) != ROWS:
        sys.exit(f"the column did not parse: {bad[:1]}")
    n_runs = len(table.runs)
    del table
    seconds = median_seconds(lambda: parse_column(text, offsets, n_pixels), REPEATS)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [{"rows": ROWS, "runs": n_runs, "seconds": seconds, "peak_mb": peak_mb}]


def dense_masks(side: int) -> dict[str, np.ndarray]:
    """Return a disc of 12 % of the side, a pattern over half the image, and noise, (H, W) uint8."""
    y, x = np.mgrid[:side, :side]
    return {
        "disc": (np.hypot(y - 0.4 * side, x - 0.6 * side) < 0.06 * side).astype(np.uint8),
        "pattern": (np.sin(x / 9) + np.sin(y / 7) > 0).astype(np.uint8),
        "noise": np.random.default_rng(0).integers(0, 2, (side, side), np.uint8),
    }


def encode() -> list[dict]:
    """Encode masks in both memory orders by the three libraries, microseconds a mask."""
    rows = []
    for side in ENCODED_SIDES:
        for name, mask in dense_masks(side).items():
            fortran = np.asfortranarray(mask)
            expected = coco_mask.encode(fortran)["counts"].decode()
            if not RLE.from_mask(mask).to_coco()["counts"] == RLE.from_mask(fortran).to_coco()["counts"] == expected:
                sys.exit(f"{name}, {side}: the encodings differ")
            calls: dict[str, Callable[[], object]] = {
                "row-major, ours": lambda m=mask: RLE.from_mask(m),
                "row-major, ours to COCO": lambda m=mask: RLE.from_mask(m).to_coco(),
                "row-major, pycocotools": lambda m=mask: coco_mask.encode(np.asfortranarray(m)),
                "row-major, faster-coco-eval": lambda m=mask: faster_coco_mask.encode(np.asfortranarray(m)),
                "column-major, ours": lambda m=fortran: RLE.from_mask(m),
                "column-major, pycocotools": lambda m=fortran: coco_mask.encode(m),
                "column-major, faster-coco-eval": lambda m=fortran: faster_coco_mask.encode(m),
            }
            repeats = max(9, min(1000, 20_000_000 // side**2))
            times = {label: round(1e6 * median_seconds(call, repeats), 1) for label, call in calls.items()}
            rows.append({"mask": name, "side": side, **times})
    return rows


def discs(n: int, seed: int) -> list[RLE]:
    """Return discs of radius 8 to 25 pixels at random places."""
    rng = np.random.default_rng(seed)
    side, masks = OVERLAP_SIDE, []
    for _ in range(n):
        radius, (cy, cx) = rng.uniform(8, 25), rng.uniform(25, side - 25, 2)
        columns = np.arange(int(cx - radius) + 1, int(cx + radius) + 1)
        half = np.sqrt(radius**2 - (columns - cx) ** 2)
        top, bottom = np.ceil(cy - half).astype(np.int64), np.floor(cy + half).astype(np.int64) + 1
        runs = np.stack([columns * side + top, bottom - top], 1)
        masks.append(RLE(runs[bottom > top], (side, side)))
    return masks


def overlaps() -> list[dict]:
    """Remove the overlaps of discs, milliseconds an image."""
    rows = []
    for n in OVERLAP_COUNTS:
        masks = discs(n, 0)
        seconds = median_seconds(lambda m=masks: remove_overlaps(m, range(len(m)), 0.5), 9)
        rows.append({"masks": n, "runs": sum(len(m.runs) for m in masks), "ms": round(1000 * seconds, 1)})
    return rows


def blobs(n: int, n_vertices: int, radius: float, side: int, seed: int) -> np.ndarray:
    """Return star-shaped polygons (n, vertices, 2) at random places of a picture."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, (n, n_vertices)), 1)
    radii = radius * rng.uniform(0.6, 1.2, (n, n_vertices, 1))
    return rng.uniform(0, side, (n, 1, 2)) + radii * np.stack([np.cos(angles), np.sin(angles)], -1)


def polygons() -> list[dict]:
    """Rasterise polygons, microseconds each."""
    rows = []
    hw = (SIDE, SIDE)
    for n_vertices, radius, n in POLYGONS:
        shapes = blobs(n, n_vertices, radius, SIDE, 0)
        arrays = (shapes.reshape(-1, 2), n_vertices * np.arange(n + 1), np.arange(n + 1))
        sample = shapes[:5000].reshape(5000, -1).tolist()
        table, bad = rasterize_polygons(*arrays, hw)
        for i, polygon in enumerate(sample[:500]):
            expected = coco_mask.frPyObjects([polygon], *hw)[0]["counts"].decode()
            if bad or RLE(table[i], hw).to_coco()["counts"] != expected:
                sys.exit(f"{n_vertices} vertices: the masks differ")
        table_seconds = median_seconds(lambda a=arrays: rasterize_polygons(*a, hw), 3)
        calls: dict[str, Callable[[], object]] = {
            "RLE.from_polygons": lambda s=sample: [RLE.from_polygons([polygon], hw) for polygon in s],
            "pycocotools": lambda s=sample: [coco_mask.frPyObjects([polygon], *hw) for polygon in s],
        }
        times = {label: round(1e6 * median_seconds(call, 5) / len(sample), 2) for label, call in calls.items()}
        row = {"vertices": n_vertices, "radius": radius, "polygons": n, "table": round(1e6 * table_seconds / n, 2)}
        rows.append(row | times)
    return rows


def outlines() -> list[dict]:
    """Trace masks of 1024 x 1024 and join their rings, milliseconds a mask."""
    rows = []
    for name, mask in dense_masks(1024).items():
        rle = RLE.from_mask(mask)
        rings = [ring for part in rle.to_polygons() for ring in (part.outer, *part.holes)]
        if RLE.from_polygons([join_rings(rings)], rle.hw) != rle:
            sys.exit(f"{name}: the outline draws another mask")
        trace, join = median_seconds(rle.to_polygons, 9), median_seconds(lambda r=rings: join_rings(r), 9)
        rows.append(
            {"mask": name, "rings": len(rings), "points": sum(len(r) for r in rings)}
            | {"trace_ms": round(1000 * trace, 2), "join_ms": round(1000 * join, 2)}
        )
    return rows


def labels() -> list[dict]:
    """Read a label picture of 2048 x 2048 into masks and paint it back, milliseconds a picture."""
    rows = []
    for n in OVERLAP_COUNTS[:2]:
        masks = RunTable.of(mask.runs for mask in discs(n, 0))
        picture = paint_labels(masks, np.arange(1, n + 1, dtype=np.uint16), (OVERLAP_SIDE, OVERLAP_SIDE))
        values, found = label_masks(picture)
        numbers, sample = values.astype(np.uint16), values[:50]
        calls: dict[str, Callable[[], object]] = {
            "read": lambda p=picture: label_masks(p),
            "paint": lambda m=found, v=numbers, hw=picture.shape: paint_labels(m, v, hw),
        }
        times = {f"{label}_ms": round(1000 * median_seconds(call, 9), 2) for label, call in calls.items()}
        seconds = median_seconds(
            lambda p=picture, s=sample: [coco_mask.encode(np.asfortranarray(p == v, np.uint8)) for v in s], 3
        )
        rows.append(
            {"labels": len(values)} | times | {"pycocotools_ms": round(1000 * seconds / len(sample) * len(values), 1)}
        )
    return rows


def main() -> None:
    parts = {
        "parse": parse,
        "encode": encode,
        "overlaps": overlaps,
        "polygons": polygons,
        "outlines": outlines,
        "labels": labels,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=parts)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = {name: part() for name, part in parts.items() if args.only in (None, name)}
    if args.json:
        print(json.dumps(results))
        return
    for name, rows in results.items():
        print(name)
        for row in rows:
            print(
                "  "
                + ", ".join(
                    f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
                )
            )


if __name__ == "__main__":
    main()
