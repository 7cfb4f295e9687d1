"""The run folder: the state that a resume needs, the model files, the record, and the lock that admits one process.

state/state.safetensors   weights, average and optimizer, with the counters in its header: one file, one rename
state/data.json           how to open the data again
state/conventions.json    the conventions of the network, which an initial model may bring
metrics.jsonl             one line for each step and each validation
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.optim import Optimizer

from maskrcnn import __version__
from maskrcnn.checkpoints.load import RUN_FILES
from maskrcnn.checkpoints.native import read_tensors, write_tensors
from maskrcnn.config import validated
from maskrcnn.data.pictures import picture_suffixes
from maskrcnn.data.table import Dataset
from maskrcnn.detection.conventions import Conventions
from maskrcnn.errors import UserError
from maskrcnn.files import named, parse_json, read_json, remove_unfinished, write_text
from maskrcnn.inspection.curves import read_record


@dataclass
class RunState:
    """Counters of a run: `step` of `total` steps are done, each of `step_images` images over all processes.

    `total` is None until a budget is planned from `step_times`; `data` are fingerprints, `scaler` float16's loss scale.
    """

    step_images: int
    step: int = 0
    total: int | None = None
    step_times: list[float] = field(default_factory=list)
    seconds: float = 0.0
    best: float | None = None
    best_step: int = 0
    since_best: int = 0
    skipped: int = 0
    finished: bool = False
    data: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    scaler: dict[str, Any] = field(default_factory=dict)


class RunFolder:
    """The paths of a run, and its state on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.classes = path / "classes.json"
        self.best, self.last = (path / name for name in RUN_FILES)
        self.metrics = path / "metrics.jsonl"
        self.state = path / "state" / "state.safetensors"
        self.data = path / "state" / "data.json"
        self.headers = path / "state" / "headers.json"
        self.conventions = path / "state" / "conventions.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process. Raises `UserError` if another process holds it."""
        lock = FileLock(self.path / "state" / "lock", timeout=0)
        try:
            self.state.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise UserError(f"another process is training in {self.path}") from None
        except OSError as error:
            raise UserError(f"{self.path} cannot be a run folder: {error.strerror}") from None
        try:
            remove_unfinished(self.path, self.state.parent)
            yield
        finally:
            lock.release()

    def save_state(
        self, run_state: RunState, weights: dict[str, Tensor], average: dict[str, Tensor], optimizer: Optimizer
    ) -> None:
        """Write everything that a resume needs, in one rename. Raises `ValueError` for weights that are not finite."""
        for name, tensor in [*weights.items(), *average.items()]:
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{name} holds NaN or infinity; the state of step {run_state.step} was not saved")
        tensors = {f"weights/{name}": tensor for name, tensor in weights.items()}
        tensors |= {f"average/{name}": tensor for name, tensor in average.items()}
        for index, values in optimizer.state_dict()["state"].items():
            for name, value in values.items():
                if value is not None:
                    tensors[f"optimizer/{index}/{name}"] = torch.as_tensor(value)
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        write_tensors(tensors, self.state, {"progress": json.dumps(asdict(run_state))})

    def load_state(self) -> tuple[RunState, dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
        """Counters, weights, average, and the optimizer's state by parameter index. Raises `UserError`."""
        try:
            header, tensors = read_tensors(self.state)
            run_state = validated(RunState, parse_json(header.get("progress", ""), "progress"), "progress")
        except UserError as error:
            raise UserError(f"{self.path} cannot be resumed: {self.state} cannot be read: {error}") from None
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            parts.setdefault(kind, {})[rest] = tensor
        optimizer: dict[str, Any] = {}
        for name, tensor in parts["optimizer"].items():
            index, _, key = name.partition("/")
            optimizer.setdefault(index, {})[key] = tensor
        return run_state, parts["weights"], parts["average"], optimizer

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Append one line to the record."""
        with named(self.metrics), open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def rewind_metrics(self, step: int) -> None:
        """Drop what was recorded after `step`: a resumed run records it again."""
        if not self.metrics.exists():
            return
        kept = [entry for entry in read_record(self.metrics) if entry["step"] <= step]
        write_text("".join(f"{json.dumps(entry)}\n" for entry in kept), self.metrics)


def restore_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Restore the saved moments. The parameter groups come from the configuration."""
    current = optimizer.state_dict()
    current["state"] = {int(index): values for index, values in state.items()}
    optimizer.load_state_dict(current)


def require_space(path: Path, needed: int) -> None:
    """Raise `UserError` if the disk that holds `path` has fewer than `needed` bytes left."""
    free = shutil.disk_usage(path).free
    if free < needed:
        raise UserError(f"{path}: {free / 1e6:.0f} MB are free on that disk; the run needs about {needed / 1e6:.0f} MB")


def read_conventions(folder: RunFolder) -> Conventions:
    """The conventions that the run began with. Raises `UserError`."""
    return Conventions.from_dict(read_json(folder.conventions), str(folder.conventions))


def provenance(data: Dataset, fingerprint: str, step: int, scores: dict[str, Any] | None) -> dict[str, Any]:
    """What a model file says about its origin."""
    record: dict[str, Any] = {
        "step": step,
        "data": {
            "images": len(data),
            "instances": data.without_crowd.n_instances,
            "sha256": fingerprint,
            "names": _name_style(data.names[0]),
        },
        "versions": {"maskrcnn": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
    }
    if scores is not None:
        record["validation"] = {key: scores[key] for key in ("box", "mask", "kaggle", "images")}
    return record


def _name_style(name: str) -> str:
    """Say how data names its images: "name" with a suffix, "path" with folders but no suffix, "stem" with neither."""
    if Path(name).suffix.lower() in picture_suffixes():
        return "name"
    return "path" if "/" in name else "stem"
