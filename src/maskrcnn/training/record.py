"""The record of a run: metrics.jsonl, TensorBoard and what a person sees, each told of steps and validations."""

from __future__ import annotations

import json
from contextlib import suppress
from types import TracebackType
from typing import Any

from maskrcnn.files import named
from maskrcnn.training.checkpoint import Progress, RunFolder
from maskrcnn.training.progress import ProgressDisplay, describe_scores


class Record:
    """A context for one run, which goes on after step `progress.step`; without a `folder` nothing is written."""

    def __init__(self, folder: RunFolder | None, progress: Progress, display: ProgressDisplay) -> None:
        self.folder, self.progress, self.display = folder, progress, display

    def __enter__(self) -> Record:
        if self.folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.folder.path / "tensorboard"), purge_step=self.progress.step + 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.folder is not None:
            with suppress(OSError) if error is not None else named(self.folder.path / "tensorboard"):
                self.board.close()

    def step(self, losses: dict[str, float], lr: float, seconds: float, waited: float, images: int) -> None:
        """A step is done, in `seconds`, of which it `waited` for its images; without losses it was skipped."""
        progress = self.progress
        times = {"seconds": round(seconds, 3), "waited": round(waited, 3)}
        entry = {"kind": "step", "step": progress.step, **losses, "lr": lr, **times}
        scalars = {**{f"loss/{name}": value for name, value in losses.items()}, "lr": lr}
        self._write({**entry, "images": images, "skipped": progress.skipped}, scalars)
        self.display.step(progress.step, progress.total, losses)

    def validation(self, scores: dict[str, Any], epoch: float, better: bool) -> None:
        """A validation is done."""
        scalars = {
            f"{kind}/{name}": number
            for kind in ("box", "mask")
            for name, number in scores[kind].items()
            if isinstance(number, float)
        }
        entry = {"kind": "validation", "step": self.progress.step, "epoch": epoch, **scores}
        self._write(entry, {**scalars, "kaggle/mean": scores["kaggle"]["mean"]})
        mark = " (best)" if better else ""
        self.display.say(f"step {self.progress.step}: {describe_scores(scores)}{mark}")

    def _write(self, entry: dict[str, Any], scalars: dict[str, float]) -> None:
        if self.folder is None:
            return
        self.folder.append_metrics(entry)
        with named(self.folder.path / "tensorboard"):
            for name, value in scalars.items():
                self.board.add_scalar(name, value, self.progress.step)


def read_validation(folder: RunFolder, step: int) -> dict[str, Any] | None:
    """The scores that were recorded after `step` steps."""
    if not folder.metrics.exists():
        return None
    entries = (json.loads(line) for line in folder.metrics.read_text("utf-8").splitlines())
    return next((e for e in entries if e["kind"] == "validation" and e["step"] == step), None)
