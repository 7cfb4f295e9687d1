"""Whole runs, small: learning, files, resuming, stopping, and bad luck on the way."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import maskrcnn
from maskrcnn import Config, UserError
from maskrcnn.checkpoints.native import read_model
from maskrcnn.config import AugmentConfig, ModelConfig, TrainConfig
from maskrcnn.data.formats import open_dataset
from maskrcnn.data.synthetic import write_shapes
from maskrcnn.training import budget, learner, loop
from maskrcnn.training.run_folder import RunFolder

TINY = Config(
    model=ModelConfig(
        backbone="test_resnet", weights="none", image_size=64, channels=16, box_channels=32, mask_channels=16,
        proposals=40, proposals_per_level=40,
    ),
    train=TrainConfig(epochs=2, epoch_images=6, roi_batch=16, rpn_batch=32, mask_batch=4),
)  # fmt: skip


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def tensors(path):
    return read_model(path).weights


def test_two_images_are_learned_by_heart(tmp_path):
    csv = write_shapes(tmp_path, 4, seed=1, hw=(96, 96))
    data = open_dataset(csv, say=lambda _: None)
    two = data.take(np.flatnonzero(data.counts > 0)[:2])
    config = Config(
        model=ModelConfig(image_size=96, proposals=200, proposals_per_level=200, mask_channels=64, channels=64, box_channels=256),
        train=TrainConfig(epochs=1, epoch_images=320, roi_batch=64, mask_batch=16, ema=0.95, lr=1e-3, backbone_lr=1.0, workers=0),
        augment=AugmentConfig(flip=False, rotate=False, scale=(1.0, 1.0), color=0.0),
    )  # fmt: skip
    run = maskrcnn.train(two, None, out=tmp_path / "run", config=config)
    scores = maskrcnn.evaluate(run.model, two)
    assert scores["mask"]["AP"] > 0.9


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "one"
    return maskrcnn.train(*shapes.split(0.3), out=out, config=TINY)


def test_a_run_folder_holds_what_it_should(run):
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


def test_the_report_shows_the_whole_run(run):
    page = (run.path / "report.html").read_text("utf-8")
    assert "8 steps" in page
    assert "2 validations" in page
    assert "mrcnn_mask_loss" in page
    assert "Best and worst images" in page


def test_a_report_that_fails_does_not_end_the_run(shapes, tmp_path, monkeypatch):
    def broken(*arguments, **more):
        raise RuntimeError("what a page")

    monkeypatch.setattr("maskrcnn.inspection.report.write_report", broken)
    done = maskrcnn.train(*shapes.split(0.3), out=tmp_path / "run", config=TINY.changed(train={"epochs": 1}))
    assert done.finished
    assert RunFolder(done.path).load_state()[0].finished
    assert not (done.path / "report.html").exists()


def test_the_model_file_carries_everything(run, shapes):
    model = run.model
    assert model.class_names == ["box", "disc", "star", "triangle"]
    assert model.provenance["data"]["images"] == 8
    assert model.config.predict.detections == 100
    found = model.changed(score_threshold=0.0).predict(shapes.files[0])
    assert found.hw == shapes.hw(0)


def test_an_existing_run_is_never_overwritten(run, shapes):
    with pytest.raises(UserError, match="already holds a run"):
        maskrcnn.train(shapes, None, out=run.path, config=TINY)
    with pytest.raises(UserError, match="nothing to resume"):
        maskrcnn.train(shapes, None, out=run.path.parent / "other", config=TINY, resume=True)


def test_two_processes_cannot_write_one_run(run, shapes):
    with RunFolder(run.path).locked(), pytest.raises(UserError, match="another process"):
        maskrcnn.train(shapes, None, out=run.path, config=TINY, resume=True)


def test_a_run_goes_on_with_its_own_data_only(run, shapes):
    other = shapes.split(0.3, seed=9)
    with pytest.raises(UserError, match="began with other data"):
        maskrcnn.train(*other, out=run.path, config=TINY, resume=True)
    again = maskrcnn.train(*shapes.split(0.3), out=run.path, config=TINY, resume=True)
    assert again.finished
    assert [e["step"] for e in metrics(run.path) if e["kind"] == "step"] == list(range(1, 9))


def interrupt_after(monkeypatch, moment):
    """SIGTERM after step `moment` of runs from now on."""
    learn = learner.Learner.learn

    def interrupting(self, batch, step, total):
        result = learn(self, batch, step, total)
        if step + 1 == moment:
            signal.raise_signal(signal.SIGTERM)
        return result

    monkeypatch.setattr(learner.Learner, "learn", interrupting)


@pytest.mark.parametrize("moment", [1, 3, 7])
def test_an_interrupted_run_ends_where_the_other_did(run, shapes, tmp_path, monkeypatch, moment):
    """SIGTERM after a step, then resume: the same bytes as the run that was left alone."""
    parts = shapes.split(0.3)
    interrupt_after(monkeypatch, moment)
    first = maskrcnn.train(*parts, out=tmp_path / "two", config=TINY)
    assert not first.finished
    monkeypatch.undo()
    with (tmp_path / "two" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "step", "step": moment + 1}) + "\n" + '{"kind": "st')
    second = maskrcnn.train(*parts, out=tmp_path / "two", config=TINY, resume=True)
    assert second.finished
    for name in ("last.safetensors", "best.safetensors"):
        a, b = tensors(run.path / name), tensors(second.path / name)
        assert all(torch.equal(a[k], b[k]) for k in a)
    steps = [e["step"] for e in metrics(second.path) if e["kind"] == "step"]
    assert steps == list(range(1, 9))


def test_the_scale_of_float16_goes_on_where_it_was(shapes, tmp_path, monkeypatch):
    config = TINY.changed(train={"precision": "fp16"})
    interrupt_after(monkeypatch, 3)
    maskrcnn.train(shapes, None, out=tmp_path / "run", config=config)
    monkeypatch.undo()
    before, *_ = RunFolder(tmp_path / "run").load_state()
    assert before.scaler["_growth_tracker"] > 0
    seen = []
    monkeypatch.setattr(
        learner.Learner,
        "learn",
        lambda self, *a: (
            seen.append(self.scaler.state_dict()) or signal.raise_signal(signal.SIGTERM) or learner.Step({}, 0.0, 0)
        ),
    )
    maskrcnn.train(shapes, None, out=tmp_path / "run", config=config, resume=True)
    assert seen[0] == before.scaler


def test_a_loss_that_is_not_finite_is_skipped_and_counted(shapes, tmp_path, monkeypatch):
    forward = learner.Criterion.forward
    calls = []

    def poisoned(self, *arguments):
        losses = forward(self, *arguments)
        calls.append(1)
        return {k: v * float("nan") for k, v in losses.items()} if len(calls) == 2 else losses

    monkeypatch.setattr(learner.Criterion, "forward", poisoned)
    done = maskrcnn.train(shapes, None, out=tmp_path / "run", config=TINY)
    assert done.finished
    lines = metrics(done.path)
    assert "loss" not in lines[1]
    assert lines[-1]["skipped"] == 1
    for name in ("last.safetensors",):
        assert all(torch.isfinite(t).all() for t in tensors(done.path / name).values())


def test_losses_that_stay_wrong_end_the_run_with_the_images(shapes, tmp_path, monkeypatch):
    forward = learner.Criterion.forward
    monkeypatch.setattr(
        learner.Criterion,
        "forward",
        lambda self, *a: {k: v * float("inf") for k, v in forward(self, *a).items()},
    )
    with pytest.raises(UserError, match=r"6 steps in a row.*shapes_00"):
        maskrcnn.train(shapes, None, out=tmp_path / "run", config=TINY)


def test_unreadable_images_do_not_stop_a_run(shapes, tmp_path):
    import dataclasses

    broken = tmp_path / "broken.png"
    broken.write_bytes(shapes.files[0].read_bytes()[:200])
    data = dataclasses.replace(shapes, files=[broken, *shapes.files[1:]])
    done = maskrcnn.train(data, None, out=tmp_path / "run", config=TINY)
    assert done.finished
    progress, *_ = RunFolder(done.path).load_state()
    assert len(progress.unreadable) == 1
    assert "broken.png" in progress.unreadable[0]


def test_a_budget_becomes_a_number_of_steps_once(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "WARMUP_STEPS", 4)
    monkeypatch.setattr(budget, "steps_for", lambda *a: 3)
    done = maskrcnn.train(*shapes.split(0.3), out=tmp_path / "run", config=TINY, budget="10m")
    assert done.finished
    progress, *_ = RunFolder(done.path).load_state()
    assert progress.total == progress.step == 7


def test_a_budget_is_planned_by_the_steps_before_an_interruption_too(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "WARMUP_STEPS", 5)
    monkeypatch.setattr(budget, "steps_for", lambda *a: 3)
    interrupt_after(monkeypatch, 4)
    maskrcnn.train(*shapes.split(0.3), out=tmp_path / "run", config=TINY, budget="10m")
    before, *_ = RunFolder(tmp_path / "run").load_state()
    assert (before.step, before.total, len(before.step_times)) == (4, None, 4)
    done = maskrcnn.train(
        *shapes.split(0.3), out=tmp_path / "run", resume=True, config=Config.load(tmp_path / "run" / "config.yaml")
    )
    after, *_ = RunFolder(done.path).load_state()
    assert after.total == after.step == 8
    assert after.step_times[:4] == before.step_times


def test_what_cannot_work_is_told_before_the_folder_is_taken(shapes, tmp_path):
    two = write_shapes(tmp_path / "other", 2, seed=2)
    text = two.read_text()
    for k, name in enumerate(shapes.class_ids):
        text = text.replace(f",{name}\n", f",other{k}\n")
    two.write_text(text)
    other = open_dataset(two, say=lambda _: None)
    with pytest.raises(UserError, match="have nothing in common"):
        maskrcnn.train(shapes, other, out=tmp_path / "run", config=TINY)
    with pytest.raises(UserError, match="'left_hand', which is no class; the classes are"):
        maskrcnn.train(
            shapes, None, out=tmp_path / "run", config=TINY.changed(augment={"swap_on_flip": ["left_hand=right_hand"]})
        )
    assert maskrcnn.train(shapes, None, out=tmp_path / "run", config=TINY.changed(train={"epochs": 1})).finished


def test_patience_ends_a_run_early(shapes, tmp_path):
    config = TINY.changed(train={"epochs": 50, "patience": 1, "lr": 1e-12})
    done = maskrcnn.train(*shapes.split(0.3), out=tmp_path / "run", config=config)
    assert done.finished
    assert metrics(done.path)[-1]["step"] < 20


def test_a_run_works_outside_the_main_thread(shapes, tmp_path):
    results = []
    config = TINY.changed(train={"epochs": 1})
    thread = threading.Thread(
        target=lambda: results.append(maskrcnn.train(shapes, None, out=tmp_path / "run", config=config))
    )
    thread.start()
    thread.join()
    assert results[0].finished


def test_files_that_are_no_models_are_refused(tmp_path, run):
    (tmp_path / "a.safetensors").write_bytes(b"hello")
    with pytest.raises(UserError, match="not a readable model file"):
        maskrcnn.load(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="neither a run folder"):
        maskrcnn.load(tmp_path)
    with pytest.raises(UserError, match="cannot be resumed"):
        RunFolder(run.path / "state").load_state()


def test_a_run_that_is_killed_twice_ends_in_the_same_bytes():
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "kills.py"
    arguments = ["--kills", "2", "--steps", "24", "--json"]
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["kills"] == 2


@pytest.mark.slow
def test_a_run_that_is_killed_twenty_times_ends_in_the_same_bytes():
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "kills.py"
    done = subprocess.run([sys.executable, str(script), "--kills", "20"], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr


# TensorBoard writes in a thread of its own, whose failure reaches us only as a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_fills_up_ends_the_run_with_its_state_whole(shapes, tmp_path, monkeypatch):
    """The system refuses to let any file grow beyond a limit, as a full disk does; then there is room again."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    learn = learner.Learner.learn

    def filling_up(self, batch, step, total):
        if step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        return learn(self, batch, step, total)

    monkeypatch.setattr(loop, "STATE_SECONDS", 0.0)
    monkeypatch.setattr(learner.Learner, "learn", filling_up)
    parts = shapes.split(0.3)
    try:
        with pytest.raises(UserError, match=r"cannot write .*: .*[Ff]ile too large"):
            maskrcnn.train(*parts, out=tmp_path / "run", config=TINY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    monkeypatch.undo()
    progress, *_ = RunFolder(tmp_path / "run").load_state()
    assert progress.step == 2
    assert not list((tmp_path / "run").rglob("*.part*"))
    assert maskrcnn.train(*parts, out=tmp_path / "run", config=TINY, resume=True).finished


def test_a_folder_that_cannot_be_written_is_named_at_once(shapes, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be a run folder"):
        maskrcnn.train(shapes, None, out=tmp_path / "file", config=TINY)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match="cannot be a run folder: Permission denied"):
        maskrcnn.train(shapes, None, out=tmp_path / "run", config=TINY)


def test_what_a_killed_process_had_begun_to_write_is_cleared_away(run, shapes):
    left = [run.path / ".last.safetensors.77.part.safetensors", run.path / "state" / ".state.safetensors.77.part"]
    for path in left:
        path.write_bytes(b"half")
    maskrcnn.train(*shapes.split(0.3), out=run.path, config=TINY, resume=True)
    assert not any(path.exists() for path in left)
