"""Post-training quantisation to int8 (NNCF), calibrated on the inputs that the graphs get from the user's images.

Some parts stay in fp32, because they are cheap and pass their error on to everything behind them:

- the layers that give the network's answers;
- everything up to the first convolution, as a range averaged over dark pictures clips bright ones;
- the pyramid's laterals and sums;
- the first blocks of a network of depthwise convolutions, whose channels differ in range and share one.

Ranges are extremes over all calibration images, for the same reason as at the first convolution.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable
from typing import Any

import numpy as np

from maskrcnn.config import PredictConfig
from maskrcnn.inference.runtimes import GRAPHS, Engine, ExportedRuntime
from maskrcnn.inference.runtimes.telemetry import refuse_telemetry

EARLY_DEPTHWISE = 12
"""Convolutions at the start of such a network: on nuclei they cost 0.8 of the 0.9 mask AP that the trunk lost."""

Sample = tuple[np.ndarray, ...]
"""Inputs of one call of a graph."""

REGIONS_PER_IMAGE = 64
"""Boxes of each image that calibrate a head, spread over their ranks."""


class _Recorder:
    """Runs the graphs of `engine` and keeps the inputs of each."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.samples: dict[str, list[Sample]] = {name: [] for name in GRAPHS}

    def run(self, name: str, *inputs: np.ndarray) -> list[Any]:
        """See `Engine`."""
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
    """int8 versions of OpenVINO or ONNX graphs. A graph without calibration samples stays in fp32."""
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
        result[name] = nncf.quantize(
            graph,
            nncf.Dataset(samples),
            subset_size=len(samples),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=layers_in_fp32(name, graph), validate=False),
            advanced_parameters=AdvancedQuantizationParameters(
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
            ),
        )
    return result


def layers_in_fp32(name: str, graph: Any) -> list[str]:
    """Names of the operations that stay in fp32: see the module's docstring.

    Weights that are looked up by label stay too, because OpenVINO 2026.4 crashes when it compiles them quantised.
    """
    openvino = hasattr(graph, "get_ops")
    ends = [r.input_value(0).get_node() for r in graph.get_results()] if openvino else list(graph.graph.output)
    if name == "trunk":
        ends = ends[-2:]
    kept = _weighted_before(ends) if openvino else _weighted_before_onnx(ends, graph)
    steps = _steps(graph)
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


def _steps(graph: Any) -> list[tuple[str, str]]:
    """(kind, name) of the operations of a graph, in order from its input."""
    if hasattr(graph, "get_ops"):
        steps = [(op.get_type_name(), op.get_friendly_name()) for op in graph.get_ordered_ops()]
    else:
        steps = [(node.op_type, node.name) for node in graph.graph.node]
    return [(kind, name) for kind, name in steps if kind not in ("Constant", "Parameter", "Convert")]


def _weighted_before(ends: list[Any]) -> set[str]:
    """The nearest convolutions and matrix products above nodes of an OpenVINO graph."""
    found: set[str] = set()
    waiting, visited = list(ends), set()
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() in visited:
            continue
        visited.add(node.get_friendly_name())
        if node.get_type_name() in ("Convolution", "MatMul"):
            found.add(node.get_friendly_name())
            continue
        waiting += [value.get_node() for value in node.input_values()]
    return found


def _weighted_before_onnx(ends: list[Any], graph: Any) -> set[str]:
    """The same in an ONNX graph."""
    makers = {output: node for node in graph.graph.node for output in node.output}
    found: set[str] = set()
    waiting, visited = [value.name for value in ends], set()
    while waiting:
        value = waiting.pop()
        node = makers.get(value)
        if node is None or value in visited:
            continue
        visited.add(value)
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            found.add(node.name)
            continue
        waiting += list(node.input)
    return found
