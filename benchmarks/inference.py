"""Compare inference with torchvision's Mask R-CNN: same weights, one process, alternating runs.

    python benchmarks/inference.py [--int8] [--images FOLDER] [--rounds 9] [--json]

The worst case of `docs/benchmarks.md`: ResNet-50-FPN, 512 x 512, 1000 proposals, 100 detections, from a decoded uint8
array to boxes, classes, scores and COCO run lengths. torchvision gets two threads; ours uses all cores of the process:
on more than two cores, limit it to two (`taskset`). Weights and batch-norm statistics are random with a fixed seed; the
class layer is scaled to give many detections. The detections of both sides are compared before the timing.

The floor of a stage is the longer of two times (`roofline.py`): its operations at the rate of one large convolution in
the same precision and runtime, and its bytes at the rate of one large copy. Both rates are measured in the same run,
before and after the rounds. "reached" is the floor's share of the measured time.
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
from roofline import Peak, Work, copied_bytes_per_second, floor, work_of
from sides import compare, ours_detect, picture, torchvision_model

from maskrcnn.checkpoints.load import import_checkpoint, load
from maskrcnn.deploy.convert import to_openvino
from maskrcnn.deploy.export import export, save_bundle
from maskrcnn.deploy.graphs import graphs_of
from maskrcnn.deploy.quantize import quantized, record
from maskrcnn.detection.anchors import POOLED_LEVELS
from maskrcnn.detection.pool import BOX_POOL
from maskrcnn.detection.timing import collect
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes import ExportedRuntime

THREADS = 2


POOLING_STAGES = ("roi_align", "roi_align for masks")
"""Stages without layers. Their arrays are float32 in every precision."""


@torch.no_grad()
def stage_work(model: Predictor, proposals: int, detections: int) -> dict[str, Work]:
    """Count the work of each stage of `maskrcnn.detection.detect` that runs layers or pools, in one picture.

    Pooling boxes reads every map, pooling masks only a part of them, which is not counted; both write their regions.
    """
    network, channels, size = model.model, model.config.model.channels, model.config.model.mask_size
    features = network.extract(torch.zeros(1, 3, SIZE, SIZE))
    for_boxes = torch.zeros(proposals, channels, BOX_POOL, BOX_POOL)
    for_masks = torch.zeros(detections, channels, size // 2, size // 2)
    labels = torch.ones(detections, dtype=torch.int64)
    maps = sum(f.numel() for f in features[:POOLED_LEVELS])
    return {
        "trunk": work_of(lambda: network.rpn(network.extract(torch.zeros(1, 3, SIZE, SIZE)))),
        "roi_align": Work(0, maps + for_boxes.numel()),
        "box head": work_of(lambda: network.box_head(for_boxes)),
        "roi_align for masks": Work(0, for_masks.numel()),
        "mask head": work_of(lambda: network.mask_head(for_masks, labels)),
    }


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


def measured_peak(int8: bool) -> Peak:
    """Measure both rates with `THREADS` threads."""
    return Peak(convolution_rate(int8), copied_bytes_per_second())


def stage_rows(
    work: dict[str, Work], peak: Peak, number_bytes: int, seconds: dict[str, list[float]]
) -> dict[str, dict[str, float]]:
    """Return milliseconds and floors of each measured stage; a stage without counted work has a floor of 0."""
    rows = {}
    for name, times in seconds.items():
        compute, memory = floor(work.get(name, Work()), peak, 4 if name in POOLING_STAGES else number_bytes)
        ms, floor_ms = 1000 * statistics.median(times), 1000 * max(compute, memory)
        rows[name] = {
            "ms": round(ms, 2),
            "compute_ms": round(1000 * compute, 2),
            "memory_ms": round(1000 * memory, 2),
            "floor_ms": round(floor_ms, 2),
            "reached": round(floor_ms / ms, 2),
        }
    return rows


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
            peaks = [measured_peak(precision == "int8")]
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
            peaks.append(measured_peak(precision == "int8"))
            ours_s, theirs_s = (statistics.median(times[name]) for name in ("ours", "torchvision"))
            peak = Peak(*(statistics.mean(rates) for rates in zip(*peaks, strict=True)))
            work = stage_work(eager, 1000, len(detections[0]))
            stages = stage_rows(work, peak, 1 if precision == "int8" else 4, seconds)
            floor_ms = sum(row["floor_ms"] for row in stages.values())
            results[precision] = {
                "ratio": round(theirs_s / ours_s, 3),
                "ours_ms": round(1000 * ours_s, 1),
                "torchvision_ms": round(1000 * theirs_s, 1),
                "floor_ms": round(floor_ms, 1),
                "over_floor": round(1000 * ours_s / floor_ms, 3),
                "gflop": round(sum(w.operations for w in work.values()) / 1e9, 1),
                "peak_gflop_s": round(peak.operations / 1e9),
                "peak_gb_s": round(peak.bytes / 1e9, 1),
                "stages": stages,
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
            f"{row['over_floor']} times the floor; peak {row['peak_gflop_s']} GFLOP/s and {row['peak_gb_s']} GB/s"
        )
        print(f"  {'stage':<20}{'ms':>9}{'compute':>9}{'memory':>9}{'reached':>9}")
        for name, stage in row["stages"].items():
            reached = f"{stage['reached']:.0%}" if stage["floor_ms"] else "-"
            print(f"  {name:<20}{stage['ms']:>9}{stage['compute_ms']:>9}{stage['memory_ms']:>9}{reached:>9}")
        print(f"  peak memory: ours {row['ours_peak_mb']} MB, torchvision {row['torchvision_peak_mb']} MB")
        if row["same"]:
            print(f"  largest differences from torchvision: {row['same']}", file=sys.stdout)


if __name__ == "__main__":
    main()
