"""Parallel kernels in several threads, with each of the libraries that numba's threads can come from."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import openvino
import pytest

import maskrcnn
from maskrcnn.kernels import parallel

FOUR_THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numba
numba.config.THREADING_LAYER = sys.argv[1]
try:
    import openvino  # brings TBB
except ImportError:
    pass
try:
    numba.get_num_threads()
except ValueError:
    sys.exit("not installed")
import numpy as np
from maskrcnn.kernels.masks import coverage_of_boxes
from maskrcnn.kernels.resize import resize_bilinear
from maskrcnn.kernels.roi_align import ALIGNED, roi_align_backward, roi_align_forward

rng = np.random.default_rng(0)
maps, images = rng.random((1, 40, 50, 32), np.float32), np.zeros(60, np.int64)
low = rng.random((60, 2), np.float32) * 100
boxes = np.concatenate([low, low + 20 + rng.random((60, 2), np.float32) * 60], 1)
positions, rows = np.zeros((60, 2, 7), np.float32), np.arange(60)
runs, offsets = np.stack([np.arange(0, 9000, 30), np.full(300, 17)], 1), np.arange(0, 301, 5)

def work(_):
    pooled, gradient = np.empty((60, 7, 7, 32), np.float32), np.zeros_like(maps)
    roi_align_forward(maps, boxes, positions, images, rows, 0.25, 2, ALIGNED, 0.0, 1.0, pooled)
    roi_align_backward(pooled, boxes, positions, images, rows, 0.25, 2, ALIGNED, 2, gradient)
    grids = coverage_of_boxes(runs, offsets, 100, np.arange(60), boxes, 28)
    picture = resize_bilinear((maps[0, :, :, :3] * 255).astype(np.uint8), 130, 170)
    return [a.tobytes() for a in (pooled, gradient, grids, picture)]

expected = work(0)
with ThreadPoolExecutor(4) as pool:
    assert all(result == expected for result in pool.map(work, range(200)))
print(numba.threading_layer())
"""


@pytest.mark.parametrize("layer", ["workqueue", "omp", "tbb"])
def test_four_threads_get_the_results_of_one(layer):
    done = subprocess.run([sys.executable, "-c", FOUR_THREADS, layer], capture_output=True, text=True, timeout=250)
    if "not installed" in done.stderr:
        pytest.skip(f"numba finds no {layer} on this machine")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == layer


LAYER_OF_A_BUNDLE = """
import numpy as np
import maskrcnn
import numba
maskrcnn.load("nuclei-int8").predict(np.zeros((64, 64, 3), np.uint8))
print(numba.threading_layer())
"""


def test_kernels_beside_openvino_take_its_threads():
    """Where OpenVINO has them from TBB. Others spin after each kernel, and take a core from its graphs."""
    done = subprocess.run([sys.executable, "-c", LAYER_OF_A_BUNDLE], capture_output=True, text=True, check=True)
    libraries = Path(openvino.__file__).parent / "libs"
    assert done.stdout.strip() == ("tbb" if list(libraries.glob("*tbb*12*")) else "omp"), done.stderr


def most_callers_inside(monkeypatch, layer):
    """Call a guarded kernel from four threads and return how many were inside at the same time."""
    monkeypatch.setattr(numba, "threading_layer", lambda: layer)
    parallel._needs_guard.cache_clear()
    inside, counts, counting = [], [], threading.Lock()

    @parallel.guarded
    def kernel():
        with counting:
            inside.append(1)
            counts.append(len(inside))
        time.sleep(0.05)
        with counting:
            inside.pop()

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(kernel) for _ in range(8)]:
            future.result()
    parallel._needs_guard.cache_clear()
    return max(counts)


def test_workqueue_admits_one_caller_at_a_time(monkeypatch):
    assert most_callers_inside(monkeypatch, "workqueue") == 1
    assert most_callers_inside(monkeypatch, "omp") > 1


def test_every_parallel_kernel_is_guarded():
    root = Path(maskrcnn.__file__).parent
    compiling = [
        path.relative_to(root).as_posix() for path in root.rglob("*.py") if "parallel=True" in path.read_text("utf-8")
    ]
    assert compiling == ["kernels/parallel.py"]
