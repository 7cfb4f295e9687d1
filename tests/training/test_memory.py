"""Batches that do not fit into memory, and only those, are accumulated image by image."""

import pytest
import torch

from maskrcnn.config import Config
from maskrcnn.model.mask_rcnn import build_model
from maskrcnn.settings import Origin, Settings
from maskrcnn.training import memory
from maskrcnn.training.memory import fit_to_memory, free_bytes, training_bytes

SIZES = {"anchor_sizes": (16, 32, 64, 128, 256)}
SETTINGS = Settings.of(Config().changed(model=SIZES))
LITE = SETTINGS.config


@pytest.fixture(scope="module")
def lite():
    return build_model(LITE.model, 1)


def test_the_count_grows_with_images_and_pixels(lite):
    one, two = (training_bytes(lite, n, 512) for n in (1, 2))
    weights = 2 * one - two
    assert weights == 6 * 4 * sum(parameter.numel() for parameter in lite.parameters())
    assert training_bytes(lite, 1, 1024) - weights == pytest.approx(4 * (one - weights), rel=0.02)
    resnet50 = build_model(Settings.build("resnet50", user=LITE).config.model, 1)
    assert training_bytes(resnet50, 1, 512) > 2 * one


@pytest.mark.parametrize(("free", "batch"), [(4e9, (2, 1)), (1.6e9, (1, 2)), (1e8, (1, 2))])
def test_a_batch_that_does_not_fit_is_accumulated(lite, free, batch):
    settings, reason = fit_to_memory(SETTINGS, lite, "cpu", int(free))
    config = settings.config
    assert (config.train.batch_size, config.train.accumulate) == batch
    assert (reason is None) == (batch == (2, 1))
    assert ("even one image may be too much" in (reason or "")) == (free == 1e8)


@pytest.mark.parametrize("settings", [{"batch_size": 8}, {"accumulate": 3}])
def test_settings_of_the_user_stay(lite, settings):
    chosen = SETTINGS.updated({"train": settings}, Origin.USER)
    for device, free in (("cpu", 1000), ("cuda", 1000), ("cuda", 10**12)):
        assert fit_to_memory(chosen, lite, device, free) == (chosen, None)


def test_the_batch_of_a_trained_norm_stays():
    model = build_model(LITE.model, 1, freeze_norm=False)
    for device in ("cpu", "cuda"):
        assert fit_to_memory(SETTINGS, model, device, 1000) == (SETTINGS, None)


def test_unknown_memory_changes_nothing(lite):
    for device in ("cpu", "cuda", "mps"):
        assert fit_to_memory(SETTINGS, lite, device, None) == (SETTINGS, None)


@pytest.mark.parametrize("images", [1, 2, 4, 8, 20])
def test_a_gpu_gets_the_largest_batch_that_fits(lite, images):
    """`images` is the number of images that fit."""
    free = int(training_bytes(lite, images, 512) / memory.USABLE_FRACTION) + 1
    settings, reason = fit_to_memory(SETTINGS, lite, "cuda", free)
    batch = {1: (1, 2), 2: (2, 1), 4: (4, 1)}.get(images, (8, 1))
    assert (settings.config.train.batch_size, settings.config.train.accumulate) == batch
    assert (reason is None) == (images == 2)
    assert settings.origins.get("train.batch_size") == (None if images == 2 else Origin.PLAN)
    assert fit_to_memory(SETTINGS, lite, "cpu", 10**12) == (SETTINGS, None), "a CPU keeps the default"


def test_a_gpu_trains_norms_in_the_largest_batch_that_fits():
    model = build_model(LITE.model, 1, freeze_norm=False)
    assert fit_to_memory(SETTINGS, model, "cuda", 10**12)[0].config.train.batch_size == 8


def test_a_container_has_its_own_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    cpu = torch.device("cpu")
    assert free_bytes(cpu) is None
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert free_bytes(cpu) == 5000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(cpu) == 5000 * 1024
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2900000\n")
    (tmp_path / "memory.stat").write_text("anon 1000000\ninactive_file 1900000\n")
    assert free_bytes(cpu) == 2000000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert free_bytes(cpu) == 1000000
