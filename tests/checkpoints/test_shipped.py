"""The models that ship with the package."""

import hashlib
import re
import subprocess
import sys

import numpy as np
import pytest

import maskrcnn
from maskrcnn import RLE, UserError, iou_matrix
from maskrcnn.checkpoints.shipped import FOLDER, find_shipped, shipped_names

CARD = (FOLDER / "nuclei.md").read_text("utf-8")


def nuclei(rng) -> tuple[np.ndarray, list[RLE]]:
    """Return an image of bright, soft ellipses on a dark, noisy background, and their masks."""
    y, x = np.mgrid[:256, :256]
    image = np.full((256, 256), 12.0)
    masks = []
    for cy in range(36, 256, 62):
        for cx in range(36, 256, 62):
            a, b, turn = rng.uniform(8, 14), rng.uniform(8, 14), rng.uniform(0, np.pi)
            dy, dx = y - cy - rng.uniform(-6, 6), x - cx - rng.uniform(-6, 6)
            u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
            distance = np.hypot(u / a, v / b)
            image += 90 / (1 + np.exp((distance - 1) * 12))
            masks.append(RLE.from_mask(distance <= 1))
    image = np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
    return np.repeat(image[..., None], 3, 2), masks


@pytest.mark.parametrize("name", ["nuclei", "nuclei-int8"])
def test_nuclei_are_found(name, rng):
    picture, truth = nuclei(rng)
    detections = maskrcnn.load(name).predict(picture)
    overlap = iou_matrix(detections.rles, truth)
    assert set(detections.class_names) == {"nucleus"}
    assert len(detections) == len(truth)
    assert np.median(overlap.max(0)) > 0.85


def test_the_int8_bundle_loads_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None; import maskrcnn, numpy as np\n"
        "model = maskrcnn.load('nuclei')\n"
        "print(model.runtime.name, len(model.predict(np.zeros((64, 64, 3), np.uint8))))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split()[0] == "openvino"


def test_loading_sends_no_telemetry():
    code = (
        "import maskrcnn, multiprocessing.process as processes\n"
        "processes.BaseProcess.start = lambda self: print('started', self)\n"
        "maskrcnn.load('nuclei-int8')\n"
        "import nncf, openvino.tools.ovc as ovc\n"
        "print(type(nncf.telemetry.telemetry).__name__, type(ovc.telemetry).__module__)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["MagicMock", "openvino.tools.ovc.telemetry_stub"]


def test_the_card_lists_the_hashes_of_the_files():
    files = [p for p in FOLDER.rglob("*") if p.is_file() and p.suffix != ".md"]
    listed = dict(re.findall(r"^\| `(.+?)` \| [\d.]+ MB \| `([0-9a-f]{64})` \|$", CARD, re.MULTILINE))
    assert listed == {str(p.relative_to(FOLDER)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    assert sum(p.stat().st_size for p in files) <= 25e6


def test_names(tmp_path, monkeypatch):
    assert shipped_names() == ["nuclei", "nuclei-int8"]
    assert find_shipped("../models/nuclei") is None
    with pytest.raises(UserError, match="These do: nuclei, nuclei-int8"):
        maskrcnn.load("nucleii")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nuclei").mkdir()
    with pytest.raises(UserError, match="neither a run folder nor a bundle"):
        maskrcnn.load("nuclei")
