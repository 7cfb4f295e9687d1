"""`maskrcnn demo` as a user runs it: a mask AP50 of 0.80 or more, and every promised file."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_demo_trains_scores_and_predicts(tmp_path, seed):
    command = [
        sys.executable,
        "-m",
        "maskrcnn",
        "demo",
        "--out",
        str(tmp_path / "demo"),
        "--seed",
        str(seed),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["mask"]["AP50"] >= 0.80
    assert (tmp_path / "demo" / "predictions" / "submission.csv").exists()
    assert "Best and worst images" in (tmp_path / "demo" / "run" / "report.html").read_text("utf-8")
    assert len(list((tmp_path / "demo" / "predictions" / "overlays").glob("*.png"))) == 40
