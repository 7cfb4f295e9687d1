"""Measure the time and peak memory to parse and validate a million rows of about twenty runs each.

python benchmarks/rle.py [--json]
"""

import json
import resource
import statistics
import sys
import time

import numpy as np

from maskrcnn.rle import parse_column

ROWS, RUNS, SIDE, REPEATS = 1_000_000, 20, 512, 3


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


def main() -> None:
    text, offsets = make_column(0)
    n_pixels = np.full(ROWS, SIDE * SIDE)
    parse_column(text, offsets[:3], n_pixels[:2])  # compile
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        table, bad = parse_column(text, offsets, n_pixels)
        times.append(time.perf_counter() - began)
        if bad or len(table) != ROWS:
            sys.exit(f"the column did not parse: {bad[:1]}")
    result = {
        "rows": ROWS,
        "runs": len(table.runs),
        "seconds": statistics.median(times),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if "--json" in sys.argv:
        print(json.dumps(result))
    else:
        print(
            f"{result['rows']:,} rows, {result['runs']:,} runs: {result['seconds']:.2f} s (median of {REPEATS}), "
            f"{result['peak_mb']:.0f} MB peak memory"
        )


if __name__ == "__main__":
    main()
