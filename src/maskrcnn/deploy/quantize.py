"""Post-training quantisation to int8 (NNCF), calibrated on the inputs that the graphs get from the user's images.

Some parts are not quantised, because they are cheap and pass their error on to everything behind them:

- the network's output layers;
- everything up to the first convolution, as a range averaged over dark pictures clips bright ones;
- the pyramid's laterals and sums;
- the first blocks of a network of depthwise convolutions, whose channels differ in range and share one.

Ranges are extremes over all calibration images, for the same reason as at the first convolution.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from maskrcnn.config import PredictConfig
from maskrcnn.inference.runtimes import GRAPHS, Engine, ExportedRuntime
from maskrcnn.inference.runtimes.signal_stack import in_own_thread
from maskrcnn.inference.runtimes.telemetry import refuse_telemetry

EARLY_DEPTHWISE = 12
"""First convolutions that stay as they are in a network of depthwise ones: quantised, they cost `nuclei` 0.8 of the 0.9
points of mask AP that its trunk lost."""

Sample = tuple[np.ndarray, ...]
"""Inputs of one call of a graph."""

REGIONS_PER_IMAGE = 64
"""Boxes of each image that calibrate a head, spread over their ranks."""


class _Recorder:
    """Runs the graphs of `engine` and keeps the inputs of each."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.region_formats = engine, engine.region_formats
        self.samples: dict[str, list[Sample]] = {name: [] for name in GRAPHS}

    def run(self, name: str, *inputs: np.ndarray) -> list[Any]:
        step = 1 if name == "trunk" else max(len(inputs[0]) // REGIONS_PER_IMAGE, 1)
        self.samples[name].append(tuple(value[::step].copy() for value in inputs))
        return self.engine.run(name, *inputs)


def record(
    runtime: ExportedRuntime, inputs: Iterable[tuple[np.ndarray, np.ndarray]], predict: PredictConfig
) -> dict[str, list[Sample]]:
    """Inputs of each graph while `runtime` detects in `inputs` (pixels, windows)."""
    network = copy.copy(runtime.exported)
    network.engine = recorder = _Recorder(network.engine)
    for pixels, windows in inputs:
        runtime.detector.detect(network, pixels, windows, predict)
    return recorder.samples


def quantized(graphs: dict[str, Any], calibration: dict[str, list[Sample]]) -> dict[str, Any]:
    """int8 versions of OpenVINO or ONNX graphs. A graph without calibration samples is not quantised."""
    with redirect_stdout(sys.stderr):  # NNCF's progress bars are no results
        return in_own_thread(lambda: _quantized(graphs, calibration)).result()  # it compiles with OpenVINO


def _quantized(graphs: dict[str, Any], calibration: dict[str, list[Sample]]) -> dict[str, Any]:
    refuse_telemetry()
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    logging.getLogger("nncf").setLevel(logging.ERROR)
    result = {}
    for name, graph in graphs.items():
        if not calibration[name]:
            result[name] = graph
            continue
        samples: list[Any] = calibration[name]
        if not hasattr(graph, "get_ops"):  # ONNX takes its inputs by name
            names = [value.name for value in graph.graph.input]
            samples = [dict(zip(names, sample, strict=True)) for sample in samples]
        ranges = AdvancedQuantizationParameters(activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX)
        result[name] = nncf.quantize(
            graph,
            nncf.Dataset(samples),
            subset_size=len(samples),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=unquantized_layers(name, graph), validate=False),
            advanced_parameters=ranges,
        )
    return result


def unquantized_layers(name: str, graph: Any) -> list[str]:
    """Names of the operations that are not quantised, as the module's docstring lists them."""
    operations, ends = _operations(graph)
    kept = _weighted_before(ends[-2:] if name == "trunk" else ends, operations)
    steps = [(kind, step) for step, (kind, _) in operations.items() if kind not in ("Constant", "Parameter", "Convert")]
    # Weights that are looked up by label: OpenVINO 2026.4 crashes when it compiles them quantised.
    kept |= {step for kind, step in steps if kind == "Gather"}
    if name == "trunk":
        convolutions = [k for k, (kind, _) in enumerate(steps) if "Conv" in kind]
        early = convolutions[: EARLY_DEPTHWISE if _has_depthwise(graph) else 1]
        kept |= {step for _, step in steps[: early[-1] + 1]}
        kept |= {step for _, step in steps if "pyramid" in step and "outputs" not in step}
    return sorted(kept)


def _has_depthwise(graph: Any) -> bool:
    """Whether a graph has grouped convolutions."""
    if hasattr(graph, "get_ops"):
        return any(op.get_type_name() == "GroupConvolution" for op in graph.get_ops())
    convolutions = (node for node in graph.graph.node if node.op_type == "Conv")
    return any(a.name == "group" and a.i > 1 for node in convolutions for a in node.attribute)


def _operations(graph: Any) -> tuple[dict[str, tuple[str, list[str]]], list[str]]:
    """Kind and inputs of each operation by name, in order from the graph's input; names of those that give outputs."""
    if hasattr(graph, "get_ops"):
        ends = [result.input_value(0).get_node().get_friendly_name() for result in graph.get_results()]
        ops = ((op, [v.get_node().get_friendly_name() for v in op.input_values()]) for op in graph.get_ordered_ops())
        return {op.get_friendly_name(): (op.get_type_name(), inputs) for op, inputs in ops}, ends
    makers = {output: node.name for node in graph.graph.node for output in node.output}
    nodes = {n.name: (n.op_type, [makers[v] for v in n.input if v in makers]) for n in graph.graph.node}
    return nodes, [makers[value.name] for value in graph.graph.output]


def _weighted_before(ends: list[str], operations: dict[str, tuple[str, list[str]]]) -> set[str]:
    """The nearest convolutions and matrix products that operations are computed from, themselves included."""
    nearest, visited, waiting = set(), set(), list(ends)
    while waiting:
        name = waiting.pop()
        kind, inputs = operations[name]
        if kind in ("Convolution", "Conv", "Gemm", "MatMul"):
            nearest.add(name)
        elif name not in visited:
            visited.add(name)
            waiting += inputs
    return nearest
