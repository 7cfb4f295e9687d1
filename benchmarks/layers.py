"""Milliseconds of each kind of layer in the three graphs of a bundle, in one precision, as OpenVINO counts them.

    python benchmarks/layers.py BUNDLE [--precision int8] [--picture FILE] [--rounds 9] [--slowest 10]

Layers are grouped by what they do and by the kernel that does it. "learned" are convolutions and products; the rest
moves, converts or adds numbers. Without `--picture`, the picture is noise of the model's usual size. Medians of the
rounds.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any
from unittest import mock

import openvino as ov

import maskrcnn
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.timings import noise_picture

LEARNED = ("Convolution", "FullyConnected", "FullyConnectedQuantizedLegacy", "GroupConvolution", "MatMul")

Layer = tuple[str, str, str]
"""Kind, kernel and name."""


def load_with_counters(bundle: Path, precision: Any) -> Predictor:
    """Open a bundle whose graphs count the time of each layer."""
    compile_model = ov.Core.compile_model

    def counting(core: ov.Core, graph: ov.Model, device: str, settings: dict[str, Any]) -> ov.CompiledModel:
        return compile_model(core, graph, device, settings | {"PERF_COUNT": True})

    with mock.patch.object(ov.Core, "compile_model", counting):
        return maskrcnn.load(bundle, precision=precision)


def time_layers(model: Predictor, picture: Any, rounds: int) -> dict[str, dict[Layer, float]]:
    """Median milliseconds of each layer that ran, by graph."""
    times: dict[str, dict[Layer, list[float]]] = defaultdict(lambda: defaultdict(list))
    for k in range(rounds + 2):  # the first two allocate memory
        model.predict(picture, keep_pixels=False)
        for name, request in model.runtime.exported.engine._of_thread.requests.items():
            for layer in counters(request) if k >= 2 else ():
                milliseconds = 1000 * layer.real_time.total_seconds()
                times[name][layer.node_type, layer.exec_type, layer.node_name].append(milliseconds)
    medians = {g: {layer: statistics.median(values) for layer, values in t.items()} for g, t in times.items()}
    return {name: layers for name, layers in medians.items() if any(layers.values())}


def counters(request: ov.InferRequest) -> list[Any]:
    """The counters of a request; none if it never ran."""
    try:
        return request.profiling_info
    except RuntimeError:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16", "int8"])
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--slowest", type=int, default=10, help="layers to name, of those that are not learned")
    args = parser.parse_args()
    model = load_with_counters(args.bundle, args.precision)
    picture = args.picture or noise_picture(model.config.model, model.conventions)
    print(ov.Core().get_property("CPU", "FULL_DEVICE_NAME"))
    for name, layers in time_layers(model, picture, args.rounds).items():
        learned = sum(ms for (kind, *_), ms in layers.items() if kind in LEARNED)
        rest = sum(layers.values()) - learned
        print(f"{name}: learned {learned:.1f} ms, the rest {rest:.1f} ms")
        kinds: dict[tuple[str, str], float] = defaultdict(float)
        for (kind, kernel, _), ms in layers.items():
            kinds[kind, kernel] += ms
        for (kind, kernel), ms in sorted(kinds.items(), key=lambda item: -item[1]):
            if ms >= 0.05:
                print(f"  {ms:7.2f}  {kind}, {kernel}")
        others = sorted((item for item in layers.items() if item[0][0] not in LEARNED), key=lambda item: -item[1])
        for (kind, _, layer), ms in others[: args.slowest]:
            if ms >= 0.05:
                print(f"  {ms:7.2f}    {kind} {layer}")


if __name__ == "__main__":
    main()
