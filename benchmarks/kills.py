"""Compare a training run that is repeatedly killed and resumed with the same run undisturbed.

    python benchmarks/kills.py [--kills 20] [--steps 80] [--precision fp32] [--seed 0] [--json]

Synthetic shapes, a tiny network, one process on the CPU. SIGKILL follows a random step after a random delay of up to
0.3 s, and so interrupts steps, validations and file writes. Convolutions use Winograd's algorithm as in large networks.
Both runs must end with the same bytes of weights and the same metrics except times; otherwise the exit code is 1.
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
STATE_SECONDS = 0.5
"""Seconds between saved states, instead of minutes: each kill then resumes from a different step."""


def run(csv: Path, out: Path, steps: int, precision: Any) -> None:
    """Start or resume the run, in a child process."""
    import maskrcnn
    from maskrcnn.config import ModelConfig, TrainConfig
    from maskrcnn.training import loop
    from maskrcnn.winograd import training as winograd

    loop.STATE_SECONDS = STATE_SECONDS
    winograd.MIN_OPERATIONS = winograd.MIN_CELLS = 0
    config = maskrcnn.Config(
        model=ModelConfig(
            backbone="test_resnet", weights="none", image_size=64, channels=16, box_channels=32, mask_channels=16,
            proposals=40, proposals_per_level=40,
        ),
        train=TrainConfig(
            epochs=4, epoch_images=steps // 2, roi_batch=16, rpn_batch=32, mask_batch=4, precision=precision
        ),
    )  # fmt: skip
    data = maskrcnn.open_dataset(csv, say=lambda _: None)
    resume = (out / "state" / "state.safetensors").exists()
    maskrcnn.train(*data.split(0.3), out=out, config=config, resume=resume)


def start(csv: Path, out: Path, steps: int, precision: str) -> subprocess.Popen[bytes]:
    """Start a child process that trains."""
    arguments = ["--out", str(out), "--csv", str(csv), "--steps", str(steps), "--precision", precision]
    return subprocess.Popen([sys.executable, __file__, *arguments])


def steps_done(out: Path) -> int:
    """Return the last step in metrics.jsonl."""
    try:
        lines = (out / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["step"]
    except (OSError, IndexError, ValueError):
        return 0


def train_with_kills(
    csv: Path, out: Path, steps: int, precision: str, kills: int, rng: np.random.Generator
) -> list[int]:
    """Train to the end through up to `kills` kills; return the steps of the kills."""
    killed_at = []
    for target in sorted(rng.integers(0, steps, kills).tolist()):
        child = start(csv, out, steps, precision)
        while steps_done(out) < target and child.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.3))
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            killed_at.append(steps_done(out))
        child.wait()
    if start(csv, out, steps, precision).wait() != 0:
        raise SystemExit("the resumed run failed")
    return killed_at


def record(out: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without times."""
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in entry.items() if key not in TIMES} for entry in entries]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--csv", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.out is not None:
        run(args.csv, args.out, args.steps, args.precision)
        return
    from maskrcnn.data.synthetic import write_shapes

    with tempfile.TemporaryDirectory() as folder:
        csv = write_shapes(Path(folder) / "shapes", 12, seed=3, hw=(96, 128))
        undisturbed, killed = Path(folder) / "undisturbed", Path(folder) / "killed"
        if start(csv, undisturbed, args.steps, args.precision).wait() != 0:
            raise SystemExit("the undisturbed run failed")
        steps = max(entry["step"] for entry in record(undisturbed))
        rng = np.random.default_rng(args.seed)
        killed_at = train_with_kills(csv, killed, steps, args.precision, args.kills, rng)

        def same_bytes(name: str) -> bool:
            return (undisturbed / name).read_bytes() == (killed / name).read_bytes()

        result = {
            "kills": len(killed_at),
            "at_steps": killed_at,
            "steps": steps,
            "same_last": same_bytes("last.safetensors"),
            "same_best": same_bytes("best.safetensors"),
            "same_record": record(undisturbed) == record(killed),
            "left_over": [p.name for p in killed.rglob("*.part*")],
        }
    print(json.dumps(result) if args.json else "\n".join(f"{k}: {v}" for k, v in result.items()))
    if not (result["same_last"] and result["same_best"] and result["same_record"]) or result["left_over"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
