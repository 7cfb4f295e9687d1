"""The choice of a precision: known cost first, then the time on this machine, which a cache keeps."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from lively import predictor
from maskrcnn.detection.stages import FLOAT_REGIONS
from maskrcnn.inference import precision
from maskrcnn.inference.bundle import contents
from maskrcnn.inference.precision import choose, measure
from maskrcnn.inference.timings import noise_picture, timings_file

SCORES = {
    "images": 20,
    "fp32": {"box AP": 50.0, "mask AP": 40.0},
    "bf16": {"box AP": 50.1, "mask AP": 39.5},
    "int8": {"box AP": 49.2, "mask AP": 40.0},
}


@pytest.fixture
def timed(monkeypatch):
    """Pretend that networks, which are their names here, take times; list the candidates of each measurement."""

    def pretend(**seconds):
        measured = []

        def fake(networks):
            measured.append(list(networks))
            return {name: seconds[name] for name in networks}

        monkeypatch.setattr(precision, "measure", fake)
        return measured

    return pretend


def chosen(tmp_path, names=("fp32", "int8", "bf16"), scores=SCORES, max_loss=1.0):
    """Return the chosen precision and the lines that were said."""
    said = []
    return choose(names, scores, max_loss, lambda name: name, tmp_path / "cache" / "a.json", said.append), said


def test_the_fastest_precision_of_known_cost_is_chosen_and_explained(timed, tmp_path):
    timed(fp32=0.9, bf16=0.6, int8=0.45)
    name, [line] = chosen(tmp_path)
    assert name == "int8"
    assert line == "int8: 2.00 times as fast as fp32 on this processor, box AP -0.80, mask AP +0.00 on 20 images"
    (tmp_path / "cache" / "a.json").unlink()
    timed(fp32=0.9, bf16=0.3, int8=0.45)
    name, [line] = chosen(tmp_path)
    assert name == "bf16"
    assert line == "bf16: 3.00 times as fast as fp32 on this processor, box AP +0.10, mask AP -0.50 on 20 images"
    assert chosen(tmp_path, scores={**SCORES, "images": 1})[1][0].endswith(" on 1 image")


@pytest.mark.parametrize(
    ("scores", "max_loss"),
    [
        ({}, 1.0),
        ({"images": 20, "int8": SCORES["int8"]}, 1.0),
        ({"images": 20, "fp32": SCORES["fp32"], "int8": {"box AP": 50.0}}, 1.0),
        ({"images": 20, "fp32": SCORES["fp32"], "int8": {"box AP": float("nan"), "mask AP": 40.0}}, 1.0),
        ({"images": 20, "fp32": SCORES["fp32"], "int8": {"box AP": None, "mask AP": None}}, 1.0),
        ({"images": 20, "fp32": 3, "int8": SCORES["int8"]}, 1.0),
        (SCORES, 0.79),
    ],
    ids=["nothing measured", "fp32 not measured", "box alone", "not a number", "undefined", "a number", "too dear"],
)
def test_unknown_or_forbidden_cost_is_never_chosen(scores, max_loss, timed, tmp_path):
    measured = timed(fp32=1.0, int8=0.01)
    assert chosen(tmp_path, ("fp32", "int8"), scores, max_loss) == ("fp32", [])
    assert measured == []


def test_one_expensive_kind_of_ap_forbids_a_precision(timed, tmp_path):
    timed(fp32=1.0, bf16=0.1, int8=0.5)
    assert chosen(tmp_path, max_loss=0.49)[0] == "fp32"  # bf16 loses 0.5 of mask AP, int8 0.8 of box AP
    assert chosen(tmp_path, max_loss=0.79)[0] == "bf16"
    timed(fp32=1.0, int8=0.5)
    assert chosen(tmp_path, ("fp32", "int8"), max_loss=0.81)[0] == "int8"


@pytest.mark.parametrize("int8", [1.3, 1.0, 0.97])
def test_fp32_is_kept_where_nothing_is_clearly_faster(int8, timed, tmp_path):
    timed(fp32=1.0, int8=int8)
    name, [line] = chosen(tmp_path, ("fp32", "int8"))
    assert name == "fp32"
    assert line == f"fp32: on this processor, int8 runs {1 / int8:.2f} times as fast"


def test_times_are_kept_for_the_next_process(timed, tmp_path):
    measured = timed(fp32=1.0, bf16=0.9, int8=0.5)
    first = chosen(tmp_path)
    assert chosen(tmp_path) == first
    assert measured == [["fp32", "int8", "bf16"]]
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["a.json"]
    # Times of other candidates say nothing about these.
    assert chosen(tmp_path, ("fp32", "bf16"))[0] == "bf16"
    assert measured[1:] == [["fp32", "bf16"]]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"fp32": 1.0}', '{"fp32": 1.0, "int8": "fast"}', '{"fp32": 1.0, "int8": -1.0}',
     '{"fp32": 1.0, "int8": NaN}', '{"fp32": 1.0, "int8": 0.0}', "[" * 100_000, b"\xff\xfe"],
    ids=range(11),
)  # fmt: skip
def test_damaged_cache_is_measured_again(content, timed, tmp_path):
    measured = timed(fp32=1.0, int8=0.5)
    (tmp_path / "cache").mkdir()
    file = tmp_path / "cache" / "a.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert chosen(tmp_path, ("fp32", "int8"))[0] == "int8"
    assert measured == [["fp32", "int8"]]
    assert json.loads(file.read_text()) == {"fp32": 1.0, "int8": 0.5}


def test_cache_that_cannot_be_written_is_no_error(timed, tmp_path):
    measured = timed(fp32=1.0, int8=0.5)
    (tmp_path / "cache").write_text("a file in place of the folder")
    for _ in range(2):
        assert chosen(tmp_path, ("fp32", "int8"))[0] == "int8"
    assert len(measured) == 2


def test_medians_come_from_turns_that_follow_an_untimed_one(monkeypatch):
    """A stand-in clock runs while a part of the network does."""
    clock = SimpleNamespace(now=0.0, turns=[])
    monkeypatch.setattr(precision, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    model = predictor(proposals=30)
    shapes = []

    def network(name, seconds):
        remaining = iter(seconds)

        def trunk(pixels, windows):
            clock.turns.append(name)
            clock.now += next(remaining)
            shapes.append((pixels.shape, windows.tolist()))

        def head(pooled, labels=()):
            shapes.append(pooled.shape)

        parts = SimpleNamespace(trunk=trunk, box_head=head, mask_head=head, region_formats=FLOAT_REGIONS)
        return SimpleNamespace(network=lambda: parts, detector=model.runtime.detector)

    seconds = measure({"fp32": network("fp32", [9, 1, 5, 1.5]), "int8": network("int8", [9, 0.5, 0.25, 8])})
    assert seconds == {"fp32": 1.5, "int8": 0.5}
    assert clock.turns == ["fp32", "int8"] * 4
    cells = model.config.model.mask_size // 2
    assert shapes[:3] == [((1, 128, 128, 3), [[0, 0, 128, 128]]), (30, 7, 7, 16), (precision.OBJECTS, cells, cells, 16)]


def test_times_belong_to_a_processor_its_libraries_and_a_network(tmp_path, monkeypatch):
    bundle = tmp_path / "bundle"
    (bundle / "int8").mkdir(parents=True)
    for name, content in (("model.json", "{}"), ("trunk.bin", "abc"), ("int8/trunk.bin", "a")):
        (bundle / name).write_text(content)

    def current(version="openvino 1"):
        return timings_file(version, *contents(bundle))

    files = [current()]
    assert current() == files[0]
    assert files[0].is_relative_to(os.environ["MASKRCNN_CACHE"])
    files.append(current("openvino 2"))
    (bundle / "model.json").write_text("[]")
    files.append(current())
    (bundle / "int8" / "trunk.bin").write_text("ab")
    files.append(current())
    with monkeypatch.context() as patch:
        patch.setattr("numba.config.NUMBA_NUM_THREADS", 97)
        files.append(current())
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", lambda: SimpleNamespace(flatten=lambda: "+amx"))
    files.append(current())
    assert len(set(files)) == len(files)


def test_noise_has_the_size_of_the_network():
    model = predictor(min_scale=2.0).config.model
    picture = noise_picture(model, predictor().conventions)
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
