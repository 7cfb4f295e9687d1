"""The run: plan -> steps -> validations -> model files. It can be stopped at any moment and resumed where it was."""

from __future__ import annotations

import json
import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from torch import Tensor

from maskrcnn.checkpoints.load import load, load_weights
from maskrcnn.checkpoints.native import Checkpoint, write_model
from maskrcnn.config import Config, seconds
from maskrcnn.data.batch import Batch, Shard, batches, images_per_pass
from maskrcnn.data.dataset import swapped_labels
from maskrcnn.data.headers import save_headers
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError, counted
from maskrcnn.evaluation import find, judge_found
from maskrcnn.evaluation.classes import match_classes
from maskrcnn.files import write_text
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes.torch import TorchRuntime
from maskrcnn.inspection.report import write_run_report
from maskrcnn.settings import Origin, Settings
from maskrcnn.training.allocator import freed_memory_kept
from maskrcnn.training.budget import (
    STATE_SECONDS,
    Budget,
    Overheads,
    diagnosis_seconds,
    time_validation,
    validation_due,
)
from maskrcnn.training.distributed import World, joined, pick_own_device
from maskrcnn.training.learner import Learner, Step, page_locked
from maskrcnn.training.machine import Machine
from maskrcnn.training.memory import fit_to_memory, free_bytes
from maskrcnn.training.numerics import deterministic, validation_type
from maskrcnn.training.precision import in_fastest_precision
from maskrcnn.training.progress import ProgressDisplay
from maskrcnn.training.record import Record, read_validation
from maskrcnn.training.reports import Reports
from maskrcnn.training.run_folder import RunFolder, RunState, provenance, require_space, restore_optimizer
from maskrcnn.training.start import build, data_notes, restart, start
from maskrcnn.training.stopping import stop_on_signals

MAX_SKIPPED_IN_A_ROW = 5


@dataclass(frozen=True)
class Run:
    """A finished or interrupted run: its folder, the scores of its model, if any, and whether it came to its end."""

    path: Path
    scores: dict[str, Any] | None
    finished: bool

    @property
    def model(self) -> Predictor:
        """The best model of the run, or the last one if no score chose."""
        return load(self.path)


def train(
    train_data: Dataset,
    val_data: Dataset | None = None,
    *,
    out: str | Path,
    config: Config | Settings | None = None,
    budget: str | None = None,
    resume: bool = False,
    source: dict[str, Any] | None = None,
    console: Console | None = None,
) -> Run:
    """Train on `train_data`, select the best model by `val_data`, and keep everything in the folder `out`.

    Without `val_data`, or if it is empty, nothing is scored and the model of the run is the last one. Pictures are read
    like those of `train_data`.

    `budget` ("30m") replaces the configuration's epochs. `resume` continues the run in `out` with its own
    configuration. `source` says how the data was opened; it is kept as ``state/data.json``. Progress is shown on
    `console`. SIGINT and SIGTERM save the state and end the run. Processes that torchrun started train together, and
    those that it restarts continue from the last state of the run that they began. Raises `UserError`.
    """
    folder = RunFolder(Path(out))
    settings = config if isinstance(config, Settings) else Settings.of(config or Config())
    if budget is not None:
        settings = settings.updated({"train": {"budget": budget}}, Origin.USER)
    swapped_labels(train_data.class_names, settings.config.augment)  # raises for a name that is no class
    if val_data is not None and len(val_data) == 0:
        val_data = None
    if val_data is not None:
        match_classes(train_data, val_data)  # raises for classes that do not agree
    with joined() as world, ExitStack() as held:

        def begin() -> bool:
            began = f"began {folder.path.resolve()}"
            resumes = resume or (world.remembers(began) and folder.state.exists())
            if resumes and not folder.state.exists():
                raise UserError(f"there is nothing to resume in {out}: {folder.state} does not exist")
            if not resumes and (folder.state.exists() or folder.metrics.exists()):
                raise UserError(f"{out} already holds a run; continue it with --resume {out}, or choose another folder")
            held.enter_context(folder.locked())
            if source is not None and not resumes:
                write_text(json.dumps(source), folder.data)
                save_headers(filter(None, (train_data, val_data)), folder.headers)
            world.remember(began)
            return resumes

        resumes = world.from_first(begin)
        with ProgressDisplay(console if world.first else None) as display:
            return _Trainer(folder, train_data, val_data, settings, resumes, display, world).run()


class _Trainer:
    def __init__(
        self,
        folder: RunFolder,
        train_data: Dataset,
        val_data: Dataset | None,
        settings: Settings,
        resume: bool,
        display: ProgressDisplay,
        world: World,
    ) -> None:
        self.started = time.monotonic()
        self.folder, self.data, self.val_data, self.display, self.world = folder, train_data, val_data, display, world
        if resume:
            settings, model = restart(train_data, folder)
            self.device = pick_own_device(settings.config.train.device)
        else:
            self.device = pick_own_device(settings.config.train.device)
            settings, model = start(train_data, settings, Machine.of(self.device.type), display.say)
        self.model = model.to(self.device)
        if not resume:
            settings = world.from_first(lambda: self._fitted_to_memory(settings))
        config = self.config = settings.config
        self.state = RunState(step_images=config.train.batch_size * config.train.accumulate * world.size)
        if config.train.budget is None:
            self.state.total = config.train.epochs * self.steps_per_epoch
        if not resume:
            settings = world.from_first(lambda: self._in_fastest_precision(settings))
            config = self.config = settings.config
        self.learner = Learner(self.model, config.train, world)
        self.fingerprint = train_data.fingerprint()
        self.state.data = [self.fingerprint] + ([val_data.fingerprint()] if val_data is not None else [])
        if any(data != self.state.data for data in world.gather(self.state.data)):
            raise UserError("the processes see different data: give all of them the same files under the same names")
        if resume:
            self._restore()
        else:
            world.from_first(lambda: self._write_description(settings))
            self._save_state()
        if world.size > 1:
            display.say(f"{world.size} processes, {self.state.step_images} images in each step")
        for note in data_notes(train_data, val_data, config.train.patience, self.folder.last.name):
            display.say(note)
        self.validator = build(config, train_data, model.conventions).to(self.device)
        self.reports = Reports(folder, display)

    @property
    def steps_per_epoch(self) -> int:
        """Steps between two validations."""
        images = max(images_per_pass(self.data, self.config), self.config.train.epoch_images)
        return math.ceil(images / self.state.step_images)

    def run(self) -> Run:
        state, world = self.state, self.world
        last_step = state.total if state.total is not None else 2**40
        shard = Shard.of(state.step_images, world.rank, world.size)
        finished, stopping, skipped_in_a_row = state.finished, False, 0
        saved = time.monotonic()
        folder = self.folder if world.first else None
        exact = deterministic(self.config.train.deterministic)
        kept = freed_memory_kept(self.device)
        with stop_on_signals() as stop, Record(folder, state, self.display) as record, exact, kept:
            finish = partial(page_locked, device=self.device)
            stream = batches(self.data, state.step, last_step, self.config, shard, self.model.conventions, finish)
            while not finished and not stopping:
                began = time.monotonic()
                batch = next(stream)
                waited = time.monotonic() - began
                step = self.learner.learn(batch, state.step, state.total)
                state.step += 1
                skipped_in_a_row = 0 if step.losses else skipped_in_a_row + 1
                if not step.losses or step.images < state.step_images:
                    self._report_skipped(batch, step, skipped_in_a_row)
                step_seconds = time.monotonic() - began
                record.step(step.losses, step.lr, step_seconds, waited, step.images)
                planned = state.total is None and self._plan(time.monotonic() - began)
                finished = state.step == state.total
                due = validation_due(state.step, state.total, self.steps_per_epoch)
                if due:
                    finished = self._validate_and_save(record) or finished
                state.finished = finished
                stopping = world.any(stop.is_set())
                if stopping or planned or finished or time.monotonic() - saved > STATE_SECONDS:
                    self._save_state()
                    saved = time.monotonic()
                if world.first and due:
                    self.reports.write(state.step)
            stream.close()
        if finished and self.val_data is not None:
            self.reports.write_last(self.val_data, self._predictor, state, self._seconds_left(), world.size)
        if not finished:
            self._write_model(self.folder.last, self._average_predictor(), None)
            self.display.say(f"stopped at step {state.step}; continue with --resume {self.folder.path}")
        scores = world.from_first(lambda: read_validation(self.folder, state.best_step or state.step))
        return Run(self.folder.path, scores, finished)

    def _report_skipped(self, batch: Batch, step: Step, skipped_in_a_row: int) -> None:
        """Report unreadable images and a skipped step. Raises `UserError` after too many skipped steps in a row."""
        state = self.state
        parts = self.world.gather((batch.names, batch.unreadable))
        names = [name for part, _ in parts for name in part]
        unreadable = [message for _, part in parts for message in part]
        for message in unreadable:
            if message not in state.unreadable:
                state.unreadable.append(message)
                self.display.say(f"left out ({len(state.unreadable)} so far): {message}")
        too_many = skipped_in_a_row > MAX_SKIPPED_IN_A_ROW
        if too_many and not names:
            raise UserError(
                f"{skipped_in_a_row} steps in a row had no readable image, the last {unreadable[0]}: "
                "is the folder of images still there?"
            )
        if too_many:
            raise UserError(
                f"{skipped_in_a_row} steps in a row had a loss or gradient that is not finite, the last at step "
                f"{state.step} with {', '.join(names)}. Those steps changed nothing. "
                "Try a lower --lr, or look at those images"
            )
        if names and not step.losses:
            state.skipped += 1
            images = ", ".join(names)
            self.display.say(f"step {state.step}: a loss or gradient was not finite; skipped. Images: {images}")

    def _elapsed(self) -> float:
        return self.state.seconds + time.monotonic() - self.started

    def _seconds_left(self) -> float:
        """Seconds that are left of the budget; infinity without one."""
        budget = self.config.train.budget
        return math.inf if budget is None else seconds(budget) - self._elapsed()

    def _plan(self, step_seconds: float) -> bool:
        """Turn the rest of the budget into a number of steps once the pace is known; returns whether it did."""
        self.state.total = self.world.from_first(lambda: self._planned_total(step_seconds))
        return self.state.total is not None

    def _planned_total(self, step_seconds: float) -> int | None:
        assert self.config.train.budget is not None
        self.state.step_times.append(step_seconds)
        budget = Budget(seconds(self.config.train.budget), self.state.step_times)
        if not budget.measured(self._elapsed()):
            return None
        overheads = self._time_overheads(budget.seconds)
        total = self.state.step + budget.more_steps(self._elapsed(), overheads, self.steps_per_epoch)
        overhead = "a validation" if self.val_data is not None else "the model's files"
        self.display.say(
            f"budget {self.config.train.budget}: {counted(total, 'step')} of {budget.step_seconds:.2f} s, and about "
            f"{overheads.validation:.0f} s for {overhead} every {counted(self.steps_per_epoch, 'step')}"
        )
        return total

    def _time_overheads(self, budget_seconds: float) -> Overheads:
        """Time a validation and a diagnosis, from a few images, a model file, a report and a saved state."""
        validation, evaluation = 0.0, None
        if self.val_data is not None:
            validation, evaluation = time_validation(self._average_predictor(), self.val_data, self.world.size)
        began = time.monotonic()
        self._write_model(self.folder.last, self._average_predictor(), None)
        model = time.monotonic() - began
        began = time.monotonic()
        with TemporaryDirectory() as folder:
            path = Path(folder) / "report.html"
            write_run_report(self.folder.path, evaluation, self.state.step, self.display.say, path)
        report = time.monotonic() - began
        began = time.monotonic()
        self._save_state()
        state = time.monotonic() - began
        diagnosis = 0.0 if evaluation is None else report + diagnosis_seconds(budget_seconds, evaluation)
        return Overheads(validation + 2 * model + report, state, diagnosis)  # models: last and best

    def _fitted_to_memory(self, settings: Settings) -> Settings:
        settings, reason = fit_to_memory(settings, self.model, self.device.type, free_bytes(self.device))
        if reason is not None:
            self.display.say(reason)
        return settings

    def _in_fastest_precision(self, settings: Settings) -> Settings:
        steps = math.inf if self.state.total is None else self.state.total
        return in_fastest_precision(settings, self.model, self.data, self._seconds_left(), steps, self.display.say)

    def _average_predictor(self) -> Predictor:
        return self._predictor(self.learner.average.average if self.config.train.ema else self.model.state_dict())

    def _predictor(self, weights: dict[str, Tensor]) -> Predictor:
        """Return a predictor with these weights, until the next call: all of them share one network."""
        self.validator.load_state_dict(weights)
        runtime = TorchRuntime(self.validator, self.device, validation_type(self.config.train.precision, self.device))
        classes = self.data.class_ids, self.data.class_names
        return Predictor(runtime, self.config, *classes, reading=self.data.reading)

    def _validate_and_save(self, record: Record) -> bool:
        """Score the averaged weights and keep them as last or also as best; returns whether patience ran out.

        An undefined score chooses nothing: without a defined one, the run has no best model, and the last one stands.
        """
        state, predictor = self.state, self._average_predictor()
        scores: dict[str, Any] | None = None
        if self.val_data is not None:
            scores = self._evaluate(predictor, self.val_data)
            for path in scores["unreadable"]:
                self.display.say(f"left out of the validation: {path}")
            group, key = self.config.train.select_by.split(".")
            value = scores[group][key] if scores["instances"] else None  # without objects, no score tells models apart
            better = value is not None and (state.best is None or value > state.best)
            record.validation(scores, state.step / self.steps_per_epoch, better)
            if better:
                state.best, state.best_step, state.since_best = value, state.step, 0
                self.reports.best = self.reports.last
                self._write_model(self.folder.best, predictor, scores)
            elif value is not None:
                state.since_best += 1
        self._write_model(self.folder.last, predictor, scores)
        patience = self.config.train.patience
        if patience and state.since_best >= patience:
            self.display.say(f"stopped early: none of the last {patience} validations was better")
            return True
        return False

    def _evaluate(self, predictor: Predictor, data: Dataset) -> dict[str, Any]:
        """`evaluate`, with the images divided among the processes."""
        began = time.monotonic()
        images = range(self.world.rank, len(data), self.world.size)
        share = find(
            predictor,
            data,
            images,
            batch_size=self.config.train.batch_size if self.device.type == "cuda" else 1,
            on_image=lambda n: self.display.validating(n, len(images)),
        )
        all_detections = {i: detections for part in self.world.gather(share) for i, detections in part.items()}

        def judge() -> dict[str, Any]:
            evaluation = judge_found(predictor, data, all_detections, time.monotonic() - began)
            self.reports.last = evaluation
            if evaluation.limit_note:
                self.display.say(evaluation.limit_note)
            return evaluation.scores

        return self.world.from_first(judge)

    def _write_model(self, path: Path, predictor: Predictor, scores: dict[str, Any] | None) -> None:
        if not self.world.first:
            return
        write_model(
            path,
            Checkpoint(
                weights=predictor.model.state_dict(),
                config=self.config,
                conventions=self.model.conventions,
                class_ids=self.data.class_ids,
                class_names=self.data.class_names,
                provenance=provenance(self.data, self.fingerprint, self.state.step, scores),
                reading=self.data.reading,
            ),
        )

    def _save_state(self) -> None:
        self.state.seconds = self._elapsed()
        self.started = time.monotonic()
        self.state.scaler = self.learner.scaler.state_dict()
        if self.world.first:
            learner = self.learner
            self.folder.save_state(self.state, self.model.state_dict(), learner.average.average, learner.optimizer)

    def _restore(self) -> None:
        state, weights, average, optimizer = self.folder.load_state()
        if state.data != self.state.data:
            raise UserError(
                f"{self.folder.path} began with other data: images, masks, their split, --depth or --exif differ, and "
                "a run can only be resumed with the same"
            )
        if state.step_images < self.world.size:
            raise UserError(f"{self.world.size} processes cannot share a step of {state.step_images} images")
        load_weights(self.model, weights, str(self.folder.state))
        self.learner.average.average = {name: tensor.to(self.device) for name, tensor in average.items()}
        restore_optimizer(self.learner.optimizer, optimizer)
        self.learner.scaler.load_state_dict(state.scaler)
        self.state = state
        if self.world.first:
            self.folder.rewind_metrics(state.step)
        self.display.say(f"resumed at step {state.step}" + (f" of {state.total}" if state.total else ""))

    def _write_description(self, settings: Settings) -> None:
        model_bytes = sum(t.numel() * t.element_size() for t in self.model.state_dict().values())
        require_space(self.folder.path, 10 * model_bytes)
        write_text(settings.to_yaml(), self.folder.config)
        classes = [{"id": c, "name": n} for c, n in zip(self.data.class_ids, self.data.class_names, strict=True)]
        write_text(json.dumps(classes, indent=1), self.folder.classes)
        write_text(json.dumps(self.model.conventions.to_dict()), self.folder.conventions)
