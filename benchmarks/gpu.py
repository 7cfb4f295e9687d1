"""Measure prediction and training on a GPU beside torchvision: same weights, one process, alternating turns.

    python benchmarks/gpu.py --out FOLDER [--device cuda] [--size 800] [--rounds 10] [--seconds 240]

`gpu.sh` calls this after the tests of the GPU. Nothing is downloaded: weights, pictures and masks are random, with a
fixed seed. The result is FOLDER/gpu.json and FOLDER/gpu.md. ``--device cpu --size 160 --rounds 1`` tries the script.

Pictures measure `size` x 5/3 `size`: 800 x 1333, as in Detectron2's published figures. Prediction goes from a decoded
uint8 array to boxes, classes, scores and COCO run lengths, with 1000 proposals and 100 detections. A training step
samples 256 anchors and 512 regions of each image, 128 of which may train the mask head, with AdamW and clipped
gradients; every layer trains except batch norm.

fp32 is without TF32, tf32 with it in convolutions and products of matrices, bf16 under autocast. The roofline is the
rate of one large product of matrices, measured in the same precision and run; a row's share of it is its operations,
as torch's FlopCounterMode counts them, divided by its time and by that rate.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from alone import theirs_detect, theirs_detect_batch
from roofline import copied_bytes_per_second, median_seconds
from sides import alternate, compare, ours_detect, picture, synchronize, torchvision_model
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from maskrcnn.checkpoints.load import import_checkpoint
from maskrcnn.data.dataset import generator
from maskrcnn.data.synthetic import CLASSES, draw_scene
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes.torch import TorchRuntime
from maskrcnn.rle import RunTable
from maskrcnn.settings import Settings
from maskrcnn.structures import Placement, Targets
from training import Sample, Steps, same_losses, twins

HALF = {"fp32": None, "tf32": None, "bf16": torch.bfloat16}
"""The dtype of autocast in each precision."""
WARM_UP = 3
LARGE_BATCH = 8

DETECTRON2 = {
    "model": "Mask R-CNN R50-FPN 3x",
    "train_s_per_iteration": 0.261,
    "predict_s_per_image": 0.043,
    "train_memory_gb": 3.4,
    "hardware": "8 V100, 16 images an iteration (2 a GPU), PyTorch 1.3, fp32",
    "source": "github.com/facebookresearch/detectron2, MODEL_ZOO.md, COCO instance segmentation baselines",
}


def use_tf32(enabled: bool) -> None:
    """Allow or forbid TF32 in products of matrices and convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = enabled
    torch.backends.cudnn.allow_tf32 = enabled


# ---- roofline, memory, waits ----------------------------------------------------------------------------------------


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Measure the operations per second of a product of square matrices."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / median_seconds(lambda: a @ b, device.type)


def held_bytes(tensors: Iterable[Tensor | None]) -> int:
    """Bytes of different tensors."""
    unique = {t.data_ptr(): t.numel() * t.element_size() for t in tensors if t is not None}
    return sum(unique.values())


def trained_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor | None]:
    """Weights, gradients and moments."""
    moments = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
    return [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters()), *moments]


def peak_gb(work: Callable[[], Any], device: torch.device, held_by_others: int) -> float | None:
    """Peak memory of the GPU during `work`, in GB, without what the other side holds."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return round((torch.cuda.max_memory_allocated(device) - held_by_others) / 1e9, 2)


def waits(work: Callable[[], Any], device: torch.device) -> int | None:
    """How often `work` waits for the GPU."""
    if device.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def operations(work: Callable[[], Any]) -> int:
    """Operations of convolutions and products of matrices in `work`, backward passes included."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def measured(
    sides: dict[str, Callable[[int], Any]],
    held: Callable[[], dict[str, int]],
    rounds: int,
    device: torch.device,
    rate: float,
) -> dict[str, Any]:
    """Time both sides in turns; add operations, the share of the roofline, memory and waits of each."""
    seconds = alternate(sides, WARM_UP, rounds, device)
    row: dict[str, Any] = {"ratio": round(seconds["torchvision"] / seconds["ours"], 3)}
    for name, other in (("ours", "torchvision"), ("torchvision", "ours")):
        work = partial(sides[name], 0)
        count = operations(work)
        row[name] = {
            "ms": round(1000 * seconds[name], 2),
            "tflop": round(count / 1e12, 3),
            "share_of_roofline": round(count / seconds[name] / rate, 3),
            "peak_gb": peak_gb(work, device, held()[other]),
            "waits": waits(work, device),
        }
    return row


# ---- prediction -----------------------------------------------------------------------------------------------------


class Prediction:
    """Both sides with the same weights on `device`."""

    def __init__(self, hw: tuple[int, int], device: torch.device, seed: int) -> None:
        self.theirs = torchvision_model(seed, hw)
        sizes = {"min_size": min(hw), "max_size": max(hw)}
        self.imported = import_checkpoint(self.theirs.state_dict(), "torchvision", **sizes)
        self.theirs.to(device)
        self.device = device
        self.pictures = [picture(k, hw) for k in range(LARGE_BATCH)]

    def ours(self, half: torch.dtype | None) -> Predictor:
        model = self.imported
        runtime = TorchRuntime(model.model, self.device, half)
        return Predictor(runtime, model.config, model.class_ids, model.class_names)

    def same(self) -> dict[str, float] | str:
        """Differences between the detections of both sides in fp32."""
        use_tf32(False)
        try:
            checks = [
                compare(ours_detect(self.ours(None), p), theirs_detect(self.theirs, p)) for p in self.pictures[:2]
            ]
        except AssertionError as error:
            return str(error)
        worst = {name: max(c[name] for c in checks) for name in ("box_px", "score")}
        return {**worst, **{name: min(c[name] for c in checks) for name in ("detections", "mask_iou")}}

    def row(self, precision: str, images: int, rounds: int, rate: float) -> dict[str, Any]:
        model, half = self.ours(HALF[precision]), HALF[precision]

        def ours(k: int) -> None:
            batch = self.pictures if images > 1 else [self.pictures[k % len(self.pictures)]]
            for detections in model.predict_many(batch, batch_size=images):
                assert len([rle.to_coco() for rle in detections.rles]) > 0

        def theirs(k: int) -> None:
            batch = self.pictures if images > 1 else [self.pictures[k % len(self.pictures)]]
            with torch.autocast(self.device.type, half, enabled=half is not None):
                theirs_detect_batch(self.theirs, batch)

        networks = {"ours": model.model, "torchvision": self.theirs}
        held = {name: held_bytes([*n.parameters(), *n.buffers()]) for name, n in networks.items()}
        sides = {"ours": ours, "torchvision": theirs}
        return {"images": images, **measured(sides, lambda: held, rounds, self.device, rate)}


# ---- training -------------------------------------------------------------------------------------------------------


def scenes(count: int, hw: tuple[int, int], seed: int) -> list[Sample]:
    """Draw `count` scenes with at least one instance."""
    samples: list[Sample] = []
    number = 0
    while len(samples) < count:
        image, masks, labels = draw_scene(hw, generator(seed, number))
        number += 1
        if masks:
            runs = RunTable.of([mask.runs for mask in masks])
            classes = np.array([1 + CLASSES.index(label) for label in labels], np.int64)
            placement = Placement((0, 0, hw[1], hw[0]), hw)
            samples.append((image, Targets(runs.boxes(hw[0]).astype(np.float32), classes, runs, hw, placement)))
    return samples


class Training:
    """Both sides with the same weights on `device`. A tiny learning rate keeps the weights and the work of a step."""

    def __init__(self, hw: tuple[int, int], device: torch.device, seed: int) -> None:
        self.device, self.hw, self.seed = device, hw, seed
        self.samples = scenes(LARGE_BATCH, hw, seed)

    def same(self) -> dict[str, float]:
        """Relative differences of the five losses of one image, on all anchors and regions, in fp32."""
        use_tf32(False)
        theirs, ours = twins(len(CLASSES), self.seed, self.hw)
        return same_losses(theirs.to(self.device), ours.to(self.device), self.samples[0])

    def row(self, precision: str, images: int, rounds: int, rate: float) -> dict[str, Any]:
        theirs, ours = (model.to(self.device) for model in twins(len(CLASSES), self.seed, self.hw))
        number_format = "bf16" if precision == "bf16" else "fp32"
        values = {"lr": 1e-6, "roi_batch": 512, "mask_batch": 128, "batch_size": images, "precision": number_format}
        config = Settings.build("resnet50").config.changed(train=values)
        steps = Steps(theirs, ours, config, self.samples, images, HALF[precision])

        def held() -> dict[str, int]:
            learner = steps.learner
            average = learner.average.average.values()
            return {
                "ours": held_bytes([*trained_tensors(learner.model, learner.optimizer), *average]),
                "torchvision": held_bytes(trained_tensors(steps.model, steps.optimizer)),
            }

        sides = {"ours": steps.ours, "torchvision": steps.torchvision}
        return {"images": images, **measured(sides, held, rounds, self.device, rate)}


# ---- the report -----------------------------------------------------------------------------------------------------


def described(device: torch.device) -> dict[str, Any]:
    """The machine and its libraries."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    memory = torch.cuda.get_device_properties(device).total_memory / 1e9 if device.type == "cuda" else None
    versions = {"torch": str(torch.__version__), "torchvision": torchvision.__version__, "cuda": torch.version.cuda}
    return {"device": name, "memory_gb": memory and round(memory, 1), **versions}


def as_markdown(result: dict[str, Any]) -> str:
    """The result as a page."""
    machine, peaks = result["machine"], result["peaks"]
    lines = ["# GPU benchmark", ""]
    if machine["device"] == "CPU":
        lines += ["**These are figures of a CPU, made to try the script. They say nothing of a GPU.**", ""]
    lines += [", ".join(f"{name} {value}" for name, value in machine.items() if value), ""]
    rates = ", ".join(f"{name} {value} TFLOP/s" for name, value in peaks.items() if name != "bandwidth_gb_s")
    lines += [f"Measured peaks: {rates}; memory {peaks['bandwidth_gb_s']} GB/s. Pictures of {result['hw']} pixels.", ""]
    columns = ["", "precision", "images", "ours, ms", "torchvision, ms", "ratio"]
    columns += [f"{title}: {side}" for title in ("roofline", "peak GB", "waits") for side in ("ours", "theirs")]
    lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in result["rows"]:
        sides = row["ours"], row["torchvision"]
        cells = [row["what"], row["precision"], row["images"], *(side["ms"] for side in sides), row["ratio"]]
        cells += [side[key] for key in ("share_of_roofline", "peak_gb", "waits") for side in sides]
        lines.append("| " + " | ".join("-" if cell is None else str(cell) for cell in cells) + " |")
    published = result["detectron2"]
    lines += [
        "",
        f"Detectron2 publishes {published['train_s_per_iteration']} s an iteration of training, "
        f"{published['predict_s_per_image']} s an image of prediction and {published['train_memory_gb']} GB for "
        f"{published['model']} on {published['hardware']} ({published['source']}). It was not run here.",
        "",
        f"Largest differences of detections in fp32: {result['same_detections']}.",
        f"Relative differences of losses in fp32: {result['same_losses']}.",
    ]
    if result["skipped"]:
        lines += ["", f"Left out, because the time was over: {', '.join(result['skipped'])}."]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=800, help="shorter side of the pictures")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=240, help="begin no further row after this time")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    started = time.monotonic()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch reports no CUDA GPU; --device cpu --size 160 --rounds 1 tries the script on a CPU")
    hw = args.size, round(args.size * 1333 / 800)
    precisions = ("bf16", "tf32", "fp32") if device.type == "cuda" else ("fp32",)
    rates = {}
    for precision in precisions:
        use_tf32(precision == "tf32")
        rates[precision] = matmul_rate(HALF[precision] or torch.float32, device)
    peaks = {precision: round(rate / 1e12, 2) for precision, rate in rates.items()}
    peaks["bandwidth_gb_s"] = round(copied_bytes_per_second(device.type) / 1e9, 1)
    prediction, training = Prediction(hw, device, args.seed), Training(hw, device, args.seed)
    result: dict[str, Any] = {
        "machine": described(device),
        "hw": f"{hw[0]} x {hw[1]}",
        "peaks": peaks,
        "same_detections": prediction.same(),
        "same_losses": {name: float(f"{value:.1e}") for name, value in training.same().items()},
        "rows": [],
        "skipped": [],
        "detectron2": DETECTRON2,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    sizes = {"predict": (1, LARGE_BATCH), "train": (2, LARGE_BATCH)}
    plan = [(what, precision, sizes[what][k]) for k in range(2) for precision in precisions for what in sizes]
    for what, precision, images in plan:
        title = f"{what} {precision}, {images} images"
        if time.monotonic() - started > args.seconds:
            result["skipped"].append(title)
            continue
        use_tf32(precision == "tf32")
        side = prediction if what == "predict" else training
        row = {"what": what, "precision": precision, **side.row(precision, images, args.rounds, rates[precision])}
        result["rows"].append(row)
        print(f"{title}: ours {row['ours']['ms']} ms, torchvision {row['torchvision']['ms']} ms", flush=True)
        (args.out / "gpu.json").write_text(json.dumps(result, indent=1))
        (args.out / "gpu.md").write_text(as_markdown(result))
    synchronize(device)
    (args.out / "gpu.json").write_text(json.dumps(result, indent=1))
    (args.out / "gpu.md").write_text(as_markdown(result))
    print(f"written: {args.out / 'gpu.md'}, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
