"""Seconds of a training step of a preset in fp32, in bf16, and with depthwise convolutions, if any, in bf16 too.

    python benchmarks/bf16.py --data dsb2018/train.csv --images dsb2018/images [--preset resnet50]

The three take the same steps in turn. Processor seconds of one thread depend little on what else the machine does.
`--layers` times each kind of convolution and linear layer instead, forward and backward, on the inputs of one step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from pathlib import Path
from unittest import mock

import numba
import torch
from torch import Tensor, nn

import maskrcnn
from maskrcnn.data.batch import Batch
from maskrcnn.data.table import Dataset
from maskrcnn.detection.conventions import NATIVE
from maskrcnn.model.layers import convolutions
from maskrcnn.model.mask_rcnn import build_model
from maskrcnn.settings import Settings
from maskrcnn.training import learner
from maskrcnn.training.allocator import freed_memory_kept
from maskrcnn.training.distributed import World
from maskrcnn.training.learner import Learner
from maskrcnn.training.plan import fill_in
from training import SIZE, batch_of, samples_of


def learner_of(data: Dataset, preset: str, precision: str, seed: int) -> Learner:
    """A learner of a preset. A tiny learning rate keeps the work of a step constant.

    The weights of `lite` are those of ImageNet. Other presets get random weights; their batch norm is frozen too.
    """
    train = {"lr": 1e-6, "seed": seed, "precision": precision}
    config = Settings.build(preset).config.changed(model={"image_size": SIZE}, train=train)
    settings, _ = fill_in(Settings.of(config), data)
    torch.manual_seed(seed)
    model = build_model(settings.config.model, len(data.class_ids), NATIVE)
    if preset == "lite":
        model.backbone.load_weights("imagenet")
    return Learner(model, settings.config.train, World())


def time_steps(learners: dict[str, Learner], batches: list[Batch], rounds: int) -> None:
    """Print the medians of `rounds` steps, after one that compiles and allocates."""
    wall, processor = defaultdict(list), defaultdict(list)
    for k in range(rounds + 1):
        for name, side in learners.items():
            began = time.perf_counter(), time.process_time()
            side.learn(batches[k % len(batches)], k, 10**6)
            wall[name].append(time.perf_counter() - began[0])
            processor[name].append(time.process_time() - began[1])
    for name in learners:
        seconds, processor_seconds = (statistics.median(times[name][1:]) for times in (wall, processor))
        print(f"{name}: {seconds:.2f} s a step, {processor_seconds:.2f} processor seconds", flush=True)


def time_layers(side: Learner, batch: Batch) -> None:
    """Print milliseconds of each kind of layer of a bf16 learner: as it is under autocast, and in fp32."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def time_layer(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        for column, half in enumerate((True, False)):
            sums[kind_of(layer)][column] += 1e3 * min(seconds_of_passes(layer, inputs[0], half) for _ in range(2))

    hooks = [m.register_forward_hook(time_layer) for m in side.model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    side.learn(batch, 0, 10**6)
    for hook in hooks:
        hook.remove()
    for kind, (half, single) in sums.items():
        print(f"{kind}: {half:.0f} ms in bf16, {single:.0f} ms in fp32")


def kind_of(layer: nn.Module) -> str:
    if not isinstance(layer, nn.Conv2d):
        return "linear"
    size, stride = layer.kernel_size[0], layer.stride[0]
    return f"{'depthwise ' if layer.groups > 1 else ''}{size}x{size}, stride {stride}"


def seconds_of_passes(layer: nn.Module, x: Tensor, half: bool) -> float:
    """Processor seconds of a pass forward and, if it has a gradient, backward; in fp32 with casts to and from bf16."""
    x = x.detach().requires_grad_(x.requires_grad)
    torch.clear_autocast_cache()
    began = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        output = layer.forward(x if half else x.float()).to(torch.bfloat16)
    if output.requires_grad:
        sources = [tensor for tensor in (x, *layer.parameters()) if tensor.requires_grad]
        torch.autograd.grad(output, sources, torch.ones_like(output))
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a CSV of EncodedPixels")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--preset", default="lite")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    numba.set_num_threads(args.threads)
    data = maskrcnn.open_dataset(args.data, images=args.images)
    samples = samples_of(data, 8)
    batches = [batch_of(samples[k : k + 2], k) for k in range(0, 8, 2)]
    with mock.patch.object(learner, "keep_depthwise_in_float32"):
        all_half = learner_of(data, args.preset, "bf16", args.seed)
    with freed_memory_kept(torch.device("cpu")):
        if args.layers:
            time_layers(all_half, batches[0])
        else:
            learners = {name: learner_of(data, args.preset, name, args.seed) for name in ("fp32", "bf16")}
            if any(layer.groups > 1 for layer in convolutions(all_half.model)):
                learners["bf16, depthwise too"] = all_half
            time_steps(learners, batches, args.rounds)


if __name__ == "__main__":
    main()
