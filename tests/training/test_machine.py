"""Defaults that depend on the machine. A device is only named here, so no test needs a GPU."""

import os

import pytest

from lively import predictor
from maskrcnn.config import PRESETS, Config
from maskrcnn.settings import Origin, Settings
from maskrcnn.training.initial import inherit_model
from maskrcnn.training.machine import Machine, fit_to_machine

GPU = Machine("cuda", 16)


def test_a_gpu_trains_resnet50_with_more_threads():
    settings, reasons = fit_to_machine(Settings.build(), GPU)
    assert settings.config.model == Settings.build("resnet50").config.model
    assert settings.config.train.workers == 8
    assert {settings.origins[f"model.{name}"] for name in PRESETS["resnet50"]["model"]} == {Origin.PLAN}
    assert settings.origins["train.workers"] == Origin.PLAN
    assert "preset resnet50" in reasons[0]
    assert "--preset lite" in reasons[0]
    assert "workers 8" in reasons[1]


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_other_devices_keep_the_defaults(device):
    assert fit_to_machine(Settings.build(), Machine(device, 64)) == (Settings.build(), [])


@pytest.mark.parametrize(("processors", "workers"), [(1, 2), (2, 2), (5, 5), (8, 8), (200, 8)])
def test_threads_follow_the_processors(processors, workers):
    assert fit_to_machine(Settings.build(), Machine("cuda", processors))[0].config.train.workers == workers


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_preset_that_the_user_names_stays(preset):
    chosen = Settings.build(preset, user=Config().changed(train={"workers": 0}))
    assert fit_to_machine(chosen, GPU) == (chosen, [])


@pytest.mark.parametrize("model", [{"backbone": "convnext_tiny"}, {"channels": 64}, {"box_channels": 512}])
def test_a_network_that_the_user_changed_stays(model):
    chosen = Settings.of(Config().changed(model=model))
    settings, reasons = fit_to_machine(chosen, GPU)
    assert settings.config.model == chosen.config.model
    assert len(reasons) == 1


def test_an_initial_model_keeps_its_network():
    inherited = inherit_model(Settings.build(), predictor())
    assert fit_to_machine(inherited, GPU)[0].config.model == inherited.config.model


def test_a_run_file_keeps_only_a_preset_that_the_user_named(tmp_path):
    """The next run, perhaps on a CPU, decides the network again unless the user chose it."""
    (tmp_path / "planned.yaml").write_text(fit_to_machine(Settings.build(), GPU)[0].to_yaml())
    (tmp_path / "chosen.yaml").write_text(Settings.build("lite").to_yaml())
    assert Settings.build(None, tmp_path / "planned.yaml").is_open("model.backbone", "model.channels", "train.workers")
    chosen = Settings.build(None, tmp_path / "chosen.yaml")
    assert fit_to_machine(chosen, GPU)[0].config.model == Config().model


def test_processes_of_a_machine_share_its_processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    assert Machine.of("cuda") == Machine("cuda", 12)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "5")
    assert Machine.of("cuda") == Machine("cuda", 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert Machine.of("cuda") == Machine("cuda", 1)
