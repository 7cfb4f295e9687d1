"""Two versions of the package, side by side: the same detections, and as fast?

    python benchmarks/versions.py BEFORE/src AFTER/src PICTURES... [--rounds 8] [--json]

Each version runs in its own process, with its ``src`` folder first on the path; predictions alternate. Both read the
same model files: `nuclei` and `nuclei-int8` as each version ships them, bundles of `nuclei` and of a random ResNet-50
(seed 0, weights of `sides.py`) that BEFORE imports and exports, and that ResNet-50 in torch on four synthetic pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

THREADS = 2
WORKER = "--worker"


def work(folder: Path) -> None:
    """Answer requests, one JSON object a line, with this process's version of the package."""
    import torch
    from alone import SIZE

    import maskrcnn
    from maskrcnn.checkpoints.load import import_checkpoint, save

    torch.set_num_threads(THREADS)
    models: dict[str, Any] = {}

    def opened(name: str) -> Any:
        if name not in models:
            models.clear()
            models[name] = maskrcnn.load(name if name in ("nuclei", "nuclei-int8") else folder / name, device="cpu")
        return models[name]

    def answer(request: dict[str, str]) -> Any:
        if "import" in request:
            checkpoint = torch.load(folder / request["import"], weights_only=True)
            model = import_checkpoint(checkpoint, "torchvision", min_size=SIZE, max_size=SIZE)
            save(model, folder / request["to"])
            return None
        if "export" in request:
            maskrcnn.export(opened(request["export"]), folder / request["to"], runtime=request["runtime"])
            return None
        picture = request["picture"]
        pixels = np.load(picture) if picture.endswith(".npy") else picture
        model = opened(request["model"])
        began = time.perf_counter()
        found = model.predict(pixels, keep_pixels=False)
        seconds = time.perf_counter() - began
        boxes = [[float(v) for v in box] for box in found.boxes]
        rles = [rle.to_coco()["counts"] for rle in found.rles]
        return {"seconds": seconds, "found": [boxes, [float(s) for s in found.scores], found.class_names, rles]}

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    for line in sys.stdin:
        out.write(json.dumps(answer(json.loads(line))) + "\n")
        out.flush()


class Version:
    """A process that runs one version of the package."""

    def __init__(self, source: Path, folder: Path) -> None:
        command = [sys.executable, __file__, WORKER, str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(source.resolve())}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, text=True, env=environment, **pipes)

    def ask(self, **request: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a version failed at {request}")
        return json.loads(line)


def compare(versions: dict[str, Version], model: str, pictures: list[str], rounds: int) -> dict[str, Any]:
    """Equal pictures, largest differences of boxes and scores, and the times of alternating predictions."""
    result: dict[str, Any] = {"pictures": len(pictures), "identical": 0, "other_counts": 0, "box_px": 0.0, "score": 0.0}
    for picture in pictures:
        before, after = (versions[v].ask(model=model, picture=picture)["found"] for v in ("before", "after"))
        result["identical"] += before == after
        result["other_counts"] += len(before[0]) != len(after[0])
        if len(before[0]) == len(after[0]) > 0:
            for key, k in (("box_px", 0), ("score", 1)):
                result[key] = max(result[key], float(np.abs(np.array(before[k]) - after[k]).max()))
    seconds: dict[str, list[float]] = {name: [] for name in versions}
    for k in range(rounds):
        for name in sorted(versions, reverse=k % 2 == 1):
            seconds[name].append(versions[name].ask(model=model, picture=pictures[k % len(pictures)])["seconds"])
    ratios = [after / before for before, after in zip(seconds["before"], seconds["after"], strict=True)]
    medians = {f"{name}_ms": round(1000 * statistics.median(times), 1) for name, times in seconds.items()}
    return {**result, **medians, "after_over_before": round(statistics.median(ratios), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    import torch
    from sides import picture, torchvision_model

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(torchvision_model(0).state_dict(), folder / "resnet50.pth")
        synthetic = [str(folder / f"{seed}.npy") for seed in range(4)]
        for seed, path in enumerate(synthetic):
            np.save(path, picture(seed))
        versions = {"before": Version(args.before, folder), "after": Version(args.after, folder)}
        versions["before"].ask(**{"import": "resnet50.pth", "to": "resnet50.safetensors"})
        for model in ("nuclei", "resnet50.safetensors"):
            for runtime in ("openvino", "onnx"):
                versions["before"].ask(export=model, to=f"{Path(model).stem}-{runtime}", runtime=runtime)
        photos = [str(Path(p).resolve()) for p in args.pictures]
        contenders = {m: photos for m in ("nuclei", "nuclei-int8", "nuclei-openvino", "nuclei-onnx")}
        contenders |= {m: synthetic for m in ("resnet50.safetensors", "resnet50-openvino", "resnet50-onnx")}
        results = {}
        for model, pictures in contenders.items():
            results[model] = row = compare(versions, model, pictures, args.rounds)
            if not args.json:
                print(
                    f"{model}: {row['identical']} of {row['pictures']} pictures identical to the bit (largest "
                    f"difference {row['box_px']:.1e} px, score {row['score']:.1e}, {row['other_counts']} in count); "
                    f"{row['before_ms']} ms before, {row['after_ms']} ms after, ratio {row['after_over_before']}",
                    flush=True,
                )
        for version in versions.values():
            version.process.terminate()
    if args.json:
        print(json.dumps(results))


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == WORKER:
        work(Path(sys.argv[2]))
    else:
        main()
