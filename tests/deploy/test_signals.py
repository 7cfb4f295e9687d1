"""A process that exported and opened bundles still handles signals.

Without AVX-512, OpenVINO changes no signal stack, and the first test passes whichever thread compiles.
"""

import os
import subprocess
import sys

import pytest

from maskrcnn.inference.runtimes.signal_stack import in_own_thread

SIGNAL_AFTER_EXPORT = """
import gc, signal, sys
from pathlib import Path
import maskrcnn
from lively import predictor
from maskrcnn.data.formats import open_dataset
from signal_stacks import signal_stack

csv, out = Path(sys.argv[1]), Path(sys.argv[2])
before = signal_stack()
caught = []
signal.signal(signal.SIGTERM, lambda *_: caught.append(1))
data = open_dataset(csv, say=lambda _: None).take(range(4))
maskrcnn.export(predictor(), out / "fp32")
for runtime in ("openvino", "onnx"):
    settings = {"runtime": runtime, "precision": "int8", "calibrate": data, "max_loss": 100}
    maskrcnn.export(predictor(), out / runtime, **settings)
maskrcnn.export(predictor(), out / "both", calibrate=data, max_loss=100)
opened = [maskrcnn.load(out / name) for name in ("fp32", "openvino", "both", "fp32")]
for bundle in opened:
    bundle.predict(data.files[0])
    assert signal_stack() == before, "a graph was compiled in the main thread"
while opened:
    opened.pop(0)  # in the order in which they were made
    gc.collect()
    signal.raise_signal(signal.SIGTERM)
print(len(caught), signal_stack() == before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the signal stack")
def test_process_that_exported_handles_signals(shapes_csv, tmp_path):
    command = [sys.executable, "-c", SIGNAL_AFTER_EXPORT, str(shapes_csv), str(tmp_path)]
    paths = [path for path in sys.path if path]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4", "True"]


def test_errors_of_the_thread_reach_the_caller():
    with pytest.raises(ZeroDivisionError):
        in_own_thread(lambda: 1 // 0).result()
    assert in_own_thread(lambda: 3).result() == 3
