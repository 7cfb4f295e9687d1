"""Compare image-by-image prediction, from files to a submission and overlays, with `predict_many` and its writer.

    python benchmarks/throughput.py MODEL PICTURES... [--rounds 3] [--no-overlays] [--json]

Both read the same files with the same model in one process, in alternation, and write the same results. Rates come from
median times. `one` reads, predicts and writes an image before it opens the next.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import maskrcnn
from maskrcnn.inference.outputs import Writer
from maskrcnn.inference.predictor import Predictor


def one_after_the_other(model: Predictor, pictures: list[Path], out: Path, overlays: bool) -> None:
    """Read, predict and write each image before the next one is read."""
    writer = Writer(out, overlays=overlays, labels=False, with_class=False)
    with writer.open(submission=True, coco=False):
        for path in pictures:
            writer.add(Path(path.name), path.name, model.predict(path, keep_pixels=overlays))
            writer.wait()


def streamed(model: Predictor, pictures: list[Path], out: Path, overlays: bool) -> None:
    """Predict and write in a stream, as `maskrcnn predict` does."""
    writer = Writer(out, overlays=overlays, labels=False, with_class=False)
    with writer.open(submission=True, coco=False):
        stream = model.predict_many(pictures, keep_pixels=overlays)
        for path, detections in zip(pictures, stream, strict=True):
            writer.add(Path(path.name), path.name, detections)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-overlays", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model = maskrcnn.load(options.model)
    methods = {"one": one_after_the_other, "streamed": streamed}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    written: dict[str, bytes] = {}
    for round_number in range(options.rounds + 1):
        for name, method in methods.items():
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                method(model, options.pictures, Path(folder), not options.no_overlays)
                if round_number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - began)
                written[name] = (Path(folder) / "submission.csv").read_bytes()
    rates = {name: len(options.pictures) / statistics.median(times) for name, times in seconds.items()}
    result = {
        "pictures": len(options.pictures),
        "one_per_second": rates["one"],
        "streamed_per_second": rates["streamed"],
        "ratio": rates["streamed"] / rates["one"],
        "same_submission": written["one"] == written["streamed"],
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"one after the other {rates['one']:.2f}, streamed {rates['streamed']:.2f} images per second")
    print(f"ratio {result['ratio']:.2f}; same submission: {result['same_submission']}")


if __name__ == "__main__":
    main()
