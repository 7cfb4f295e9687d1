"""Pickled weights without the code that a pickle can carry: only arrays, tensors and plain containers are built."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

from maskrcnn.errors import UserError

# (module, name) of everything that a file of NumPy arrays needs; NumPy 1 and 2 differ in the module.
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


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is neither an array nor a container")
        return super().find_class(module, name)


def read_pickle(path: Path) -> Any:
    """Read a ``.pkl`` of NumPy arrays in dictionaries. Raises `UserError`; nothing that the file names is called."""
    try:
        return _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:
        # A damaged pickle raises whatever its bytes lead to.
        raise UserError(f"{path} was refused: {error}") from None


def read_torch(path: Path) -> Any:
    """Read a ``.pth`` or ``.pt`` of tensors, by torch's own allow-list. Raises `UserError`."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on bytes that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} was refused: {(str(error) or type(error).__name__).splitlines()[0]}") from None
