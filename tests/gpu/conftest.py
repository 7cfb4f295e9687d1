"""The device of these tests: tensors in every step on a CPU, always, and a CUDA GPU where there is one.

A CPU run shows that the tests work, and that the steps do what a GPU needs; the run on a GPU is marked `gpu`. Nothing
here needs polars, TensorBoard or a download.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from maskrcnn.data.synthetic import make_shapes
from maskrcnn.data.table import Dataset
from maskrcnn.detection import pool
from maskrcnn.inference.runtimes import torch as torch_runtime
from maskrcnn.model import mask_rcnn
from maskrcnn.training import criterion

NO_GPU = "needs a CUDA GPU, and torch reports none"


@pytest.fixture(
    params=[
        "cpu",
        pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)]),
    ]
)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture
def all_tensors(device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Make a context in which the steps between the parts of the network get tensors, as they do on a GPU."""
    return nullcontext if device.type == "cuda" else tensors_on_cpu


@contextmanager
def tensors_on_cpu() -> Iterator[None]:
    patches = [
        mock.patch.object(module, "on_host", torch.Tensor.detach)
        for module in (pool, torch_runtime, mask_rcnn, criterion)
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TF32, whose 10 bits of mantissa would hide a fault."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(autouse=True)
def board(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for TensorBoard where it is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=mock.MagicMock()))


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_shapes(tmp_path_factory.mktemp("scenes"), 8, seed=5, hw=(96, 128))
