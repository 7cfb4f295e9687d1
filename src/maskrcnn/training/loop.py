"""The run: plan -> steps -> validations -> model files; it can be stopped at any moment and goes on where it was."""

from __future__ import annotations

import json
import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from maskrcnn.checkpoints import load
from maskrcnn.checkpoints.native import load_weights, write_model
from maskrcnn.config import Config, seconds
from maskrcnn.data.augment import fit
from maskrcnn.data.batch import Batch, Share, batches, images_per_pass
from maskrcnn.data.dataset import swapped_labels
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError
from maskrcnn.evaluation import Evaluation, evaluate, find, judge_found, require_common_classes
from maskrcnn.files import write_text
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes.torch import TorchRuntime
from maskrcnn.inspection.report import write_run_report
from maskrcnn.training.allocator import freed_memory_kept
from maskrcnn.training.budget import Budget, across_sizes, seconds_for_all, validation_due
from maskrcnn.training.checkpoint import Progress, RunFolder, provenance, require_space, restore_optimizer
from maskrcnn.training.distributed import World, joined, pick_own_device
from maskrcnn.training.learner import Learner, Step
from maskrcnn.training.memory import fit_to_memory, free_bytes
from maskrcnn.training.numerics import deterministic
from maskrcnn.training.progress import ProgressDisplay
from maskrcnn.training.record import Record, read_validation
from maskrcnn.training.start import build, start, start_again
from maskrcnn.training.stopping import stop_on_signals

STATE_SECONDS = 120.0
"""A killed run loses at most about this much work, and a validation that was under way."""

MOST_SKIPPED_IN_A_ROW = 5


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
    `console`. SIGINT and SIGTERM save the state and end the run. Processes that torchrun started train together; those
    that it starts again go on from the last state of the run that they began. Raises `UserError`.
    """
    folder = RunFolder(Path(out))
    config = config or Config()
    if budget is not None:
        config = config.changed(train={"budget": budget})
    swapped_labels(train_data.class_names, config.augment)  # raises for a name that is no class
    if val_data is not None:
        require_common_classes(train_data.class_ids, val_data)
    with joined() as world, ExitStack() as held:

        def begin() -> bool:
            began = f"began {folder.path.resolve()}"
            goes_on = resume or (world.remembers(began) and folder.state.exists())
            if goes_on and not folder.state.exists():
                raise UserError(f"there is nothing to resume in {out}: {folder.state} does not exist")
            if not goes_on and (folder.state.exists() or folder.metrics.exists()):
                raise UserError(f"{out} already holds a run; go on with it by --resume {out}, or choose another folder")
            held.enter_context(folder.locked())
            if source is not None and not goes_on:
                write_text(json.dumps(source), folder.data)
            world.remember(began)
            return goes_on

        goes_on = world.from_first(begin)
        with ProgressDisplay(console if world.first else None) as display:
            return _Trainer(folder, train_data, val_data, config, goes_on, display, world).run()


class _Trainer:
    def __init__(
        self,
        folder: RunFolder,
        train_data: Dataset,
        val_data: Dataset | None,
        config: Config,
        resume: bool,
        display: ProgressDisplay,
        world: World,
    ) -> None:
        self.started = time.monotonic()
        self.folder, self.data, self.val_data, self.display, self.world = folder, train_data, val_data, display, world
        if resume:
            self.config, model = start_again(train_data, folder)
        else:
            self.config, model = start(train_data, config, display.say)
        self.device = pick_own_device(self.config.train.device)
        self.model = model.to(self.device)
        if not resume:
            self.config = world.from_first(self._fitted_to_memory)
        config = self.config
        self.learner = Learner(self.model, config.train, world)
        self.progress = Progress(step_images=config.train.batch_size * config.train.accumulate * world.size)
        if config.train.budget is None:
            self.progress.total = config.train.epochs * self.steps_per_epoch
        self.fingerprint = train_data.fingerprint()
        self.progress.data = [self.fingerprint] + ([val_data.fingerprint()] if val_data is not None else [])
        if any(data != self.progress.data for data in world.gather(self.progress.data)):
            raise UserError("the processes see different data: give all of them the same files, by the same names")
        if resume:
            self._restore()
        else:
            world.from_first(self._write_description)
            self._save_state()
        if world.size > 1:
            display.say(f"{world.size} processes, {self.progress.step_images} images a step")
        self.validator = build(config, train_data, model.conventions).to(self.device)
        self.evaluation: Evaluation | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps between two validations."""
        images = max(images_per_pass(self.data, self.config), self.config.train.epoch_images)
        return math.ceil(images / self.progress.step_images)

    # ---- the run --------------------------------------------------------------------------------------------------

    def run(self) -> Run:
        progress, world = self.progress, self.world
        last_step = progress.total if progress.total is not None else 2**40
        share = Share.of(progress.step_images, world.rank, world.size)
        finished, stopping = progress.finished, False
        skipped_in_a_row = 0
        saved = time.monotonic()
        folder = self.folder if world.first else None
        exact = deterministic(self.config.train.deterministic)
        kept = freed_memory_kept(self.device)
        with stop_on_signals() as stop, Record(folder, progress, self.display) as record, exact, kept:
            stream = batches(self.data, progress.step, last_step, self.config, share)
            while not finished and not stopping:
                began = time.monotonic()
                batch = next(stream)
                waited = time.monotonic() - began
                step = self.learner.learn(batch, progress.step, progress.total)
                progress.step += 1
                skipped_in_a_row = 0 if step.losses else skipped_in_a_row + 1
                if not step.losses or step.images < progress.step_images:
                    self._note_bad_luck(batch, step, skipped_in_a_row)
                step_seconds = time.monotonic() - began
                record.step(step.losses, step.lr, step_seconds, waited, step.images)
                planned = progress.total is None and self._plan(step_seconds)
                finished = progress.step == progress.total
                due = validation_due(progress.step, progress.total, self.steps_per_epoch)
                if due:
                    finished = self._validate_and_save(record) or finished
                progress.finished = finished
                stopping = world.any(stop.is_set())
                if stopping or planned or finished or time.monotonic() - saved > STATE_SECONDS:
                    self._save_state()
                    saved = time.monotonic()
                if world.first and due:
                    write_run_report(self.folder.path, self.evaluation, self.display.say)
            stream.close()
        if not finished:
            self._write_model(self.folder.last, self._average_predictor(), None)
            self.display.say(f"stopped at step {progress.step}; go on with --resume {self.folder.path}")
        scores = world.from_first(lambda: read_validation(self.folder, progress.best_step))
        return Run(self.folder.path, scores, finished)

    def _note_bad_luck(self, batch: Batch, step: Step, skipped_in_a_row: int) -> None:
        """Tell of images that could not be read and of a step that moved nothing; too many of those end the run."""
        progress = self.progress
        everywhere = self.world.gather((batch.names, batch.unreadable))
        names = [name for part, _ in everywhere for name in part]
        unreadable = [message for _, part in everywhere for message in part]
        for message in unreadable:
            if message not in progress.unreadable:
                progress.unreadable.append(message)
                self.display.say(f"left out ({len(progress.unreadable)} so far): {message}")
        too_many = skipped_in_a_row > MOST_SKIPPED_IN_A_ROW
        if too_many and not names:
            raise UserError(
                f"{skipped_in_a_row} steps in a row had no readable image, the last {unreadable[0]}: "
                "is the folder of images still there?"
            )
        if too_many:
            raise UserError(
                f"{skipped_in_a_row} steps in a row had a loss or gradient that is not finite, the last at step "
                f"{progress.step} with {', '.join(names)}. Those steps changed nothing. "
                "Try a lower --lr, or look at those images"
            )
        if names and not step.losses:
            progress.skipped += 1
            self.display.say(
                f"step {progress.step}: a loss or gradient was not finite; skipped. Images: {', '.join(names)}"
            )

    # ---- budget ---------------------------------------------------------------------------------------------------

    def _elapsed(self) -> float:
        return self.progress.seconds + time.monotonic() - self.started

    def _plan(self, step_seconds: float) -> bool:
        """Turn what is left of the budget into steps when the pace is known; true when that was done."""
        self.progress.total = self.world.from_first(lambda: self._planned_total(step_seconds))
        return self.progress.total is not None

    def _planned_total(self, step_seconds: float) -> int | None:
        assert self.config.train.budget is not None
        self.progress.step_times.append(step_seconds)
        budget = Budget(seconds(self.config.train.budget), self.progress.step_times)
        if not budget.measured(self._elapsed()):
            return None
        validation_seconds = self._time_validation()
        more = budget.more_steps(self._elapsed(), validation_seconds, self.steps_per_epoch)
        total = self.progress.step + more
        self.display.say(
            f"budget {self.config.train.budget}: {total} steps, at {budget.step_seconds:.2f} s a step and about "
            f"{validation_seconds:.0f} s a validation every {self.steps_per_epoch} steps"
        )
        return total

    def _time_validation(self) -> float:
        """Seconds that a validation will take, from a few of its images, small to large."""
        if self.val_data is None or len(self.val_data) == 0:
            return 0.0
        pixels = np.array([math.prod(fit(hw, self.config.model).hw) for hw in self.val_data.sizes.tolist()])
        timed = across_sizes(pixels)
        predictor, times = self._average_predictor(), []
        for i in [timed[0], *timed]:  # the first time, kernels are compiled
            began = time.monotonic()
            evaluate(predictor, self.val_data.take([i]))
            times.append(time.monotonic() - began)
        return seconds_for_all(pixels, timed, times[1:]) / self.world.size

    def _fitted_to_memory(self) -> Config:
        config, reason = fit_to_memory(self.config, self.model, free_bytes(self.device))
        if reason is not None:
            self.display.say(reason)
        return config

    # ---- validation and files -------------------------------------------------------------------------------------

    def _average_predictor(self) -> Predictor:
        weights = self.learner.average.average if self.config.train.ema else self.model.state_dict()
        self.validator.load_state_dict(weights)
        runtime = TorchRuntime(self.validator, self.device)
        return Predictor(runtime, self.config, self.data.class_ids, self.data.class_names)

    def _validate_and_save(self, record: Record) -> bool:
        """Score the averaged weights, keep them as last and, if they are, as best; true when patience has run out."""
        progress, predictor = self.progress, self._average_predictor()
        scores: dict[str, Any] | None = None
        if self.val_data is not None:
            scores = self._evaluate(predictor, self.val_data)
            for path in scores["unreadable"]:
                self.display.say(f"validation leaves out {path}")
            group, key = self.config.train.select_by.split(".")
            value = -1.0 if scores[group][key] is None else scores[group][key]
            better = progress.best is None or value > progress.best
            record.validation(scores, progress.step / self.steps_per_epoch, better)
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

    def _evaluate(self, predictor: Predictor, data: Dataset) -> dict[str, Any]:
        """`evaluate`, the images dealt out to the processes."""
        began = time.monotonic()
        own = range(self.world.rank, len(data), self.world.size)
        found = find(predictor, data, own, on_image=lambda n: self.display.validating(n, len(own)))
        everywhere = {i: one for part in self.world.gather(found) for i, one in part.items()}

        def judge() -> dict[str, Any]:
            self.evaluation = judge_found(predictor, data, everywhere, time.monotonic() - began)
            return self.evaluation.scores

        return self.world.from_first(judge)

    def _write_model(self, path: Path, predictor: Predictor, scores: dict[str, Any] | None) -> None:
        if not self.world.first:
            return
        write_model(
            path,
            predictor.model.state_dict(),
            config=self.config,
            conventions=self.model.conventions,
            class_ids=self.data.class_ids,
            class_names=self.data.class_names,
            provenance=provenance(self.data, self.fingerprint, self.progress.step, scores),
        )

    def _save_state(self) -> None:
        self.progress.seconds = self._elapsed()
        self.started = time.monotonic()
        self.progress.scaler = self.learner.scaler.state_dict()
        if self.world.first:
            learner = self.learner
            self.folder.save_state(self.progress, self.model.state_dict(), learner.average.average, learner.optimizer)

    def _restore(self) -> None:
        progress, weights, average, optimizer = self.folder.load_state()
        if progress.data != self.progress.data:
            raise UserError(
                f"the data is no longer that which {self.folder.path} began with: images, masks or their split differ, "
                "and a run can only go on with the same"
            )
        if progress.step_images < self.world.size:
            raise UserError(f"{self.world.size} processes cannot share a step of {progress.step_images} images")
        load_weights(self.model, weights, str(self.folder.state))
        self.learner.average.average = {name: tensor.to(self.device) for name, tensor in average.items()}
        restore_optimizer(self.learner.optimizer, optimizer)
        self.learner.scaler.load_state_dict(progress.scaler)
        self.progress = progress
        if self.world.first:
            self.folder.rewind_metrics(progress.step)
        self.display.say(f"resumed at step {progress.step}" + (f" of {progress.total}" if progress.total else ""))

    def _write_description(self) -> None:
        weights = sum(t.numel() * t.element_size() for t in self.model.state_dict().values())
        require_space(self.folder.path, 10 * weights)
        write_text(self.config.to_yaml(), self.folder.config)
        classes = [{"id": c, "name": n} for c, n in zip(self.data.class_ids, self.data.class_names, strict=True)]
        write_text(json.dumps(classes, indent=1), self.folder.classes)
        write_text(json.dumps(self.model.conventions.to_dict()), self.folder.conventions)
