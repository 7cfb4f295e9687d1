"""A run that is killed again and again, and resumed each time, against the same run left alone.

    python benchmarks/kills.py [--kills 20] [--steps 80] [--seed 0] [--json]

Generated shapes, a tiny network, one process on the CPU. SIGKILL comes at random steps, spread over the run, and a
random part of a second later, so that it strikes anywhere: within a step, a validation, a file. Convolutions train by
Winograd's algorithm, as those of larger networks do. Both runs must end in the same bytes of weights and in the same
record, times aside. Exits with 1 where they do not.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TIMES = {"seconds", "waited", "inference_seconds"}
SAVED_EVERY = 0.5
"""Seconds between two states, in place of minutes: a kill then sets the run back to a new place each time."""


def run(csv: Path, out: Path, steps: int) -> None:
    """What each child process does: begin the run, or go on with it."""
    import maskrcnn
    from maskrcnn.config import ModelConfig, TrainConfig
    from maskrcnn.model import layers
    from maskrcnn.training import loop

    loop.STATE_SECONDS = SAVED_EVERY
    layers.LEAST_OPERATIONS = layers.LEAST_CELLS = 0
    config = maskrcnn.Config(
        model=ModelConfig(
            backbone="test_resnet", weights="none", image_size=64, channels=16, box_channels=32, mask_channels=16,
            proposals=40, proposals_per_level=40,
        ),
        train=TrainConfig(epochs=4, epoch_images=steps // 2, roi_batch=16, rpn_batch=32, mask_batch=4),
    )  # fmt: skip
    data = maskrcnn.open_dataset(csv, say=lambda _: None)
    resume = (out / "state" / "state.safetensors").exists()
    maskrcnn.train(*data.split(0.3), out=out, config=config, resume=resume)


def start(csv: Path, out: Path, steps: int) -> subprocess.Popen[bytes]:
    """A child process that trains."""
    arguments = ["--out", str(out), "--csv", str(csv), "--steps", str(steps)]
    return subprocess.Popen([sys.executable, __file__, *arguments])


def steps_done(out: Path) -> int:
    """Number of the last step on record."""
    try:
        lines = (out / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["step"]
    except (OSError, IndexError, ValueError):
        return 0


def killed_on_the_way(csv: Path, out: Path, steps: int, kills: int, rng: np.random.Generator) -> list[int]:
    """Run to the end in spite of `kills`; the steps at which they came."""
    struck = []
    for target in sorted(rng.integers(0, steps, kills).tolist()):
        child = start(csv, out, steps)
        while steps_done(out) < target and child.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.3))
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            struck.append(steps_done(out))
        child.wait()
    if start(csv, out, steps).wait() != 0:
        raise SystemExit("the run did not end well")
    return struck


def record(out: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without times."""
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in entry.items() if key not in TIMES} for entry in entries]


def weights(path: Path) -> dict[str, bytes]:
    """Every tensor of a model file, as bytes."""
    from safetensors.numpy import load_file

    return {name: array.tobytes() for name, array in load_file(path).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--csv", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.out is not None:
        run(args.csv, args.out, args.steps)
        return
    from maskrcnn.data.synthetic import write_shapes

    with tempfile.TemporaryDirectory() as folder:
        csv = write_shapes(Path(folder) / "shapes", 12, seed=3, hw=(96, 128))
        alone, struck_at = Path(folder) / "alone", Path(folder) / "killed"
        if start(csv, alone, args.steps).wait() != 0:
            raise SystemExit("the run left alone did not end well")
        steps = max(entry["step"] for entry in record(alone))
        struck = killed_on_the_way(csv, struck_at, steps, args.kills, np.random.default_rng(args.seed))
        result = {
            "kills": len(struck),
            "at_steps": struck,
            "steps": steps,
            "same_last": weights(alone / "last.safetensors") == weights(struck_at / "last.safetensors"),
            "same_best": weights(alone / "best.safetensors") == weights(struck_at / "best.safetensors"),
            "same_record": record(alone) == record(struck_at),
            "left_over": [p.name for p in struck_at.rglob("*.part*")],
        }
    print(json.dumps(result) if args.json else "\n".join(f"{k}: {v}" for k, v in result.items()))
    if not (result["same_last"] and result["same_best"] and result["same_record"]) or result["left_over"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
