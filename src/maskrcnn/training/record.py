"""Record each step and validation of a run: in metrics.jsonl, in TensorBoard and on the progress display."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from maskrcnn.evaluation.metrics import describe_scores
from maskrcnn.files import named
from maskrcnn.inspection.curves import of_kind, read_record
from maskrcnn.training.progress import ProgressDisplay
from maskrcnn.training.run_folder import RunFolder, RunState


class Record:
    """Context manager that records a run after step `run_state.step`; writes no files if `folder` is None."""

    def __init__(self, folder: RunFolder | None, run_state: RunState, display: ProgressDisplay) -> None:
        self.folder, self.run_state, self.display = folder, run_state, display

    def __enter__(self) -> Record:
        if self.folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.folder.path / "tensorboard"), purge_step=self.run_state.step + 1)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.folder is not None:
            with suppress(OSError) if error is not None else named(self.folder.path / "tensorboard"):
                self.board.close()

    def step(self, losses: dict[str, float], lr: float, seconds: float, waited: float, images: int) -> None:
        """Record a step of `seconds`, with `waited` seconds for its images; `losses` is empty if it was skipped."""
        run_state = self.run_state
        times = {"seconds": round(seconds, 3), "waited": round(waited, 3)}
        entry = {"kind": "step", "step": run_state.step, **losses, "lr": lr, **times}
        scalars = {**{f"loss/{name}": value for name, value in losses.items()}, "lr": lr}
        self._write({**entry, "images": images, "skipped": run_state.skipped}, scalars)
        self.display.step(run_state.step, run_state.total, losses)

    def validation(self, scores: dict[str, Any], epoch: float, better: bool) -> None:
        """Record a validation; `better` marks the best so far."""
        scalars = {
            f"{kind}/{name}": score
            for kind in ("box", "mask")
            for name, score in scores[kind].items()
            if isinstance(score, float)
        }
        entry = {"kind": "validation", "step": self.run_state.step, "epoch": epoch, **scores}
        self._write(entry, {**scalars, "kaggle/mean": scores["kaggle"]["mean"]})
        self.display.say(f"step {self.run_state.step}: {describe_scores(scores)}" + (" (best)" if better else ""))

    def _write(self, entry: dict[str, Any], scalars: dict[str, float]) -> None:
        if self.folder is None:
            return
        self.folder.append_metrics(entry)
        with named(self.folder.path / "tensorboard"):
            for name, value in scalars.items():
                self.board.add_scalar(name, value, self.run_state.step)


def read_validation(folder: RunFolder, step: int) -> dict[str, Any] | None:
    """Return the scores of the validation after `step` steps, or None if there are none."""
    validations = of_kind(read_record(folder.metrics), "validation")
    return next((entry for entry in validations if entry["step"] == step), None)
