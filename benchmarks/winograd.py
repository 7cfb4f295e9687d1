"""What the optional backend `maskrcnn.winograd` gains on this machine, in prediction and in training.

    python benchmarks/winograd.py [--rounds 20] [--json]

Prediction: two OpenVINO bundles of one network in fp32, with and without the backend, on a synthetic picture.
Training: steps of two generated images by two learners with the same weights, with and without it. Both sides alternate
in one process; medians after two warm-up rounds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from alone import SIZE
from sides import alternate, picture, torchvision_model

import maskrcnn
from maskrcnn.checkpoints.load import import_checkpoint, load
from maskrcnn.config import Config
from maskrcnn.data.batch import Shard, make_batch
from maskrcnn.data.synthetic import write_shapes
from maskrcnn.deploy.convert import to_openvino
from maskrcnn.deploy.export import export, save_bundle
from maskrcnn.deploy.graphs import graphs_of
from maskrcnn.detection.conventions import NATIVE
from maskrcnn.inference.predictor import Predictor
from maskrcnn.model.mask_rcnn import build_model
from maskrcnn.settings import Settings
from maskrcnn.training.allocator import freed_memory_kept
from maskrcnn.training.distributed import World
from maskrcnn.training.learner import Learner
from maskrcnn.winograd import training as winograd

THREADS = 2


def gain(with_backend: Callable[[int], object], without: Callable[[int], object], rounds: int) -> dict[str, float]:
    """Median milliseconds of both sides and their ratio."""
    seconds = alternate({"with": with_backend, "without": without}, 2, rounds)
    return {
        **{f"{name}_ms": round(1000 * median, 1) for name, median in seconds.items()},
        "gain": seconds["without"] / seconds["with"],
    }


def bundles(model: Predictor, folder: Path) -> tuple[Predictor, Predictor]:
    """The model as an fp32 bundle with and without the backend."""
    export(model, folder / "with")
    (folder / "without").mkdir()
    graphs = to_openvino(graphs_of(model.model))
    save_bundle(model, folder / "without", {"fp32": graphs}, None, {"runtime": "openvino"})
    return load(folder / "with"), load(folder / "without")


def learner_of(config: Config, n_classes: int) -> Learner:
    torch.manual_seed(0)
    return Learner(build_model(config.model, n_classes, NATIVE), config.train, World())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        resnet50 = import_checkpoint(torchvision_model(0).state_dict(), "torchvision", min_size=SIZE, max_size=SIZE)
        for title, model in (("predict resnet50", resnet50), ("predict nuclei", load("nuclei", device="cpu"))):
            fast, plain = bundles(model, folder / title)
            results[title] = gain(
                lambda k, m=fast: m.predict(picture(k % 4)), lambda k, m=plain: m.predict(picture(k % 4)), args.rounds
            )
        data = maskrcnn.open_dataset(write_shapes(folder / "shapes", 12, 0, hw=(512, 512)), say=lambda _: None)
        for preset in ("lite", "resnet50"):
            # A tiny learning rate keeps the weights, and with them the work of a step, constant.
            config = Settings.build(preset).config.changed(train={"lr": 1e-6})
            fast_learner = learner_of(config, len(data.class_ids))
            with mock.patch.object(winograd, "accelerate"):
                plain_learner = learner_of(config, len(data.class_ids))
            batches = [make_batch(data, step, config, Shard.of(2)) for step in range(4)]
            with freed_memory_kept(torch.device("cpu")):
                results[f"train {preset}"] = gain(
                    lambda k, m=fast_learner, b=batches: m.learn(b[k % 4], k, 1000),
                    lambda k, m=plain_learner, b=batches: m.learn(b[k % 4], k, 1000),
                    args.rounds,
                )
    if args.json:
        print(json.dumps(results))
        return
    for title, row in results.items():
        print(f"{title}: {row['with_ms']} ms with the backend, {row['without_ms']} ms without, gain {row['gain']}")


if __name__ == "__main__":
    main()
