"""Read pickled weights without running any code in the file: allow only arrays, tensors and plain containers."""

from __future__ import annotations

import io
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

from maskrcnn.errors import UserError

# (module, name) of every object that a pickle of NumPy arrays refers to; NumPy 1 and 2 name the modules differently.
ALLOWED = {
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *(
        (module, name)
        for core in ("numpy.core", "numpy._core")
        for module, name in (
            (f"{core}.multiarray", "_reconstruct"),
            (f"{core}.multiarray", "scalar"),
            (f"{core}.numeric", "_frombuffer"),
        )
    ),
}


REFUSED_BY_TORCH = re.compile(r"Unsupported \w+: GLOBAL ([\w.]+)")


class _RefusedError(Exception):
    """The name of an object that is neither an array nor a container."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise _RefusedError(f"{module}.{name}")
        return super().find_class(module, name)


def read_pickle(path: Path) -> Any:
    """Read a ``.pkl`` with dictionaries of NumPy arrays and call nothing that it names. Raises `UserError`."""
    try:
        return _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except _RefusedError as error:
        raise UserError(
            f"{path} was refused: it refers to {error}, which is neither an array nor a container. "
            "If you trust the file, save its arrays alone: "
            f"pickle.dump({{'model': arrays}}, open('{path.stem}-weights.pkl', 'wb'))"
        ) from None
    except Exception:  # a damaged pickle can raise any
        raise UserError(f"{path} was refused: it is damaged, or no pickle") from None


def read_torch(path: Path) -> Any:
    """Read a file of `torch.save` with torch's allow-list of tensors and containers. Raises `UserError`."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about bytes that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # a damaged file can raise any
        raise UserError(f"{path} was refused: {_reason(str(error), path)}") from None


def _reason(torch_message: str, path: Path) -> str:
    """Say why torch refused a file, and how to save its tensors alone."""
    source, target = repr(str(path)), repr(f"{path.stem}-weights.pth")
    if "TorchScript" in torch_message:
        return (
            "it is a TorchScript program. Save its tensors alone: "
            f"torch.save(torch.jit.load({source}).state_dict(), {target})"
        )
    refused = REFUSED_BY_TORCH.search(torch_message)
    if refused is None:
        return "it is damaged, or torch.save did not write it"
    name = refused[1]
    return (
        f"beside tensors it holds {name}, an object that could run code when it is opened. If you trust the file, "
        f"save its tensors alone: loaded = torch.load({source}, map_location='cpu', weights_only=False); torch.save("
        f"loaded.state_dict() if hasattr(loaded, 'state_dict') else loaded['state_dict'], {target}). The last key is "
        "the one under which the file keeps its tensors"
    )
