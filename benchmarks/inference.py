"""Compare inference with torchvision's Mask R-CNN: same weights, one process, alternating runs.

    python benchmarks/inference.py [--int8] [--images FOLDER] [--rounds 9] [--json]

The worst case of `docs/benchmarks.md`: ResNet-50-FPN, 512 x 512, 1000 proposals, 100 detections, from a decoded uint8
array to boxes, classes, scores and COCO run lengths. torchvision gets two threads; ours uses all cores of the process:
on more than two cores, limit it to two (`taskset`). Weights and batch-norm statistics are random with a fixed seed; the
class layer is scaled to give many detections. The detections of both sides are compared before the timing. The
floor is the number of operations of the network in plain convolutions, divided by the rate at which this machine runs
one large convolution in the same precision and runtime, measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import openvino as ov
import torch
from alone import SIZE, theirs_detect
from sides import compare, operations, ours_detect, picture, torchvision_model

from maskrcnn.checkpoints.load import import_checkpoint, load
from maskrcnn.deploy.convert import to_openvino
from maskrcnn.deploy.export import export, save_bundle
from maskrcnn.deploy.graphs import graphs_of
from maskrcnn.deploy.quantize import quantized, record
from maskrcnn.detection.timing import collect
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes import ExportedRuntime

THREADS = 2


def convolution_rate(int8: bool) -> float:
    """Measure the operations per second of a 3x3 convolution of 256 channels on 128 x 128 cells, as on P2."""
    import nncf

    layers = torch.nn.Sequential(*[torch.nn.Conv2d(256, 256, 3, padding=1) for _ in range(3)]).eval()
    example = torch.rand(1, 256, 128, 128)
    graph = ov.convert_model(layers, example_input=example, input=[ov.PartialShape(list(example.shape))])
    if int8:
        graph = nncf.quantize(graph, nncf.Dataset([example.numpy()]), subset_size=1)
    compiled = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1})
    request = compiled.create_infer_request()
    times = []
    for _ in range(12):
        began = time.perf_counter()
        request.infer(example.numpy(), share_inputs=True, share_outputs=True)
        times.append(time.perf_counter() - began)
    return 3 * 2 * 256 * 256 * 9 * 128**2 / statistics.median(times[2:])


def peak_mb(side: str, model: Path, pictures: Path) -> int:
    """Measure the peak memory of one side in a separate process; torchvision's does not import our code."""
    command = [sys.executable, str(Path(__file__).with_name("alone.py")), side, str(model), str(pictures)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def int8_bundle(model: Predictor, pictures: list[np.ndarray], folder: Path) -> Predictor:
    """Export an int8 bundle calibrated on `pictures`; only its speed matters here."""
    graphs = to_openvino(graphs_of(model.model))
    mean = tuple(model.model.pixel_mean.tolist())
    runtime = ExportedRuntime("openvino", graphs, model.config.model, model.conventions, mean)
    inputs = ((p[None], np.array([[0, 0, p.shape[1], p.shape[0]]])) for p in pictures)
    ranges = record(runtime, inputs, model.config.predict)
    bundle = folder / "int8"
    bundle.mkdir()
    values = {"runtime": "openvino", "precision": "int8", "scores": {}}
    save_bundle(model, bundle, quantized(graphs, ranges), None, values)
    return load(bundle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--int8", action="store_true", help="also measure an int8 bundle")
    parser.add_argument("--images", type=Path, help="a folder of images in place of synthetic ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    theirs = torchvision_model(args.seed)
    eager = import_checkpoint(theirs.state_dict(), "torchvision", min_size=SIZE, max_size=SIZE)
    pictures = [picture(seed) for seed in range(4)]
    if args.images:
        from maskrcnn.data.images import read_image, resize

        files = sorted(p for p in args.images.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))[:8]
        pictures = [resize(read_image(p), (SIZE, SIZE)) for p in files]
    contenders: dict[str, Predictor] = {}
    with tempfile.TemporaryDirectory() as folder:
        saved, state = Path(folder) / "pictures.npy", Path(folder) / "state.pth"
        np.save(saved, np.stack(pictures))
        torch.save(theirs.state_dict(), state)
        export(eager, Path(folder) / "fp32")
        contenders["fp32"] = load(Path(folder) / "fp32")
        if args.int8:
            contenders["int8"] = int8_bundle(eager, pictures, Path(folder))
        results: dict[str, dict] = {}
        for precision, model in contenders.items():
            same = None
            if precision == "fp32":
                checks = [compare(ours_detect(model, p), theirs_detect(theirs, p)) for p in pictures]
                same = {
                    "detections": min(c["detections"] for c in checks),
                    "box_px": max(c["box_px"] for c in checks),
                    "score": max(c["score"] for c in checks),
                    "mask_iou": min(c["mask_iou"] for c in checks),
                }
            times: dict[str, list[float]] = {"ours": [], "torchvision": []}
            for image in pictures:
                ours_detect(model, image)
            rates = [convolution_rate(precision == "int8")]
            with collect() as seconds:
                for k in range(args.rounds):
                    image = pictures[k % len(pictures)]
                    for name, detect in (
                        ("ours", lambda i, m=model: ours_detect(m, i)),
                        ("torchvision", lambda i: theirs_detect(theirs, i)),
                    ):
                        began = time.perf_counter()
                        detections = detect(image)
                        times[name].append(time.perf_counter() - began)
            rates.append(convolution_rate(precision == "int8"))
            ours_s, theirs_s = (statistics.median(times[name]) for name in ("ours", "torchvision"))
            floor = operations(eager, 1000, len(detections[0])) / statistics.mean(rates)
            results[precision] = {
                "ratio": round(theirs_s / ours_s, 3),
                "ours_ms": round(1000 * ours_s, 1),
                "torchvision_ms": round(1000 * theirs_s, 1),
                "floor_ms": round(1000 * floor, 1),
                "over_floor": round(ours_s / floor, 3),
                "gflop": round(operations(eager, 1000, len(detections[0])) / 1e9, 1),
                "stages_ms": {k: round(1000 * statistics.median(v), 2) for k, v in seconds.items()},
                "same": same,
                "ours_peak_mb": peak_mb("ours", Path(folder) / precision, saved),
                "torchvision_peak_mb": peak_mb("torchvision", state, saved),
            }
    if args.json:
        print(json.dumps(results))
        return
    for precision, row in results.items():
        print(
            f"{precision}: ours {row['ours_ms']} ms, torchvision {row['torchvision_ms']} ms, "
            f"{row['ratio']} times as fast; floor {row['floor_ms']} ms for {row['gflop']} GFLOP, "
            f"{row['over_floor']} times the floor"
        )
        print(f"  stages, ms per image: {row['stages_ms']}")
        print(f"  peak memory: ours {row['ours_peak_mb']} MB, torchvision {row['torchvision_peak_mb']} MB")
        if row["same"]:
            print(f"  largest differences from torchvision: {row['same']}", file=sys.stdout)


if __name__ == "__main__":
    main()
