"""Read pickled weights without running any code in the file: allow only arrays, tensors and plain containers."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
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


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is neither an array nor a container")
        return super().find_class(module, name)


def read_pickle(path: Path) -> Any:
    """Read a ``.pkl`` with dictionaries of NumPy arrays and call nothing that it names. Raises `UserError`."""
    try:
        return _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # a damaged pickle can raise any
        raise UserError(f"{path} was refused: {error}") from None


def read_torch(path: Path) -> Any:
    """Read a ``.pth`` or ``.pt`` of tensors with torch's allow-list. Raises `UserError`."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about bytes that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} was refused: {(str(error) or type(error).__name__).splitlines()[0]}") from None
