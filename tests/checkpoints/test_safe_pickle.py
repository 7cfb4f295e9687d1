"""Pickles that contain code are refused before any of it runs."""

import argparse
import functools
import os
import pathlib
import pickle

import numpy as np
import pytest
import torch

from maskrcnn import UserError
from maskrcnn.checkpoints.safe_pickle import read_pickle, read_torch


class Hostile:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_load(tmp_path, protocol):
    content = {"model": {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, "__author__": "someone"}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    loaded = read_pickle(tmp_path / "a.pkl")
    assert np.array_equal(loaded["model"]["a"], content["model"]["a"])
    torch.save({"b": torch.arange(3)}, tmp_path / "b.pth")
    assert torch.equal(read_torch(tmp_path / "b.pth")["b"], torch.arange(3))


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_a_pickle_is_refused(tmp_path, protocol):
    target = tmp_path / "touched"
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": Hostile(str(target))}, protocol))
    with pytest.raises(UserError, match="system"):
        read_pickle(tmp_path / "a.pkl")
    assert not target.exists()


def test_code_in_a_torch_file_is_refused(tmp_path):
    target = tmp_path / "touched"
    torch.save({"a": torch.zeros(1), "b": Hostile(str(target))}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="refused"):
        read_torch(tmp_path / "a.pth")
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04"])
def test_damaged_files_are_named(tmp_path, content):
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.pkl"):
        read_pickle(path)
    with pytest.raises(UserError, match=r"a\.pkl"):
        read_torch(path)


OBJECTS = {
    "argparse.Namespace": argparse.Namespace(lr=0.1),
    "functools.partial": functools.partial(print, 1),
    "len": len,
    "Linear": torch.nn.Linear(2, 2),
    "scalar": np.float64(0.5),
    "PurePosixPath": pathlib.PurePosixPath("a"),
    "Hostile": Hostile,
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", OBJECTS)
def test_objects_beside_tensors_are_named_with_a_way_forward(tmp_path, name, zipped):
    """Neither torch's advice nor its escape codes reach the user."""
    content = {"state_dict": {"a": torch.zeros(1)}, "args": OBJECTS[name]}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError) as caught:
        read_torch(tmp_path / "a.pth")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'a.pth'} was refused: ")
    assert name in message
    assert "torch.save(" in message
    assert message.isprintable()
    assert not any(word in message for word in ("safe_globals", "PyTorch 2", "GLOBAL", "github"))


@pytest.mark.filterwarnings("ignore:.torch.jit")
@pytest.mark.parametrize("whole", [True, False], ids=["module", "script"])
def test_saved_modules_get_a_way_forward(tmp_path, whole):
    path = tmp_path / "a.pt"
    if whole:
        torch.save(torch.nn.Linear(2, 2), path)
    else:
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)
    with pytest.raises(UserError, match=r"torch\.save\(.*state_dict\(\)") as caught:
        read_torch(path)
    assert str(caught.value).isprintable()
