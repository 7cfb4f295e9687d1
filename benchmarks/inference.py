"""Compare inference in every precision with torchvision's Mask R-CNN: same weights, one process, in turns.

    python benchmarks/inference.py [--precisions fp32 bf16 int8] [--model NAME] [--images FOLDER] [--rounds 9] [--json]

The worst case of `docs/benchmarks.md`: ResNet-50-FPN, 512 x 512, 1000 proposals, 100 detections, from a decoded uint8
array to boxes, classes, scores and COCO run lengths. torchvision gets two threads; ours uses all cores of the process:
on more than two cores, limit it to two (`taskset`). Weights and batch-norm statistics are random with a fixed seed; the
class layer is scaled to give many detections. The detections of both sides in fp32 are compared before the timing.
`--model` takes another model, such as `nuclei` of the preset `lite`, which torchvision cannot run.

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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from alone import SIZE, theirs_detect
from roofline import Peak, Work, copied_bytes_per_second, floor, work_of
from sides import compare, ours_detect, picture, torchvision_model

from maskrcnn.checkpoints.load import import_checkpoint, load
from maskrcnn.config import Precision
from maskrcnn.deploy import winograd
from maskrcnn.deploy.convert import to_openvino
from maskrcnn.deploy.export import save_bundle
from maskrcnn.deploy.graphs import graphs_of
from maskrcnn.deploy.quantize import quantized, record
from maskrcnn.detection.anchors import POOLED_LEVELS
from maskrcnn.detection.fit import stack
from maskrcnn.detection.pool import BOX_POOL
from maskrcnn.detection.timing import collect
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes import ExportedRuntime
from maskrcnn.inference.runtimes.openvino import float_format, start_compiling
from maskrcnn.inference.timings import noise_picture

THREADS = 2


POOLING_STAGES = ("roi_align", "roi_align for masks")
"""Stages without layers. Their floor counts float32 numbers in every precision; bf16 and int8 move fewer bytes."""


@torch.no_grad()
def stage_work(model: Predictor, proposals: int, detections: int, side: int) -> dict[str, Work]:
    """Count the work of each stage of `maskrcnn.detection.detect` that runs layers or pools, in one picture.

    Pooling boxes reads every map, pooling masks only a part of them, which is not counted; both write their regions.
    """
    network, channels, size = model.model, model.config.model.channels, model.config.model.mask_size
    pixels = torch.zeros(1, 3, side, side)
    features = network.extract(pixels)
    for_boxes = torch.zeros(proposals, channels, BOX_POOL, BOX_POOL)
    for_masks = torch.zeros(detections, channels, size // 2, size // 2)
    labels = torch.ones(detections, dtype=torch.int64)
    maps = sum(f.numel() for f in features[:POOLED_LEVELS])
    return {
        "trunk": work_of(lambda: network.rpn(network.extract(pixels))),
        "roi_align": Work(0, maps + for_boxes.numel()),
        "box head": work_of(lambda: network.box_head(for_boxes)),
        "roi_align for masks": Work(0, for_masks.numel()),
        "mask head": work_of(lambda: network.mask_head(for_masks, labels)),
    }


def convolution_rate(precision: Precision) -> float:
    """Measure the operations per second of a 3x3 convolution of 256 channels on 128 x 128 cells, as on P2."""
    import nncf

    layers = torch.nn.Sequential(*[torch.nn.Conv2d(256, 256, 3, padding=1) for _ in range(3)]).eval()
    example = torch.rand(1, 256, 128, 128)
    graph = ov.convert_model(layers, example_input=example, input=[ov.PartialShape(list(example.shape))])
    if precision == "int8":
        graph = nncf.quantize(graph, nncf.Dataset([example.numpy()]), subset_size=1)
    request = start_compiling({"layers": graph}, float_format(precision)).result()["layers"].create_infer_request()
    times = []
    for _ in range(12):
        began = time.perf_counter()
        request.infer(example.numpy(), share_inputs=True, share_outputs=True)
        times.append(time.perf_counter() - began)
    return 3 * 2 * 256 * 256 * 9 * 128**2 / statistics.median(times[2:])


def measured_peak(precision: Precision) -> Peak:
    """Measure both rates with `THREADS` threads."""
    return Peak(convolution_rate(precision), copied_bytes_per_second())


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


def peak_mb(side: str, model: Path, pictures: Path, *precision: Precision) -> int:
    """Measure the peak memory of one side in a separate process; torchvision's does not import our code."""
    command = [sys.executable, str(Path(__file__).with_name("alone.py")), side, str(model), str(pictures), *precision]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def write_bundle(model: Predictor, pictures: list[np.ndarray], folder: Path) -> None:
    """Export fp32, and int8 calibrated on `pictures`, without a measured cost: only speed matters here."""
    network, convolutions = winograd.split(model.model)
    plain = to_openvino(graphs_of(model.model))
    mean = tuple(model.model.pixel_mean.tolist())
    runtime = ExportedRuntime("openvino", plain, model.config.model, model.conventions, mean)
    fitted = [model.prepare(picture).fitted for picture in pictures]
    inputs = [(stack([f.pixels])[0], np.array([f.window], np.int64)) for f in fitted]
    graphs = {
        "fp32": to_openvino(network),
        "int8": quantized(plain, record(runtime, inputs, model.config.predict)),
    }
    folder.mkdir()
    save_bundle(model, folder, graphs, convolutions, {"runtime": "openvino"})


def processor() -> str:
    """Return the name of the processor."""
    return ov.Core().get_property("CPU", "FULL_DEVICE_NAME")


def largest_differences(model: Predictor, theirs: torch.nn.Module, pictures: list[np.ndarray]) -> dict[str, float]:
    """Compare the detections of both sides in all pictures."""
    checks = [compare(ours_detect(model, p), theirs_detect(theirs, p)) for p in pictures]
    return {
        "detections": min(c["detections"] for c in checks),
        "box_px": max(c["box_px"] for c in checks),
        "score": max(c["score"] for c in checks),
        "mask_iou": min(c["mask_iou"] for c in checks),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--precisions", nargs="+", default=["fp32"], choices=["fp32", "bf16", "fp16", "int8"])
    parser.add_argument("--model", help="a model in place of the random ResNet-50, without torchvision")
    parser.add_argument("--images", type=Path, help="a folder of images in place of synthetic ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    theirs = None if args.model else torchvision_model(args.seed)
    if theirs is None:
        eager = load(args.model, device="cpu", precision="fp32")
    else:
        eager = import_checkpoint(theirs.state_dict(), "torchvision", min_size=SIZE, max_size=SIZE)
    side = len(noise_picture(eager.config.model, eager.conventions))
    pictures = [picture(seed, (side, side)) for seed in range(4)]
    if args.images:
        from maskrcnn.data.images import read_image, resize

        files = sorted(p for p in args.images.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))[:8]
        pictures = [resize(read_image(p), (side, side)) for p in files]
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        bundle, saved, state = (Path(name) / file for file in ("bundle", "pictures.npy", "state.pth"))
        np.save(saved, np.stack(pictures))
        write_bundle(eager, pictures, bundle)
        models = {precision: load(bundle, precision=precision) for precision in args.precisions}
        sides = {name: partial(ours_detect, model) for name, model in models.items()}
        same = None
        if theirs is not None:
            torch.save(theirs.state_dict(), state)
            sides["torchvision"] = partial(theirs_detect, theirs)
            same = largest_differences(models["fp32"], theirs, pictures) if "fp32" in models else None
        for detect in sides.values():
            detect(pictures[0])
        peaks = {precision: [measured_peak(precision)] for precision in models}
        times: dict[str, list[float]] = {name: [] for name in sides}
        seconds: dict[str, dict[str, list[float]]] = {name: {} for name in sides}
        found: dict[str, int] = {}
        for k in range(args.rounds):
            for name, detect in sides.items():
                with collect() as of_stage:
                    began = time.perf_counter()
                    found[name] = len(detect(pictures[k % len(pictures)])[0])
                    times[name].append(time.perf_counter() - began)
                for stage, values in of_stage.items():
                    seconds[name].setdefault(stage, []).extend(values)
        medians = {name: statistics.median(values) for name, values in times.items()}
        for precision in models:
            rates = zip(*peaks[precision], measured_peak(precision), strict=True)
            peak = Peak(*map(statistics.mean, rates))
            work = stage_work(eager, eager.config.model.proposals, found[precision], eager.config.model.image_size)
            number_bytes = {"fp32": 4, "int8": 1}.get(precision, 2)
            stages = stage_rows(work, peak, number_bytes, seconds[precision])
            floor_ms = sum(row["floor_ms"] for row in stages.values())
            results[precision] = {
                "ms": round(1000 * medians[precision], 1),
                "ratio": round(medians["torchvision"] / medians[precision], 3) if theirs else None,
                "floor_ms": round(floor_ms, 1),
                "over_floor": round(1000 * medians[precision] / floor_ms, 3),
                "gflop": round(sum(w.operations for w in work.values()) / 1e9, 1),
                "peak_gflop_s": round(peak.operations / 1e9),
                "peak_gb_s": round(peak.bytes / 1e9, 1),
                "stages": stages,
            }
        if theirs is not None:
            results["torchvision"] = {"ms": round(1000 * medians["torchvision"], 1)}
        if not args.json:
            show(results)
            print("largest differences of fp32 from torchvision:", same or "not compared", flush=True)
        for name, row in results.items():
            alone = ("torchvision", state, saved) if name == "torchvision" else ("ours", bundle, saved, name)
            row["peak_mb"] = peak_mb(*alone)
    if args.json:
        print(json.dumps({"processor": processor(), "same": same, **results}))
        return
    print("peak memory: " + ", ".join(f"{name} {row['peak_mb']} MB" for name, row in results.items()))


def show(results: dict[str, Any]) -> None:
    """Print the times of each side, and the floors of ours."""
    print(processor())
    for name, row in results.items():
        ratio = f", {row['ratio']} times as fast as torchvision" if row.get("ratio") else ""
        print(f"{name}: {row['ms']} ms{ratio}")
        if "stages" not in row:
            continue
        print(
            f"  floor {row['floor_ms']} ms for {row['gflop']} GFLOP, {row['over_floor']} times the floor; "
            f"peak {row['peak_gflop_s']} GFLOP/s and {row['peak_gb_s']} GB/s"
        )
        print(f"  {'stage':<20}{'ms':>9}{'compute':>9}{'memory':>9}{'reached':>9}")
        for stage, values in row["stages"].items():
            reached = f"{values['reached']:.0%}" if values["floor_ms"] else "-"
            print(f"  {stage:<20}{values['ms']:>9}{values['compute_ms']:>9}{values['memory_ms']:>9}{reached:>9}")


if __name__ == "__main__":
    main()
