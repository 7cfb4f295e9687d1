"""Pickles that contain code are refused before any of it runs."""

import os
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
