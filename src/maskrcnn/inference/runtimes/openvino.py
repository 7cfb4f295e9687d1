"""Exported graphs in OpenVINO on a CPU, in any precision, without torch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.config import HALVES, Precision
from maskrcnn.detection.boxes import suppress
from maskrcnn.detection.stages import FLOAT32, FLOAT_REGIONS, RegionFormat
from maskrcnn.inference.runtimes import GRAPHS
from maskrcnn.inference.runtimes.signal_stack import in_own_thread
from maskrcnn.inference.runtimes.telemetry import refuse_telemetry
from maskrcnn.kernels import share_threads_of_tbb

refuse_telemetry()
share_threads_of_tbb()
import openvino as ov  # noqa: E402
from openvino import opset13 as ops  # noqa: E402
from openvino.preprocess import PrePostProcessor  # noqa: E402

VERSION = f"openvino {ov.__version__}"

FLOATS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
"""OpenVINO's names of the formats in which it computes what is not quantised."""

USUAL_TRUNK = "trunk of the usual size"


class Engine:
    """Three compiled graphs: those of a folder, or ``ov.Model`` by name. Every thread gets its own infer requests.

    Maps and regions are in the format in which the graphs compute: regions as uint8 in int8, both as bf16 beside it or
    in bf16, and as float32 in fp16 and fp32. Below fp32, inputs of `usual_hw` have a trunk that is compiled for this
    size alone: maps of a known size come out channels-last without a transposition.
    """

    def __init__(self, graphs: dict[str, ov.Model] | Path, precision: Precision, usual_hw: tuple[int, int]) -> None:
        models = read_graphs(graphs) if isinstance(graphs, Path) else graphs
        floats = float_format(precision)
        heads = {name: _with_regions(models[name], floats) for name in FLOAT_REGIONS}
        models = models | {name: head for name, (head, _) in heads.items()}
        if floats == FLOATS["bf16"]:
            models = models | {"trunk": _with_bfloat16_maps(models["trunk"])}
        self.region_formats = {name: regions for name, (_, regions) in heads.items()}
        self.usual_hw = None if precision == "fp32" else usual_hw
        if self.usual_hw is not None:
            models = models | {USUAL_TRUNK: _with_fixed_size(models["trunk"], usual_hw)}
        compiling = start_compiling(models, floats)
        _call_a_kernel()  # loads what all kernels need, which takes as long as compiling: half a second
        self.compiled = compiling.result()
        self._of_thread = threading.local()

    def run(self, name: str, *inputs: np.ndarray) -> list[Any]:
        if name == "trunk" and len(inputs[0]) and inputs[0].shape[1:3] == self.usual_hw:
            return self._run_usual_trunk(inputs[0])
        return self._infer(name, inputs)

    def _run_usual_trunk(self, pixels: np.ndarray) -> list[Any]:
        """One picture after the other, so that a picture gives the same bits in every batch."""
        if len(pixels) == 1:
            return self._infer(USUAL_TRUNK, [pixels])
        outputs = [[o.copy() for o in self._infer(USUAL_TRUNK, [picture[None]])] for picture in pixels]
        return [np.concatenate(of_pictures) for of_pictures in zip(*outputs, strict=True)]

    def _infer(self, name: str, inputs: Sequence[np.ndarray]) -> list[Any]:
        if not hasattr(self._of_thread, "requests"):
            self._of_thread.requests = {name: graph.create_infer_request() for name, graph in self.compiled.items()}
        tensors = [_bfloat16_tensor(value) if value.dtype == np.uint16 else value for value in inputs]
        results = self._of_thread.requests[name].infer(tensors, share_inputs=True, share_outputs=True)
        outputs = [results[k] for k in range(len(results))]
        return [o.view(np.uint16) if o.dtype == np.float16 else o for o in outputs]  # bf16, which NumPy does not have


def start_compiling(graphs: dict[str, ov.Model], floats: str) -> Future[dict[str, ov.CompiledModel]]:
    """Compile for this CPU, computing what is not quantised in `floats`, in a thread of its own: see `signal_stack`."""
    core = ov.Core()
    settings = {"INFERENCE_PRECISION_HINT": floats, "NUM_STREAMS": 1}
    return in_own_thread(lambda: {name: core.compile_model(graph, "CPU", settings) for name, graph in graphs.items()})


def float_format(precision: Precision) -> str:
    """OpenVINO's name of the format in which a network of `precision` computes what is not quantised.

    Beside int8, that is bf16 where the processor has instructions for it.
    """
    if precision == "int8":
        precision = "bf16" if "bf16" in half_precisions() else "fp32"
    return FLOATS[precision]


def half_precisions() -> list[Precision]:
    """The half precisions for which OpenVINO finds instructions in this processor."""
    found = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [name for name in HALVES if name.upper() in found]


def read_graphs(folder: Path) -> dict[str, ov.Model]:
    """Read what `write_graphs` wrote. Raises `RuntimeError`."""
    core = ov.Core()
    return {name: core.read_model(folder / f"{name}.xml") for name in GRAPHS}


def write_graphs(graphs: dict[str, ov.Model], folder: Path) -> None:
    """Write each graph as ``NAME.xml`` and ``NAME.bin``."""
    for name, graph in graphs.items():
        ov.save_model(graph, folder / f"{name}.xml", compress_to_fp16=False)


def _with_regions(head: ov.Model, floats: str) -> tuple[ov.Model, RegionFormat]:
    """A copy of a head that takes its first input in the format in which it computes, and this format."""
    head = head.clone()
    readers = [target.get_node() for target in head.input(0).get_target_inputs()]
    if len(readers) == 1 and readers[0].get_type_name() == "FakeQuantize":
        return _with_uint8_regions(head, readers[0])
    if floats == FLOATS["bf16"]:
        steps = PrePostProcessor(head)
        steps.input(0).tensor().set_element_type(ov.Type.bf16)
        return steps.build(), RegionFormat(np.uint16)
    return head, FLOAT32


def _with_uint8_regions(head: ov.Model, quantise: ov.Node) -> tuple[ov.Model, RegionFormat]:
    """Replace the first step of a head, which quantises its regions, by an input that is quantised in the same way."""
    low, high = (float(value.get_node().data) for value in quantise.input_values()[1:3])
    step = (high - low) / 255
    pooled, *others = head.get_parameters()
    counts = ops.parameter(pooled.get_partial_shape(), np.uint8, name=pooled.get_friendly_name())
    zero = ops.convert(ops.constant(np.uint8(round(-low / step))), np.float32)
    values = ops.multiply(ops.subtract(ops.convert(counts, np.float32), zero), np.float32(step))
    for target in quantise.output(0).get_target_inputs():
        target.replace_source_output(values.output(0))
    return ov.Model(head.get_results(), [counts, *others]), RegionFormat(np.uint8, low, step)


def _with_bfloat16_maps(trunk: ov.Model) -> ov.Model:
    """A copy of a trunk that gives its maps, all outputs but the last two, in bf16."""
    steps = PrePostProcessor(trunk.clone())
    for k in range(len(trunk.outputs) - 2):
        steps.output(k).tensor().set_element_type(ov.Type.bf16)
    return steps.build()


def _with_fixed_size(trunk: ov.Model, hw: tuple[int, int]) -> ov.Model:
    """A copy of a trunk for one picture of `hw`."""
    copy = trunk.clone()
    copy.reshape([1, *hw, 3])
    return copy


def _bfloat16_tensor(bits: np.ndarray) -> ov.Tensor:
    return ov.Tensor(bits, ov.Shape(bits.shape), ov.Type.bf16)


def _call_a_kernel() -> None:
    nothing = np.zeros(1, np.int64)
    suppress(np.zeros((1, 4), np.float32), np.zeros(1, np.float32), nothing, nothing, 1, 0.5, 1, False)
