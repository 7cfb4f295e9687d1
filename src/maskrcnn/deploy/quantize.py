"""Post-training quantisation to int8 (NNCF), with what the graphs see on the user's own images.

What is cheap and passes its error on to everything stays in fp32: the layers that give the network's answers; the way
from the pixels through the first convolution, because a range that is averaged over dark pictures cuts bright ones off;
the pyramid's laterals and sums; the first blocks of a network of depthwise convolutions, whose channels differ in range
and share one. For the same reason ranges are the extremes over all calibration images, not averages.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np

from maskrcnn.config import PredictConfig
from maskrcnn.inference.runtimes import GRAPHS, CpuRuntime, ExportedGraphs

EARLY_DEPTHWISE = 12
"""Convolutions at the start of such a network: on nuclei they cost 0.8 of the 0.9 mask AP that the trunk lost."""

Sample = tuple[np.ndarray, ...]
"""The inputs of one call of a graph."""

REGIONS_AN_IMAGE = 64
"""Real boxes of each image that a head is calibrated on, spread over their ranks."""


class _Recorder(ExportedGraphs):
    """Passes everything through to `graphs` and keeps what each of them is given."""

    def __init__(self, graphs: ExportedGraphs) -> None:
        self.runtime = graphs.runtime
        self.pixel_mean = graphs.pixel_mean
        self.graphs = graphs
        self.seen: dict[str, list[Sample]] = {name: [] for name in GRAPHS}

    def run(self, name: str, *values: np.ndarray) -> list[Any]:
        step = 1 if name == "trunk" else max(len(values[0]) // REGIONS_AN_IMAGE, 1)
        self.seen[name].append(tuple(value[::step].copy() for value in values))
        return self.graphs.run(name, *values)


def record(
    runtime: CpuRuntime, inputs: Iterable[tuple[np.ndarray, np.ndarray]], predict: PredictConfig
) -> dict[str, list[Sample]]:
    """What each graph is given while `runtime` detects in inputs (pixels, windows)."""
    graphs = runtime.graphs()
    assert isinstance(graphs, ExportedGraphs)
    recorder = _Recorder(graphs)
    for pixels, windows in inputs:
        runtime.detect(pixels, windows, predict, recorder)
    return recorder.seen


def quantized(graphs: dict[str, Any], seen: dict[str, list[Sample]]) -> dict[str, Any]:
    """int8 versions of OpenVINO or ONNX graphs; one that was never called in calibration stays as it is."""
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    logging.getLogger("nncf").setLevel(logging.ERROR)
    result = {}
    for name, graph in graphs.items():
        if not seen[name]:
            result[name] = graph
            continue
        samples: list[Any] = seen[name]
        if not hasattr(graph, "get_ops"):  # ONNX wants its inputs by name
            names = [value.name for value in graph.graph.input]
            samples = [dict(zip(names, sample, strict=True)) for sample in samples]
        result[name] = nncf.quantize(
            graph,
            nncf.Dataset(samples),
            subset_size=len(samples),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=_kept(name, graph), validate=False),
            advanced_parameters=AdvancedQuantizationParameters(
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
            ),
        )
    return result


def _kept(name: str, graph: Any) -> list[str]:
    """Names of what stays in fp32: the layers of the outputs (of the trunk, those of the RPN alone) and the stem's.

    So do weights that are looked up by label: OpenVINO 2026.4 crashes where it compiles them quantised.
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
    """Whether a graph has convolutions in groups."""
    if hasattr(graph, "get_ops"):
        return any(op.get_type_name() == "GroupConvolution" for op in graph.get_ops())
    convolutions = (node for node in graph.graph.node if node.op_type == "Conv")
    return any(a.name == "group" and a.i > 1 for node in convolutions for a in node.attribute)


def _steps(graph: Any) -> list[tuple[str, str]]:
    """(kind, name) of the operations of a graph, from its input on."""
    if hasattr(graph, "get_ops"):
        steps = [(op.get_type_name(), op.get_friendly_name()) for op in graph.get_ordered_ops()]
    else:
        steps = [(node.op_type, node.name) for node in graph.graph.node]
    return [(kind, name) for kind, name in steps if kind not in ("Constant", "Parameter", "Convert")]


def _weighted_before(ends: list[Any]) -> set[str]:
    """The nearest convolutions and matrix products above nodes of an OpenVINO graph."""
    found: set[str] = set()
    waiting, seen = list(ends), set()
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() in seen:
            continue
        seen.add(node.get_friendly_name())
        if node.get_type_name() in ("Convolution", "MatMul"):
            found.add(node.get_friendly_name())
            continue
        waiting += [value.get_node() for value in node.input_values()]
    return found


def _weighted_before_onnx(ends: list[Any], graph: Any) -> set[str]:
    """The same in an ONNX graph."""
    makers = {output: node for node in graph.graph.node for output in node.output}
    found: set[str] = set()
    waiting, seen = [value.name for value in ends], set()
    while waiting:
        value = waiting.pop()
        node = makers.get(value)
        if node is None or value in seen:
            continue
        seen.add(value)
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            found.add(node.name)
            continue
        waiting += list(node.input)
    return found
