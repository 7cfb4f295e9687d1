"""The run: plan -> steps -> validations -> model files; it can be stopped at any moment and goes on where it was."""

from __future__ import annotations

import json
import math
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from maskrcnn import __version__
from maskrcnn.checkpoints import load
from maskrcnn.checkpoints.native import load_weights, pick_device, write_model
from maskrcnn.config import Config, seconds
from maskrcnn.data.batch import Batch, batches
from maskrcnn.data.images import SUFFIXES
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError
from maskrcnn.evaluation import Evaluation, evaluate, examine
from maskrcnn.files import write_text
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes.torch import TorchRuntime
from maskrcnn.inspection.report import write_run_report
from maskrcnn.model.conventions import NATIVE, Conventions
from maskrcnn.model.mask_rcnn import MaskRCNN, build_model
from maskrcnn.training.checkpoint import Progress, RunFolder, read_conventions, require_space, restore_optimizer
from maskrcnn.training.criterion import Criterion
from maskrcnn.training.initial import on_top_of, open_initial, take_over
from maskrcnn.training.plan import fill_in
from maskrcnn.training.progress import ProgressDisplay, describe_scores
from maskrcnn.training.schedule import (
    WARMUP_STEPS,
    WeightAverage,
    build_optimizer,
    lr_factor,
    set_lr,
    steps_for,
)
from maskrcnn.training.targets import Truth

STATE_SECONDS = 120.0
"""A killed run loses at most about this much work."""

FIRST_TRAINED_STAGE = {"all": 1, "3+": 3, "4+": 4, "5+": 5, "heads": 6}
"""Of the backbone, for each value of ``freeze``; stage 6 is behind it."""

MOST_SKIPPED_IN_A_ROW = 5
MEASURING_SHARE = 0.15
"""A budget is turned into steps at the end of the warm-up, or after this share of it."""


@dataclass(frozen=True)
class Run:
    """A finished or interrupted training run: its folder, its best validation and whether it came to its end."""

    path: Path
    scores: dict[str, Any] | None
    finished: bool

    @property
    def model(self) -> Predictor:
        """The run's best model."""
        return load(self.path)


def train(
    train_data: Dataset,
    val_data: Dataset | None = None,
    *,
    out: str | Path,
    config: Config | None = None,
    budget: str | None = None,
    resume: bool = False,
    source: dict[str, Any] | None = None,
    console: Console | None = None,
) -> Run:
    """Train on `train_data`, choose the best model by `val_data`, keep everything in the folder `out`.

    `budget` ("30m") takes the place of the configuration's epochs. `resume` goes on with the run in `out`, whose
    configuration then holds. `source` is kept as ``state/data.json``: how the data was opened. Progress is shown on
    `console`. SIGINT and SIGTERM save the state and end the run. Raises `UserError`.
    """
    folder = RunFolder(Path(out))
    config = config or Config()
    if budget is not None:
        config = config.changed(train={"budget": budget})
    if resume and not folder.state.exists():
        raise UserError(f"there is nothing to resume in {out}: {folder.state} does not exist")
    if not resume and (folder.state.exists() or folder.metrics.exists()):
        raise UserError(f"{out} already holds a run; go on with it by --resume {out}, or choose another folder")
    with folder.locked(), ProgressDisplay(console) as display:
        if source is not None and not resume:
            write_text(json.dumps(source), folder.data)
        trainer = _Trainer(folder, train_data, val_data, config, resume, display)
        return trainer.run()


class _Trainer:
    def __init__(
        self,
        folder: RunFolder,
        train_data: Dataset,
        val_data: Dataset | None,
        config: Config,
        resume: bool,
        display: ProgressDisplay,
    ) -> None:
        self.started = time.monotonic()
        self.folder, self.data, self.val_data, self.display = folder, train_data, val_data, display
        if len(train_data) == 0:
            raise UserError("there are no images to train on")
        initial: Predictor | None = None
        if resume:
            config = Config.load(folder.config)
            conventions = read_conventions(folder)
        else:
            conventions = NATIVE
            if config.train.init:
                initial = open_initial(config.train.init)
                config, conventions = on_top_of(initial, config), initial.model.conventions
            config, reasons = fill_in(config, train_data)
            for reason in reasons:
                display.say(reason)
        self.config = config
        self.device = pick_device(config.train.device)
        torch.manual_seed(config.train.seed)
        model = self._build(conventions)
        if initial is not None:
            display.say(f"starts from {config.train.init}: {take_over(model, initial, train_data.class_names)}")
        elif not resume:
            display.say(f"backbone {config.model.backbone}: {model.backbone.load_weights(config.model.weights)}")
        model.backbone.freeze_below(FIRST_TRAINED_STAGE[config.train.freeze])
        self.model = model.to(self.device)
        self.criterion = Criterion(self.model, config.train)
        self.optimizer = build_optimizer(self.model, config.train)
        self.average = WeightAverage(self.model, config.train.ema)
        self.progress = Progress()
        self.budget = seconds(config.train.budget) if config.train.budget else None
        passes = max(len(train_data), config.train.epoch_images)
        self.steps_per_epoch = math.ceil(passes / config.train.batch_size)
        if self.budget is None:
            self.progress.total = config.train.epochs * self.steps_per_epoch
        self.fingerprint = train_data.fingerprint()
        self.progress.data = [self.fingerprint] + ([val_data.fingerprint()] if val_data is not None else [])
        if resume:
            self._restore()
        else:
            self._write_description()
            folder.save_state(self.progress, self.model.state_dict(), self.average.average, self.optimizer)
        self.validator = self._build(conventions).to(self.device)
        self.evaluation: Evaluation | None = None
        self.stop = threading.Event()

    def _build(self, conventions: Conventions) -> MaskRCNN:
        n_classes = len(self.data.class_ids)
        return build_model(self.config.model, n_classes, conventions, freeze_norm=self.config.train.freeze_norm)

    # ---- the run --------------------------------------------------------------------------------------------------

    def run(self) -> Run:
        last_step = self.progress.total if self.progress.total is not None else 2**40
        finished = self.progress.finished
        skipped_in_a_row = 0
        step_times: list[float] = []
        saved = time.monotonic()
        with _stop_on_signals(self.stop), self._tensorboard() as board:
            stream = batches(self.data, self.progress.step, last_step, self.config)
            while not finished:
                began = time.monotonic()
                batch = next(stream)
                self._note_unreadable(batch)
                losses, lr = self._step(batch)
                skipped_in_a_row = 0 if losses else skipped_in_a_row + 1
                if skipped_in_a_row > MOST_SKIPPED_IN_A_ROW:
                    self._give_up(batch)
                self.progress.step += 1
                step_times.append(time.monotonic() - began)
                self._record(board, losses, lr, step_times[-1], len(batch))
                planned = self.progress.total is None and self._measured()
                if planned:
                    self.progress.total = self._plan_steps(step_times)
                finished = self.progress.step == self.progress.total
                if finished or self._epoch_ends():
                    finished = self._validate_and_save(board) or finished
                self.progress.finished = finished
                if self.stop.is_set() or planned or finished or time.monotonic() - saved > STATE_SECONDS:
                    self._save_state()
                    saved = time.monotonic()
                if finished or self._epoch_ends():
                    write_run_report(self.folder.path, self.evaluation, self.display.say)
                if self.stop.is_set() and not finished:
                    self._write_model(self.folder.last, self._average_predictor(), None)
                    break
            stream.close()
        if not finished:
            self.display.say(f"stopped at step {self.progress.step}; go on with --resume {self.folder.path}")
        return Run(self.folder.path, self._best_scores(), finished)

    def _step(self, batch: Batch) -> tuple[dict[str, float], float]:
        """One optimizer step; no losses come back where one was not finite and the step was skipped."""
        config, step = self.config.train, self.progress.step
        lr = set_lr(self.optimizer, lr_factor(step, self.progress.total, config))
        if len(batch) == 0:
            return {}, lr
        self.model.train()
        windows = torch.from_numpy(batch.windows).to(self.device)
        images = self.model.normalize(torch.from_numpy(batch.pixels).to(self.device), windows)
        generator = torch.Generator(self.device).manual_seed(config.seed * 1_000_003 + step)
        losses = self.criterion(images, windows, Truth.of(batch.targets, self.device), generator)
        self.optimizer.zero_grad(set_to_none=True)
        values = {name: float(value.detach()) for name, value in losses.items()}
        if math.isfinite(values["loss"]):
            losses["loss"].backward()
            trained = [p for group in self.optimizer.param_groups for p in group["params"]]
            norm = torch.nn.utils.clip_grad_norm_(trained, config.clip)
            if bool(torch.isfinite(norm)):
                self.optimizer.step()
                self.average.update(self.model, step)
                return values, lr
        self.progress.skipped += 1
        # A forward pass that went wrong has also been through batch norm's running statistics, where they move.
        average = self.average.average
        self.model.load_state_dict({n: average[n] for n, _ in self.model.named_buffers() if n in average}, strict=False)
        self.display.say(
            f"step {step + 1}: a loss or gradient was not finite; skipped. Images: {', '.join(batch.names)}"
        )
        return {}, lr

    def _give_up(self, batch: Batch) -> None:
        if not batch.names:
            raise UserError(
                f"{MOST_SKIPPED_IN_A_ROW + 1} steps in a row had no readable image, the last {batch.unreadable[0]}: "
                "is the folder of images still there?"
            )
        raise UserError(
            f"{MOST_SKIPPED_IN_A_ROW + 1} steps in a row had a loss or gradient that is not finite, the last at step "
            f"{self.progress.step + 1} with {', '.join(batch.names)}. The model files hold the weights from before. "
            "Try a lower --lr, or look at those images"
        )

    def _epoch_ends(self) -> bool:
        return self.progress.step % self.steps_per_epoch == 0

    # ---- budget ---------------------------------------------------------------------------------------------------

    def _elapsed(self) -> float:
        return self.progress.seconds + time.monotonic() - self.started

    def _measured(self) -> bool:
        assert self.budget is not None
        return self.progress.step >= WARMUP_STEPS or (
            self.progress.step >= 3 and self._elapsed() > MEASURING_SHARE * self.budget
        )

    def _plan_steps(self, step_times: list[float]) -> int:
        """Turn what is left of the budget into steps, once; the number is then part of the run's state."""
        assert self.budget is not None
        measured = step_times[min(3, len(step_times) - 1) :]
        step_seconds = sum(measured) / len(measured)
        validation_seconds = 0.0
        if self.val_data is not None:
            sample = self.val_data.take(range(min(4, len(self.val_data))))
            began = time.monotonic()
            evaluate(self._average_predictor(), sample)
            validation_seconds = (time.monotonic() - began) / len(sample) * len(self.val_data)
        left = self.budget - self._elapsed() - validation_seconds  # the last validation is always due
        more = steps_for(left, step_seconds, validation_seconds, self.steps_per_epoch)
        total = self.progress.step + more
        self.display.say(
            f"budget {self.config.train.budget}: {total} steps, at {step_seconds:.2f} s a step and about "
            f"{validation_seconds:.0f} s a validation every {self.steps_per_epoch} steps"
        )
        return total

    # ---- validation and files -------------------------------------------------------------------------------------

    def _average_predictor(self) -> Predictor:
        weights = self.average.average if self.config.train.ema else self.model.state_dict()
        self.validator.load_state_dict(weights)
        runtime = TorchRuntime(self.validator, self.device)
        return Predictor(runtime, self.config, self.data.class_ids, self.data.class_names)

    def _validate_and_save(self, board: Any) -> bool:
        """Score the averaged weights, keep them as last and, if they are, as best; true when patience has run out."""
        progress = self.progress
        predictor = self._average_predictor()
        scores: dict[str, Any] | None = None
        if self.val_data is not None:
            total = len(self.val_data)
            self.evaluation = examine(predictor, self.val_data, on_image=lambda n: self.display.validating(n, total))
            scores = self.evaluation.scores
            for path in scores["unreadable"]:
                self.display.say(f"validation leaves out {path}")
            entry = {
                "kind": "validation",
                "step": progress.step,
                "epoch": progress.step / self.steps_per_epoch,
                **scores,
            }
            self.folder.append_metrics(entry)
            group, key = self.config.train.select_by.split(".")
            chosen = scores[group][key]
            value = -1.0 if chosen is None else chosen
            for kind in ("box", "mask"):
                for name, number in scores[kind].items():
                    if isinstance(number, float):
                        board.add_scalar(f"{kind}/{name}", number, progress.step)
            board.add_scalar("kaggle/mean", scores["kaggle"]["mean"], progress.step)
            better = progress.best is None or value > progress.best
            mark = " (best)" if better else ""
            self.display.say(f"step {progress.step}: {describe_scores(scores)}{mark}")
            if better:
                progress.best, progress.best_step, progress.since_best = value, progress.step, 0
                self._write_model(self.folder.best, predictor, scores)
            else:
                progress.since_best += 1
        self._write_model(self.folder.last, predictor, scores)
        patience = self.config.train.patience
        if patience and progress.since_best >= patience:
            self.display.say(f"no better validation in {patience}: stopped early")
            return True
        return False

    def _write_model(self, path: Path, predictor: Predictor, scores: dict[str, Any] | None) -> None:
        provenance: dict[str, Any] = {
            "step": self.progress.step,
            "data": {
                "images": len(self.data),
                "instances": self.data.n_instances,
                "sha256": self.fingerprint,
                "names": "name" if Path(self.data.names[0]).suffix.lower() in SUFFIXES else "stem",
            },
            "versions": {
                "maskrcnn": __version__,
                "torch": str(torch.__version__),
                "python": platform.python_version(),
            },
        }
        if scores is not None:
            provenance["validation"] = {k: scores[k] for k in ("box", "mask", "kaggle", "images")}
        write_model(
            path,
            predictor.model.state_dict(),
            config=self.config,
            conventions=self.model.conventions,
            class_ids=self.data.class_ids,
            class_names=self.data.class_names,
            provenance=provenance,
        )

    def _save_state(self) -> None:
        self.progress.seconds = self._elapsed()
        self.started = time.monotonic()
        self.folder.save_state(self.progress, self.model.state_dict(), self.average.average, self.optimizer)

    def _restore(self) -> None:
        progress, weights, average, optimizer = self.folder.load_state()
        if progress.data != self.progress.data:
            raise UserError(
                f"the data is no longer that which {self.folder.path} began with: images, masks or their split differ, "
                "and a run can only go on with the same"
            )
        load_weights(self.model, weights, str(self.folder.state))
        self.average.average = {name: tensor.to(self.device) for name, tensor in average.items()}
        restore_optimizer(self.optimizer, optimizer)
        self.progress = progress
        self.folder.rewind_metrics(progress.step)
        self.display.say(f"resumed at step {progress.step}" + (f" of {progress.total}" if progress.total else ""))

    # ---- the record -----------------------------------------------------------------------------------------------

    def _write_description(self) -> None:
        weights = sum(t.numel() * t.element_size() for t in self.model.state_dict().values())
        require_space(self.folder.path, 10 * weights)
        write_text(self.config.to_yaml(), self.folder.config)
        classes = [{"id": c, "name": n} for c, n in zip(self.data.class_ids, self.data.class_names, strict=True)]
        write_text(json.dumps(classes, indent=1), self.folder.classes)
        write_text(json.dumps(self.model.conventions.to_dict()), self.folder.conventions)

    def _record(self, board: Any, losses: dict[str, float], lr: float, step_seconds: float, images: int) -> None:
        progress = self.progress
        entry = {"kind": "step", "step": progress.step, **losses, "lr": lr, "seconds": round(step_seconds, 3)}
        self.folder.append_metrics({**entry, "images": images, "skipped": progress.skipped})
        for name, value in losses.items():
            board.add_scalar(f"loss/{name}", value, progress.step)
        board.add_scalar("lr", lr, progress.step)
        self.display.step(progress.step, progress.total, losses)

    def _note_unreadable(self, batch: Batch) -> None:
        for message in batch.unreadable:
            if message not in self.progress.unreadable:
                self.progress.unreadable.append(message)
                self.display.say(f"left out ({len(self.progress.unreadable)} so far): {message}")

    def _best_scores(self) -> dict[str, Any] | None:
        if not self.folder.metrics.exists():
            return None
        entries = (json.loads(line) for line in self.folder.metrics.read_text("utf-8").splitlines())
        wanted = (e for e in entries if e["kind"] == "validation" and e["step"] == self.progress.best_step)
        return next(wanted, None)

    @contextmanager
    def _tensorboard(self) -> Iterator[Any]:
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(
            str(self.folder.path / "tensorboard"), purge_step=self.progress.step + 1 if self.progress.step else None
        )
        try:
            yield board
        finally:
            board.close()


@contextmanager
def _stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop` once; a second SIGINT interrupts at once. Only the main thread can listen."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, request)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
