"""Batches that would not fit are cut up, and only those."""

import pytest
import torch

from maskrcnn.config import Config
from maskrcnn.training import memory
from maskrcnn.training.memory import fit_to_memory, free_bytes, training_bytes

LITE = Config().changed(model={"anchor_sizes": (16, 32, 64, 128, 256)})


def test_the_count_grows_with_images_and_pixels():
    one, two = (training_bytes(LITE, 1, n, 512) for n in (1, 2))
    large = training_bytes(LITE, 1, 1, 1024)
    weights = 2 * one - two
    assert 100e6 < weights < 200e6  # 8 million weights, five times
    assert large - weights == pytest.approx(4 * (one - weights), rel=0.02)
    resnet50 = Config.build("resnet50").changed(model={"anchor_sizes": (16, 32, 64, 128, 256)})
    assert training_bytes(resnet50, 1, 1, 512) > 2 * one


@pytest.mark.parametrize(
    ("accumulate", "free", "expected"), [(1, 4e9, (2, 1)), (1, 1.5e9, (1, 2)), (3, 1.5e9, (1, 6)), (1, 1e8, (1, 2))]
)
def test_a_batch_that_does_not_fit_is_accumulated(accumulate, free, expected):
    config, reason = fit_to_memory(LITE.changed(train={"accumulate": accumulate}), 1, int(free))
    assert (config.train.batch_size, config.train.accumulate) == expected
    assert (reason is None) == (expected[0] == 2)
    assert ("even one may be too much" in (reason or "")) == (free == 1e8)


def test_what_was_set_or_cannot_be_known_stays():
    given = LITE.changed(train={"batch_size": 8})
    assert fit_to_memory(given, 1, 1000) == (given, None)
    assert fit_to_memory(LITE, 1, None) == (LITE, None)


def test_a_container_has_its_own_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)
    cpu = torch.device("cpu")
    assert free_bytes(cpu) is None
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert free_bytes(cpu) == 5000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(cpu) == 5000 * 1024
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert free_bytes(cpu) == 2000000
