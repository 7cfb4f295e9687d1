"""Small runs from start to finish: learning, files, resuming, stopping and failures."""

import json
import signal
import subprocess
import sys
import threading
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import maskrcnn
from maskrcnn import Config, UserError
from maskrcnn.checkpoints.native import read_model
from maskrcnn.config import AugmentConfig, ModelConfig, TrainConfig
from maskrcnn.data.formats import open_dataset
from maskrcnn.data.synthetic import write_shapes
from maskrcnn.inspection.diagnosis import PREDICTIONS_PER_IMAGE
from maskrcnn.training import budget, learner, loop, reports
from maskrcnn.training.run_folder import RunFolder
from tiny_runs import TINY, interrupt_after


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def tensors(path):
    return read_model(path).weights


def test_two_images_are_overfitted(tmp_path):
    csv = write_shapes(tmp_path, 4, seed=1, hw=(96, 96))
    data = open_dataset(csv, say=lambda _: None)
    two_images = data.take(np.flatnonzero(data.counts > 0)[:2])
    config = Config(
        model=ModelConfig(image_size=96, proposals=200, proposals_per_level=200, mask_channels=64, channels=64, box_channels=256),
        train=TrainConfig(epochs=1, epoch_images=320, roi_batch=64, mask_batch=16, ema=0.95, lr=1e-3, backbone_lr=1.0, workers=0),
        augment=AugmentConfig(flip=False, rotate=False, scale=(1.0, 1.0), color=0.0),
    )  # fmt: skip
    run = maskrcnn.train(two_images, None, out=tmp_path / "run", config=config)
    scores = maskrcnn.evaluate(run.model, two_images)
    assert scores["mask"]["AP"] > 0.9


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "one"
    return maskrcnn.train(*shapes.split(0.3), out=out, config=TINY)


def test_run_folder_holds_all_files_and_metrics(run):
    names = {p.name for p in run.path.iterdir()}
    assert {
        "config.yaml",
        "classes.json",
        "last.safetensors",
        "best.safetensors",
        "state",
        "metrics.jsonl",
        "report.html",
    } <= names
    assert any(p.name.startswith("events") for p in (run.path / "tensorboard").iterdir())
    lines = metrics(run.path)
    assert [e["step"] for e in lines if e["kind"] == "step"] == list(range(1, 9))
    assert [e["step"] for e in lines if e["kind"] == "validation"] == [4, 8]
    assert {
        "rpn_class_loss",
        "rpn_bbox_loss",
        "mrcnn_class_loss",
        "mrcnn_bbox_loss",
        "mrcnn_mask_loss",
    } <= set(lines[0])
    assert run.scores["kind"] == "validation"
    assert (run.path / "best.safetensors").stat().st_mode & 0o444 == 0o444


def test_report_covers_all_steps_and_validations(run):
    page = (run.path / "report.html").read_text("utf-8")
    assert "8 steps" in page
    assert "2 validations" in page
    assert "mrcnn_mask_loss" in page
    assert "Best and worst images" in page


def test_failing_report_does_not_fail_the_run(shapes, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("the report failed")

    monkeypatch.setattr("maskrcnn.inspection.report.write_report", broken)
    done = maskrcnn.train(*shapes.split(0.3), out=tmp_path / "run", config=TINY.changed(train={"epochs": 1}))
    assert done.finished
    assert RunFolder(done.path).load_state()[0].finished
    assert not (done.path / "report.html").exists()


def test_model_file_holds_classes_provenance_and_settings(run, shapes):
    model = run.model
    assert model.class_names == ["box", "disc", "star", "triangle"]
    assert model.provenance["data"]["images"] == 8
    assert model.config.predict.detections == 100
    detections = model.changed(score_threshold=0.0).predict(shapes.files[0])
    assert detections.hw == shapes.hw(0)


def test_existing_run_is_not_overwritten_and_missing_run_not_resumed(run, shapes):
    with pytest.raises(UserError, match="already holds a run"):
        maskrcnn.train(shapes, None, out=run.path, config=TINY)
    with pytest.raises(UserError, match="nothing to resume"):
        maskrcnn.train(shapes, None, out=run.path.parent / "other", config=TINY, resume=True)


def test_second_process_cannot_write_to_a_locked_run(run, shapes):
    with RunFolder(run.path).locked(), pytest.raises(UserError, match="another process"):
        maskrcnn.train(shapes, None, out=run.path, config=TINY, resume=True)


def test_run_resumes_only_with_its_own_data(run, shapes):
    other_split = shapes.split(0.3, seed=9)
    with pytest.raises(UserError, match="began with other data"):
        maskrcnn.train(*other_split, out=run.path, config=TINY, resume=True)
    resumed = maskrcnn.train(*shapes.split(0.3), out=run.path, config=TINY, resume=True)
    assert resumed.finished
    assert [e["step"] for e in metrics(run.path) if e["kind"] == "step"] == list(range(1, 9))


@pytest.mark.parametrize("stop_step", [1, 3, 7])
def test_resumed_run_ends_with_the_weights_of_an_uninterrupted_run(run, shapes, tmp_path, monkeypatch, stop_step):
    """The run stops on SIGTERM after a step and is then resumed."""
    splits = shapes.split(0.3)
    interrupt_after(monkeypatch, stop_step)
    interrupted = maskrcnn.train(*splits, out=tmp_path / "two", config=TINY)
    assert not interrupted.finished
    monkeypatch.undo()
    with (tmp_path / "two" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "step", "step": stop_step + 1}) + "\n" + '{"kind": "st')
    resumed = maskrcnn.train(*splits, out=tmp_path / "two", config=TINY, resume=True)
    assert resumed.finished
    for name in ("last.safetensors", "best.safetensors"):
        assert (run.path / name).read_bytes() == (resumed.path / name).read_bytes()
    steps = [e["step"] for e in metrics(resumed.path) if e["kind"] == "step"]
    assert steps == list(range(1, 9))


def test_resumed_bf16_run_ends_in_the_same_bytes(shapes, tmp_path, monkeypatch):
    config = TINY.changed(model={"backbone": "test_efficientnet"}, train={"precision": "bf16", "epochs": 1})
    splits = shapes.split(0.3)
    whole = maskrcnn.train(*splits, out=tmp_path / "one", config=config)
    interrupt_after(monkeypatch, 2)
    assert not maskrcnn.train(*splits, out=tmp_path / "two", config=config).finished
    monkeypatch.undo()
    resumed = maskrcnn.train(*splits, out=tmp_path / "two", config=config, resume=True)
    assert resumed.finished
    for name in ("last.safetensors", "best.safetensors"):
        assert (whole.path / name).read_bytes() == (resumed.path / name).read_bytes()


def test_resume_restores_the_fp16_loss_scale(shapes, tmp_path, monkeypatch):
    config = TINY.changed(train={"precision": "fp16"})
    interrupt_after(monkeypatch, 3)
    maskrcnn.train(shapes, None, out=tmp_path / "run", config=config)
    monkeypatch.undo()
    before, *_ = RunFolder(tmp_path / "run").load_state()
    assert before.scaler["_growth_tracker"] > 0
    states = []
    monkeypatch.setattr(
        learner.Learner,
        "learn",
        lambda self, *a: (
            states.append(self.scaler.state_dict()) or signal.raise_signal(signal.SIGTERM) or learner.Step({}, 0.0, 0)
        ),
    )
    maskrcnn.train(shapes, None, out=tmp_path / "run", config=config, resume=True)
    assert states[0] == before.scaler


def test_step_with_a_non_finite_loss_is_skipped_and_counted(shapes, tmp_path, monkeypatch):
    forward = learner.Criterion.forward
    calls = []

    def nan_at_second_step(self, *arguments):
        losses = forward(self, *arguments)
        calls.append(1)
        return {k: v * float("nan") for k, v in losses.items()} if len(calls) == 2 else losses

    monkeypatch.setattr(learner.Criterion, "forward", nan_at_second_step)
    done = maskrcnn.train(shapes, None, out=tmp_path / "run", config=TINY)
    assert done.finished
    lines = metrics(done.path)
    assert "loss" not in lines[1]
    assert lines[-1]["skipped"] == 1
    for name in ("last.safetensors",):
        assert all(torch.isfinite(t).all() for t in tensors(done.path / name).values())


def test_repeated_non_finite_losses_end_the_run_and_name_the_images(shapes, tmp_path, monkeypatch):
    forward = learner.Criterion.forward
    monkeypatch.setattr(
        learner.Criterion,
        "forward",
        lambda self, *a: {k: v * float("inf") for k, v in forward(self, *a).items()},
    )
    with pytest.raises(UserError, match=r"6 steps in a row.*shapes_00"):
        maskrcnn.train(shapes, None, out=tmp_path / "run", config=TINY)


def test_unreadable_images_do_not_stop_the_run(shapes, tmp_path):
    import dataclasses

    broken = tmp_path / "broken.png"
    broken.write_bytes(shapes.files[0].read_bytes()[:200])
    data = dataclasses.replace(shapes, files=[broken, *shapes.files[1:]])
    done = maskrcnn.train(data, None, out=tmp_path / "run", config=TINY)
    assert done.finished
    progress, *_ = RunFolder(done.path).load_state()
    assert len(progress.unreadable) == 1
    assert "broken.png" in progress.unreadable[0]


class Clock:
    """Stands in for the loop's `time`. It moves only in the work that `clock` slows down."""

    now = 0.0

    def monotonic(self):
        return self.now

    def slow_down(self, work, seconds):
        """Return `work` that takes `seconds` of its arguments."""

        def slow(*arguments, **options):
            result = work(*arguments, **options)
            self.now += seconds(*arguments)
            return result

        return slow


@pytest.fixture(params=[1.0, 0.0], ids=["slow files", "fast files"])
def clock(request, monkeypatch):
    """A step takes 2 s, a prediction 0.5 s; a model file 2 s, a state 3 s and a report 4 s, or nothing."""
    clock = Clock()
    for module in (loop, budget, reports):
        monkeypatch.setattr(module, "time", clock)
    for owner, name, seconds in (
        (learner.Learner, "learn", lambda *_: 2.0),
        (loop, "find", lambda model, data, images: 0.5 * len(images)),
        (budget, "find", lambda model, data, images: 0.5 * len(images)),
        (loop, "write_model", lambda *_: 2.0 * request.param),
        (RunFolder, "save_state", lambda *_: 3.0 * request.param),
        (loop, "write_run_report", lambda *_: 4.0 * request.param),
        (reports, "write_run_report", lambda *_: 4.0 * request.param),
        (reports, "find", lambda model, data, images: 0.5 * len(images)),
        (reports, "diagnose", lambda model, evaluation, n, _: 0.5 * PREDICTIONS_PER_IMAGE * n),
    ):
        monkeypatch.setattr(owner, name, clock.slow_down(getattr(owner, name), seconds))
    return clock


@pytest.mark.parametrize("seconds", [150, 300])
def test_budget_covers_everything_that_a_run_does(shapes, tmp_path, monkeypatch, clock, seconds):
    monkeypatch.setattr(budget, "WARMUP_STEPS", 6)
    done = maskrcnn.train(*shapes.split(0.3), out=tmp_path / "run", config=TINY, budget=f"{seconds}s")
    assert done.finished
    progress, *_ = RunFolder(done.path).load_state()
    assert progress.total == progress.step > 12
    assert 0.85 * seconds < clock.now <= seconds, "not every validation writes the best model"


def test_a_budget_without_validation_data_speaks_of_no_validation(shapes, tmp_path, monkeypatch, clock):
    monkeypatch.setattr(budget, "WARMUP_STEPS", 6)
    console = Console(file=StringIO(), width=200)
    maskrcnn.train(shapes, out=tmp_path / "run", config=TINY, budget="150s", console=console)
    lines = console.file.getvalue().splitlines()
    assert "validation" not in next(line for line in lines if line.startswith("budget 150s"))


def test_resumed_budget_counts_the_time_before_the_interruption(shapes, tmp_path, monkeypatch, clock):
    monkeypatch.setattr(budget, "WARMUP_STEPS", 8)
    interrupt_after(monkeypatch, 5)
    maskrcnn.train(*shapes.split(0.3), out=tmp_path / "run", config=TINY, budget="200s")
    before, *_ = RunFolder(tmp_path / "run").load_state()
    assert (before.step, before.total, len(before.step_times)) == (5, None, 5)
    lost = clock.now - before.seconds  # the files that an interrupted run writes, after it took its time
    config = Config.load(tmp_path / "run" / "config.yaml")
    maskrcnn.train(*shapes.split(0.3), out=tmp_path / "run", resume=True, config=config)
    after, *_ = RunFolder(tmp_path / "run").load_state()
    assert after.total == after.step
    assert after.step_times[:5] == before.step_times
    assert lost < 8
    assert 0.85 * 200 < clock.now - lost <= 200


def test_invalid_settings_are_refused_before_the_run_folder_is_created(shapes, tmp_path):
    csv = write_shapes(tmp_path / "other", 2, seed=2)
    text = csv.read_text()
    for k, name in enumerate(shapes.class_ids):
        text = text.replace(f",{name}\n", f",other{k}\n")
    csv.write_text(text)
    other_data = open_dataset(csv, say=lambda _: None)
    with pytest.raises(UserError, match="have nothing in common"):
        maskrcnn.train(shapes, other_data, out=tmp_path / "run", config=TINY)
    with pytest.raises(UserError, match="'left_hand', which is no class; the classes are"):
        maskrcnn.train(
            shapes, None, out=tmp_path / "run", config=TINY.changed(augment={"swap_on_flip": ["left_hand=right_hand"]})
        )
    assert maskrcnn.train(shapes, None, out=tmp_path / "run", config=TINY.changed(train={"epochs": 1})).finished


def test_patience_stops_the_run_early(shapes, tmp_path):
    config = TINY.changed(train={"epochs": 50, "patience": 1, "lr": 1e-12})
    done = maskrcnn.train(*shapes.split(0.3), out=tmp_path / "run", config=config)
    assert done.finished
    assert metrics(done.path)[-1]["step"] < 20


@pytest.mark.parametrize("select_by", ["mask.AP", "kaggle.mean"])
def test_an_undefined_score_chooses_nothing(shapes, tmp_path, select_by):
    """Validation without objects: no validation is the best or worse than another, and the last model stands."""
    empty, full = np.flatnonzero(shapes.counts == 0), np.flatnonzero(shapes.counts)
    config = TINY.changed(train={"epochs": 3, "patience": 1, "select_by": select_by})
    done = maskrcnn.train(shapes.take(full), shapes.take(empty), out=tmp_path / "run", config=config)
    lines = metrics(done.path)
    validations = [line for line in lines if line["kind"] == "validation"]
    assert done.finished
    assert len(validations) == 3
    assert not (done.path / "best.safetensors").exists()
    assert done.model.provenance["step"] == lines[-1]["step"] == validations[-1]["step"]
    assert done.scores["step"] == validations[-1]["step"]
    state, *_ = RunFolder(done.path).load_state()
    assert (state.best, state.since_best) == (None, 0)


def test_train_works_outside_the_main_thread(shapes, tmp_path):
    results = []
    config = TINY.changed(train={"epochs": 1})
    thread = threading.Thread(
        target=lambda: results.append(maskrcnn.train(shapes, None, out=tmp_path / "run", config=config))
    )
    thread.start()
    thread.join()
    assert results[0].finished


def test_invalid_model_files_are_refused(tmp_path, run):
    (tmp_path / "a.safetensors").write_bytes(b"hello")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        maskrcnn.load(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="neither a run folder"):
        maskrcnn.load(tmp_path)
    with pytest.raises(UserError, match="cannot be resumed"):
        RunFolder(run.path / "state").load_state()


def test_run_killed_twice_ends_with_the_same_bytes():
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "kills.py"
    arguments = ["--kills", "2", "--steps", "24", "--json"]
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["kills"] == 2


@pytest.mark.slow
def test_run_killed_twenty_times_ends_with_the_same_bytes():
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "kills.py"
    done = subprocess.run([sys.executable, str(script), "--kills", "20"], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr


# TensorBoard writes in its own thread; an error there reaches pytest only as a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_full_disk_ends_the_run_with_an_intact_state(shapes, tmp_path, monkeypatch):
    """A limit on the file size stands in for a full disk. After it is lifted, the run can be resumed."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    learn = learner.Learner.learn

    def filling_up(self, batch, step, total):
        if step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        return learn(self, batch, step, total)

    monkeypatch.setattr(loop, "STATE_SECONDS", 0.0)
    monkeypatch.setattr(learner.Learner, "learn", filling_up)
    splits = shapes.split(0.3)
    try:
        with pytest.raises(UserError, match=r"cannot write .*: .*[Ff]ile too large"):
            maskrcnn.train(*splits, out=tmp_path / "run", config=TINY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    monkeypatch.undo()
    progress, *_ = RunFolder(tmp_path / "run").load_state()
    assert progress.step == 2
    assert not list((tmp_path / "run").rglob("*.part*"))
    assert maskrcnn.train(*splits, out=tmp_path / "run", config=TINY, resume=True).finished


def test_unwritable_run_folder_is_reported_before_training(shapes, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be a run folder"):
        maskrcnn.train(shapes, None, out=tmp_path / "file", config=TINY)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match="cannot be a run folder: Permission denied"):
        maskrcnn.train(shapes, None, out=tmp_path / "run", config=TINY)


def test_partial_files_of_a_killed_process_are_removed(run, shapes):
    partial = [run.path / ".last.safetensors.77.part.safetensors", run.path / "state" / ".state.safetensors.77.part"]
    for path in partial:
        path.write_bytes(b"half")
    maskrcnn.train(*shapes.split(0.3), out=run.path, config=TINY, resume=True)
    assert not any(path.exists() for path in partial)
