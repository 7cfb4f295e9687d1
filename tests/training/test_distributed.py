"""Two processes started by torchrun, on a CPU over gloo: they do what one process does with a batch twice as large."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from socket import socket

import pytest
import torch
from torch.distributed import HashStore, Store

import maskrcnn
from maskrcnn import UserError
from maskrcnn.checkpoints.native import read_model
from maskrcnn.data.formats import open_dataset
from maskrcnn.training import distributed as processes
from maskrcnn.training.checkpoint import RunFolder
from maskrcnn.training.distributed import World, joined, name_of_start

SETTINGS = [
    "--backbone", "test_resnet", "--weights", "none", "--image-size", "64", "--channels", "16", "--box-channels", "32",
    "--mask-channels", "16", "--proposals", "40", "--proposals-per-level", "40", "--roi-batch", "16", "--rpn-batch", "32",
    "--mask-batch", "4", "--epochs", "2", "--epoch-images", "20", "--val", "0.25", "--workers", "0", "--lr", "0.001",
    "--freeze-norm",
]  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


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


def test_batches_one_after_the_other_in_two_processes_are_one_step(csv, tmp_path):
    """The gradients of all batches reach the other process."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for n, out, batches in ((1, whole, ["4"]), (2, cut, ["1", "--accumulate", "2"])):
        arguments = [str(csv), *SETTINGS, "--out", str(out), "--batch-size", *batches]
        done = subprocess.run(command(n, *arguments), env=ENVIRONMENT, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stderr
    for a, b in zip(lines(whole, "step"), lines(cut, "step"), strict=True):
        assert (a["step"], a["images"]) == (b["step"], b["images"])
        assert abs(a["loss"] - b["loss"]) < 1e-4


def test_a_run_that_was_there_before_is_not_gone_on_with(one, csv):
    """torchrun starts refused processes again; that makes the run none of theirs."""
    before = (one / "last.safetensors").read_bytes(), (one / "metrics.jsonl").read_bytes()
    arguments = [str(csv), "--out", str(one), "--batch-size", "1", *SETTINGS]
    done = subprocess.run(command(2, *arguments), env=ENVIRONMENT, capture_output=True, text=True, timeout=250)
    assert done.returncode != 0
    assert done.stderr.count("images to train on") == 2  # once for each start
    assert "already holds a run" in done.stderr
    assert "resumed" not in done.stderr
    assert before == ((one / "last.safetensors").read_bytes(), (one / "metrics.jsonl").read_bytes())


def names_of_start(store: Store, size: int, late: int) -> list[str]:
    """Those that processes find, of which number `late` comes last."""
    with ThreadPoolExecutor(size) as pool:
        found = {rank: pool.submit(name_of_start, store, rank, size) for rank in range(size) if rank != late}
        time.sleep(0.3)
        found[late] = pool.submit(name_of_start, store, late, size)
        return [found[rank].result(timeout=20) for rank in range(size)]


@pytest.mark.parametrize("late", [0, 2])
def test_processes_agree_on_a_name_that_no_earlier_start_had(late):
    store = HashStore()
    names = [names_of_start(store, 3, late) for _ in range(3)]
    assert all(len(set(found)) == 1 for found in names)
    assert len({found[0] for found in names}) == 3


def test_the_first_must_be_heard_of(monkeypatch):
    store = HashStore()
    store.set("start", "of one that is gone")
    monkeypatch.setattr(processes, "PATIENCE", 2.0)
    with pytest.raises(TimeoutError, match="process 1 of 2"):
        name_of_start(store, 1, 2)


def test_what_an_earlier_process_of_the_launcher_said_is_remembered(monkeypatch):
    """By a single process, too, which torchrun may start again."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "1", "RANK": "0"}
    for name, value in {**environment, "TORCHELASTIC_RUN_ID": "none"}.items():
        monkeypatch.setenv(name, value)
    with joined() as world:
        world.remember("a run")
        assert not world.remembers("a run"), "it was this process"
        monkeypatch.setattr(processes, "THIS_PROCESS", "one that was started again")
        assert world.remembers("a run")
        assert not world.remembers("another run")


def test_a_process_alone_agrees_with_itself():
    world = World()
    assert world.first
    world.remember("a run")
    assert not world.remembers("a run")
    assert world.sum(torch.tensor([2.0])).tolist() == [2.0]
    assert world.any(True)
    assert not world.any(False)
    assert world.gather("a") == ["a"]
    assert world.from_first(lambda: 3) == 3
    with pytest.raises(UserError, match="no"):
        world.from_first(lambda: (_ for _ in ()).throw(UserError("no")))
