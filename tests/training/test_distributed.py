"""Two torchrun processes on a CPU, over gloo, train like one process with a batch twice as large."""

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
from torch import Tensor
from torch.distributed import HashStore, Store

import maskrcnn
from maskrcnn import Config, UserError
from maskrcnn.checkpoints.native import read_model
from maskrcnn.data.formats import open_dataset
from maskrcnn.settings import Settings
from maskrcnn.training import distributed as processes
from maskrcnn.training.distributed import World, agree_on_start_id, joined
from maskrcnn.training.learner import NAMES
from maskrcnn.training.machine import Machine
from maskrcnn.training.run_folder import RunFolder
from maskrcnn.training.start import start

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


def assert_same_run(first: Path, second: Path) -> None:
    """Check that two run folders have the same 20 steps, validations and files."""
    steps = list(zip(lines(first, "step"), lines(second, "step"), strict=True))
    assert [b["step"] for _, b in steps] == list(range(1, 21))
    for a, b in steps:
        assert a["images"] == b["images"]
        for name in NAMES:
            assert abs(a[name] - b[name]) < 1e-4, (name, a, b)
    for a, b in zip(lines(first, "validation"), lines(second, "validation"), strict=True):
        assert (a["step"], a["images"], a["instances"]) == (b["step"], b["images"], b["instances"])
    a, b = (flat_weights(read_model(folder / "last.safetensors").weights) for folder in (first, second))
    distance, learned = float((a - b).norm()), float((a - initial_weights(first)).norm())
    assert distance < 1e-2 * learned, (distance, learned)
    assert {p.name for p in first.iterdir()} == {p.name for p in second.iterdir()}


def flat_weights(weights: dict[str, Tensor]) -> Tensor:
    return torch.cat([weights[name].double().ravel() for name in sorted(weights)])


def initial_weights(run: Path) -> Tensor:
    """The weights that a run began with."""
    data = open_dataset(json.loads((run / "state" / "data.json").read_text())["data"], say=lambda _: None)
    _, model = start(data, Settings.of(Config.load(run / "config.yaml")), Machine("cpu", 1), lambda _: None)
    return flat_weights(model.state_dict())


@pytest.fixture(scope="module")
def csv(shapes_csv, tmp_path_factory):
    """The shapes with one unreadable training image, which leaves one of two processes without an image in one step."""
    folder = tmp_path_factory.mktemp("broken")
    for path in (shapes_csv.parent / "images").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    trained, _ = open_dataset(shapes_csv, say=lambda _: None).split(0.25)
    broken = folder / trained.files[0].name
    broken.write_bytes(broken.read_bytes()[:200])
    (folder / "train.csv").write_text(shapes_csv.read_text())
    return folder / "train.csv"


@pytest.fixture(scope="module")
def single_run(csv, tmp_path_factory):
    out = tmp_path_factory.mktemp("single") / "run"
    arguments = [str(csv), "--out", str(out), "--batch-size", "2", *SETTINGS]
    done = subprocess.run(command(1, *arguments), env=ENVIRONMENT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return out


def test_two_processes_train_like_one_after_a_worker_is_killed(csv, single_run, tmp_path):
    """torchrun restarts both processes; they resume from the last state and score like one process."""
    out = tmp_path / "run"
    arguments = [str(csv), "--out", str(out), "--batch-size", "1", *SETTINGS]
    with subprocess.Popen(command(2, *arguments), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as launcher:
        wait_for_step(out, 3)
        os.kill(workers(launcher.pid)[1], signal.SIGKILL)
        _, log = launcher.communicate(timeout=250)
    assert launcher.returncode == 0, log
    assert "resumed at step" in log
    assert log.count("images to train on") == 2  # once for each start
    assert "left out (1 so far)" in log
    assert_same_run(single_run, out)
    _, val = open_dataset(csv, say=lambda _: None).split(0.25)
    scores = maskrcnn.evaluate(maskrcnn.load(out / "last.safetensors", device="cpu"), val)
    assert {kind: scores[kind] for kind in ("box", "mask", "kaggle")} == {
        kind: lines(out, "validation")[-1][kind] for kind in ("box", "mask", "kaggle")
    }


def test_two_processes_train_in_bf16_nearly_like_one_in_fp32(csv, single_run, tmp_path):
    out = tmp_path / "run"
    arguments = [str(csv), "--out", str(out), "--batch-size", "1", *SETTINGS, "--precision", "bf16"]
    done = subprocess.run(command(2, *arguments), env=ENVIRONMENT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    steps = list(zip(lines(single_run, "step"), lines(out, "step"), strict=True))
    assert any(a["loss"] != b["loss"] for a, b in steps)
    for a, b in steps[:5]:
        assert b["loss"] == pytest.approx(a["loss"], rel=0.05)


def test_signal_to_one_process_stops_all_at_the_same_step(csv, single_run, tmp_path):
    """The state is saved, and a different number of processes can resume the run."""
    out = tmp_path / "run"
    arguments = [str(csv), "--out", str(out), "--batch-size", "1", *SETTINGS]
    no_restart = [a.replace("max-restarts=1", "max-restarts=0") for a in command(2, *arguments)]
    with subprocess.Popen(no_restart, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as launcher:
        wait_for_step(out, 3)
        os.kill(workers(launcher.pid)[1], signal.SIGTERM)
        _, log = launcher.communicate(timeout=250)
    assert "stopped at step" in log
    progress, *_ = RunFolder(out).load_state()
    assert progress.step == len(lines(out, "step"))
    assert 3 <= progress.step < 20
    resumed = subprocess.run(
        command(1, "--resume", str(out)), env=ENVIRONMENT, capture_output=True, text=True, timeout=250
    )
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(single_run, out)


def wait_for_step(folder: Path, step: int) -> None:
    deadline = time.monotonic() + 200
    while not (
        (folder / "metrics.jsonl").exists() and len((folder / "metrics.jsonl").read_text().splitlines()) >= step
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def workers(launcher: int) -> list[int]:
    """Return the process ids of torchrun's workers, in order of rank."""
    pids = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            if parent == launcher:
                values = dict(v.split("=", 1) for v in (path.parent / "environ").read_text().split("\0") if "=" in v)
                pids[int(values["RANK"])] = int(path.parent.name)
        except (OSError, KeyError):
            continue  # the process has ended or is not a worker
    return [pids[rank] for rank in sorted(pids)]


def test_accumulation_in_two_processes_equals_one_large_batch(csv, tmp_path):
    """The gradients of all batches reach the other process."""
    single, split = tmp_path / "single", tmp_path / "split"
    for n, out, batches in ((1, single, ["4"]), (2, split, ["1", "--accumulate", "2"])):
        arguments = [str(csv), *SETTINGS, "--out", str(out), "--batch-size", *batches]
        done = subprocess.run(command(n, *arguments), env=ENVIRONMENT, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stderr
    for a, b in zip(lines(single, "step"), lines(split, "step"), strict=True):
        assert (a["step"], a["images"]) == (b["step"], b["images"])
        assert abs(a["loss"] - b["loss"]) < 1e-4


def test_restart_does_not_resume_an_older_run(single_run, csv):
    """torchrun restarts the refused processes; the restart must not take the older run for their own."""
    before = (single_run / "last.safetensors").read_bytes(), (single_run / "metrics.jsonl").read_bytes()
    arguments = [str(csv), "--out", str(single_run), "--batch-size", "1", *SETTINGS]
    done = subprocess.run(command(2, *arguments), env=ENVIRONMENT, capture_output=True, text=True, timeout=250)
    assert done.returncode != 0
    assert done.stderr.count("images to train on") == 2  # once for each start
    assert "already holds a run" in done.stderr
    assert "resumed" not in done.stderr
    assert before == ((single_run / "last.safetensors").read_bytes(), (single_run / "metrics.jsonl").read_bytes())


def start_ids(store: Store, size: int, late_rank: int) -> list[str]:
    """Return the id that each process gets when process `late_rank` comes last."""
    with ThreadPoolExecutor(size) as pool:
        futures = {rank: pool.submit(agree_on_start_id, store, rank, size) for rank in range(size) if rank != late_rank}
        time.sleep(0.3)
        futures[late_rank] = pool.submit(agree_on_start_id, store, late_rank, size)
        return [futures[rank].result(timeout=20) for rank in range(size)]


@pytest.mark.parametrize("late_rank", [0, 2])
def test_processes_agree_on_an_id_that_no_earlier_start_used(late_rank):
    store = HashStore()
    starts = [start_ids(store, 3, late_rank) for _ in range(3)]
    assert all(len(set(ids)) == 1 for ids in starts)
    assert len({ids[0] for ids in starts}) == 3


def test_missing_first_process_times_out(monkeypatch):
    store = HashStore()
    store.set("start", "id of a dead process")
    monkeypatch.setattr(processes, "GIVE_UP_SECONDS", 2.0)
    with pytest.raises(TimeoutError, match="process 1 of 2"):
        agree_on_start_id(store, 1, 2)


def test_restarted_process_remembers_facts_of_its_predecessor(monkeypatch):
    """A single process remembers too: torchrun may restart it."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "1", "RANK": "0"}
    for name, value in {**environment, "TORCHELASTIC_RUN_ID": "none"}.items():
        monkeypatch.setenv(name, value)
    with joined() as world:
        world.remember("a run")
        assert not world.remembers("a run"), "this process stored it itself"
        monkeypatch.setattr(processes, "THIS_PROCESS", "a restarted process")
        assert world.remembers("a run")
        assert not world.remembers("another run")


def test_world_of_a_single_process():
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
