"""The precision of a run on a CPU: timed on copies of the network, once for each network and machine."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch

import maskrcnn
from maskrcnn.config import Config
from maskrcnn.data.batch import Shard, make_batch
from maskrcnn.model.mask_rcnn import build_model
from maskrcnn.settings import Origin, Settings
from maskrcnn.training import loop, precision
from maskrcnn.training.precision import MIN_STEPS, ROUNDS, in_fastest_precision, time_steps
from tiny_runs import TINY


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A processor with bf16, and an empty cache."""
    monkeypatch.setenv("MASKRCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "half_precisions", lambda device: ["bf16"])


@pytest.fixture
def timed(monkeypatch):
    """Pretend that steps take times, and list the measured runs."""

    def pretend(fp32, bf16):
        runs = []

        def fake(model, config, batches, seconds):
            runs.append(len(batches))
            return {"fp32": fp32, "bf16": bf16}

        monkeypatch.setattr(precision, "time_steps", fake)
        return runs

    return pretend


def choice(data, config=TINY, seconds=math.inf, steps=1000.0):
    """Return the precision of the settings afterwards, and what was said."""
    said = []
    settings = Settings.of(config)
    model = build_model(config.model, len(data.class_ids))
    settings = in_fastest_precision(settings, model, data, seconds, steps, said.append)
    return settings.config.train.precision, "\n".join(said), settings


@pytest.mark.parametrize(("bf16", "expected"), [(0.5, "bf16"), (0.9, "bf16"), (0.95, "fp32"), (3.0, "fp32")])
def test_clearly_faster_precision_trains(shapes, timed, bf16, expected):
    runs = timed(1.0, bf16)
    chosen, said, settings = choice(shapes)
    assert chosen == expected
    assert said == f"precision {expected}: a step takes 1.00 s in fp32 and {bf16:.2f} s in bf16 here"
    assert settings.origins["train.precision"] == Origin.PLAN
    assert runs == [1 + ROUNDS]


def test_times_are_kept_for_equal_networks(shapes, timed):
    runs = timed(1.0, 0.5)
    first = choice(shapes)
    timed(1.0, 2.0)
    assert choice(shapes)[:2] == first[:2]
    assert choice(shapes, TINY.changed(train={"seed": 5, "lr": 0.1}))[0] == "bf16"
    others = timed(1.0, 2.0)
    for change in ({"model": {"channels": 32}}, {"train": {"batch_size": 3}}, {"augment": {"crop": 64}}):
        assert choice(shapes, TINY.changed(**change))[0] == "fp32"
    assert len(runs) == 1
    assert len(others) == 3


def test_a_short_budget_stays_in_fp32_with_known_times_too(shapes, timed):
    timed(1.0, 0.5)
    assert choice(shapes)[0] == "bf16"
    assert choice(shapes, seconds=MIN_STEPS * 1.0 - 1)[:2] == ("auto", "")
    assert choice(shapes, seconds=MIN_STEPS * 1.0 + 1)[0] == "bf16"


@pytest.mark.parametrize("reason", ["named", "no bf16", "few steps", "scarce memory"])
def test_some_runs_are_not_timed(shapes, timed, monkeypatch, reason):
    runs = timed(1.0, 0.5)
    config, steps = TINY, MIN_STEPS
    if reason == "named":
        config = TINY.changed(train={"precision": "fp32"})
    elif reason == "no bf16":
        monkeypatch.setattr(precision, "half_precisions", lambda device: ["fp16"])
    elif reason == "scarce memory":
        monkeypatch.setattr(precision, "free_bytes", lambda device: 10_000_000)
    else:
        steps = MIN_STEPS - 1
    chosen, said, _ = choice(shapes, config, steps=steps)
    assert (chosen, said, runs) == (config.train.precision, "", [])


def batches_of(data):
    return [make_batch(data, step, TINY, Shard.of(2)) for step in range(1 + ROUNDS)]


def test_a_timing_leaves_network_and_random_numbers_as_they_were(shapes, monkeypatch):
    """Also if a layer of the network draws random numbers."""
    learn = precision.Learner.learn
    monkeypatch.setattr(precision.Learner, "learn", lambda *arguments: torch.rand(1) is None or learn(*arguments))
    model = build_model(TINY.model, len(shapes.class_ids))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    layers = [type(layer) for layer in model.modules()]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    seconds = time_steps(model, TINY.train, batches_of(shapes), math.inf)
    assert torch.equal(torch.rand(4), expected)
    assert list(seconds) == ["fp32", "bf16"]
    assert all(value > 0 for value in seconds.values())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert [type(layer) for layer in model.modules()] == layers


def test_medians_leave_the_first_step_out(shapes, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    took = {"fp32": iter([90, 1, 5, 3]), "bf16": iter([0.1, 4, 2, 1])}

    def learner(model, config, world):
        def learn(batch, step, total):
            clock.now += next(took[config.precision])

        return SimpleNamespace(learn=learn)

    monkeypatch.setattr(precision, "Learner", learner)
    monkeypatch.setattr(precision, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    model = build_model(TINY.model, len(shapes.class_ids))
    assert time_steps(model, TINY.train, batches_of(shapes), math.inf) == {"fp32": 3, "bf16": 2}


def test_short_budgets_and_empty_batches_end_a_timing(shapes, monkeypatch):
    model = build_model(TINY.model, len(shapes.class_ids))
    steps = []
    learn = precision.Learner.learn
    monkeypatch.setattr(precision.Learner, "learn", lambda *arguments: steps.append(1) or learn(*arguments))
    assert time_steps(model, TINY.train, batches_of(shapes), 1e-6) is None
    assert len(steps) == 3
    steps.clear()
    *batches, last = batches_of(shapes)
    unreadable = dataclasses.replace(last, pixels=last.pixels[:0], targets=[], names=[], numbers=[])
    assert time_steps(model, TINY.train, [*batches, unreadable], math.inf) is None
    assert not steps


def test_a_run_keeps_its_choice(shapes, tmp_path, timed, monkeypatch):
    timed(1.0, 0.5)
    monkeypatch.setattr(precision, "MIN_STEPS", 1)
    precisions, learner = [], loop.Learner
    monkeypatch.setattr(loop, "Learner", lambda *a: precisions.append(a[1].precision) or learner(*a))
    run = maskrcnn.train(shapes, None, out=tmp_path / "run", config=TINY)
    assert Config.load(run.path / "config.yaml").train.precision == "bf16"
    monkeypatch.setenv("MASKRCNN_CACHE", str(tmp_path / "empty"))
    runs = timed(1.0, 2.0)
    assert maskrcnn.train(shapes, None, out=run.path, resume=True).finished
    assert precisions == ["bf16", "bf16"]
    assert not runs
    assert run.model.runtime.precision == "fp32"
