"""Two processes started by torchrun, on a CPU over gloo: they do what one process does with a batch twice as large."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import maskrcnn
from maskrcnn import UserError
from maskrcnn.checkpoints.native import read_model
from maskrcnn.data.formats import open_dataset
from maskrcnn.training.checkpoint import RunFolder
from maskrcnn.training.distributed import World
from maskrcnn.training.loop import _is_run_of

SETTINGS = [
    "--backbone", "test_resnet", "--weights", "none", "--image-size", "64", "--channels", "16", "--box-channels", "32",
    "--mask-channels", "16", "--proposals", "40", "--proposals-per-level", "40", "--roi-batch", "16", "--rpn-batch", "32",
    "--mask-batch", "4", "--epochs", "2", "--epoch-images", "20", "--val", "0.25", "--workers", "0", "--lr", "0.001",
]  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "TORCHELASTIC_RESTART_COUNT": "0"}


def command(processes: int, *arguments: str) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "--max-restarts=1"]
    return [sys.executable, *(launcher if processes > 1 else []), "-m", "maskrcnn", "train", *arguments]


def lines(folder: Path, kind: str) -> list[dict]:
    entries = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [entry for entry in entries if entry["kind"] == kind]


def assert_followed(one: Path, two: Path) -> None:
    """The same 20 steps, validations and files."""
    steps = list(zip(lines(one, "step"), lines(two, "step"), strict=True))
    assert [b["step"] for _, b in steps] == list(range(1, 21))
    for a, b in steps:
        assert a["images"] == b["images"]
        for name in a.keys() & {
            "loss",
            "rpn_class_loss",
            "rpn_bbox_loss",
            "mrcnn_class_loss",
            "mrcnn_bbox_loss",
            "mrcnn_mask_loss",
        }:
            assert abs(a[name] - b[name]) < 1e-4, (name, a, b)
    for a, b in zip(lines(one, "validation"), lines(two, "validation"), strict=True):
        assert (a["step"], a["images"], a["instances"]) == (b["step"], b["images"], b["instances"])
    a, b = (read_model(folder / "last.safetensors", "cpu").model.state_dict() for folder in (one, two))
    assert max(float((a[name].float() - b[name].float()).abs().max()) for name in a) < 1e-2
    assert {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()}


@pytest.fixture(scope="module")
def csv(shapes_csv, tmp_path_factory):
    """The shapes, of which one picture that is trained on cannot be read: one of two processes is left without any."""
    folder = tmp_path_factory.mktemp("broken")
    for path in (shapes_csv.parent / "images").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    trained, _ = open_dataset(shapes_csv, say=lambda _: None).split(0.25)
    broken = folder / trained.files[0].name
    broken.write_bytes(broken.read_bytes()[:200])
    (folder / "train.csv").write_text(shapes_csv.read_text())
    return folder / "train.csv"


@pytest.fixture(scope="module")
def one(csv, tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "run"
    arguments = [str(csv), "--out", str(out), "--batch-size", "2", *SETTINGS]
    done = subprocess.run(command(1, *arguments), env=ENVIRONMENT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return out


def test_two_processes_follow_one_though_a_worker_is_killed(csv, one, tmp_path):
    """torchrun starts both again, and they go on from the last state; the scores they share are those of one process."""
    out = tmp_path / "run"
    arguments = [str(csv), "--out", str(out), "--batch-size", "1", *SETTINGS]
    with subprocess.Popen(command(2, *arguments), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as launcher:
        wait_for_step(out, 3)
        os.kill(workers(launcher.pid)[1], signal.SIGKILL)
        _, words = launcher.communicate(timeout=250)
    assert launcher.returncode == 0, words
    assert "resumed at step" in words
    assert words.count("images to train on") == 2  # once for each start
    assert "left out (1 so far)" in words
    assert_followed(one, out)
    _, val = open_dataset(csv, say=lambda _: None).split(0.25)
    scores = maskrcnn.evaluate(maskrcnn.load(out / "last.safetensors", device="cpu"), val)
    assert {kind: scores[kind] for kind in ("box", "mask", "kaggle")} == {
        kind: lines(out, "validation")[-1][kind] for kind in ("box", "mask", "kaggle")
    }


def test_a_signal_to_one_stops_all_at_one_step_with_the_state_saved(csv, one, tmp_path):
    """And another number of processes goes on with the run."""
    out = tmp_path / "run"
    arguments = [str(csv), "--out", str(out), "--batch-size", "1", *SETTINGS]
    no_restart = [a.replace("max-restarts=1", "max-restarts=0") for a in command(2, *arguments)]
    with subprocess.Popen(no_restart, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as launcher:
        wait_for_step(out, 3)
        os.kill(workers(launcher.pid)[1], signal.SIGTERM)
        _, words = launcher.communicate(timeout=250)
    assert "stopped at step" in words
    progress, *_ = RunFolder(out).load_state()
    assert progress.step == len(lines(out, "step"))
    assert 3 <= progress.step < 20
    resumed = subprocess.run(
        command(1, "--resume", str(out)), env=ENVIRONMENT, capture_output=True, text=True, timeout=250
    )
    assert resumed.returncode == 0, resumed.stderr
    assert_followed(one, out)


def wait_for_step(folder: Path, step: int) -> None:
    deadline = time.monotonic() + 200
    while not (
        (folder / "metrics.jsonl").exists() and len((folder / "metrics.jsonl").read_text().splitlines()) >= step
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def workers(launcher: int) -> list[int]:
    """Process numbers of what torchrun started, in order of rank."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            if parent == launcher:
                values = dict(v.split("=", 1) for v in (path.parent / "environ").read_text().split("\0") if "=" in v)
                found[int(values["RANK"])] = int(path.parent.name)
        except (OSError, KeyError):
            continue  # it has ended, or is no worker
    return [found[rank] for rank in sorted(found)]


def test_only_the_same_settings_go_on_by_themselves(one):
    folder = RunFolder(one)
    own = maskrcnn.Config.load(folder.config)
    assert _is_run_of(folder, maskrcnn.Config().changed(train={"lr": 0.001}))
    assert not _is_run_of(folder, own.changed(train={"lr": 0.002}))
    assert not _is_run_of(RunFolder(one / "elsewhere"), own)


def test_a_process_alone_agrees_with_itself():
    world = World()
    assert world.first
    assert world.sum(torch.tensor([2.0])).tolist() == [2.0]
    assert world.any(True)
    assert not world.any(False)
    assert world.gather("a") == ["a"]
    assert world.from_first(lambda: 3) == 3
    with pytest.raises(UserError, match="no"):
        world.from_first(lambda: (_ for _ in ()).throw(UserError("no")))
