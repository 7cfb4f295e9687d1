"""Fixtures shared by several test folders."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data.synthetic import write_shapes
from maskrcnn.data.table import Dataset
from signal_stacks import signal_stack

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if SHARED.exists():
        return
    for item in items:
        if "shared" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=f"needs the development data in {SHARED}, which is absent"))


@pytest.fixture(scope="session")
def shared() -> Path:
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the user's cache folder out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("MASKRCNN_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def _signal_stack_stays() -> Iterator[None]:
    """A test that changes it lets a later one, or pytest, die at its next signal: see `runtimes.signal_stack`."""
    if sys.platform != "linux":
        yield
        return
    before = signal_stack()
    yield
    assert signal_stack() == before, "a graph was compiled in the main thread"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shapes_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), 12, seed=3, hw=(96, 128))


@pytest.fixture(scope="session")
def shapes(shapes_csv: Path) -> Dataset:
    from maskrcnn.data.formats import open_dataset  # loads polars, which tests/gpu does without

    return open_dataset(shapes_csv, say=lambda _: None)
