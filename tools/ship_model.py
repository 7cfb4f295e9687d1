"""Build the files of a model that ships with the package: half-precision weights and an int8 bundle, and score both.

    python tools/ship_model.py RUN NAME --classes nucleus --data train.csv --images images/ --val-ids val_ids.txt

Writes to ``src/maskrcnn/models``; prints sizes, hashes and validation scores for the model's card.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import maskrcnn
from maskrcnn.checkpoints.load import load
from maskrcnn.checkpoints.native import Checkpoint, write_model
from maskrcnn.checkpoints.shipped import FOLDER
from maskrcnn.config import TrainConfig
from maskrcnn.deploy.export import export
from maskrcnn.evaluation import evaluate


def card_scores(scores: dict[str, Any]) -> dict[str, float]:
    """Return the scores of a model card."""
    values = {f"{kind} {key}": scores[kind][key] for kind in ("box", "mask") for key in ("AP", "AP50", "AP75")}
    values["Kaggle"] = scores["kaggle"]["mean"]
    return {name: round(value, 4) for name, value in values.items()}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--classes", nargs="+", required=True, help="names of the classes")
    parser.add_argument("--score-threshold", type=float, default=0.5)
    parser.add_argument("--image-size", type=int, help="input size, if not that of the run")
    parser.add_argument("--min-scale", type=float, help="minimum image scale, if not that of the run")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--val-ids", type=Path, required=True)
    args = parser.parse_args()
    data = maskrcnn.open_dataset(args.data, images=args.images)
    train, val = data.split_by_names(args.val_ids.read_text("utf-8").split())
    trained = load(args.run, device="cpu")
    weights, bundle = FOLDER / f"{args.name}.safetensors", FOLDER / f"{args.name}-int8"
    # The card documents the training settings; as a starting point for training, the model carries the defaults.
    config = trained.config.model_copy(update={"train": TrainConfig()}).changed(
        model={
            "image_size": args.image_size or trained.config.model.image_size,
            "min_scale": trained.config.model.min_scale if args.min_scale is None else args.min_scale,
        },
        predict={"mask_scoring": True, "box_voting": True, "score_threshold": args.score_threshold},
    )
    checkpoint = Checkpoint(
        weights={n: t.half() if t.is_floating_point() else t for n, t in trained.model.state_dict().items()},
        config=config,
        conventions=trained.conventions,
        class_ids=trained.class_ids,
        class_names=args.classes,
        provenance={k: v for k, v in trained.provenance.items() if k in ("step", "data", "versions")},
        reading=trained.reading,
    )
    write_model(weights, checkpoint)
    half = load(weights, device="cpu")
    export(half, bundle, precision="int8", calibrate=train, say=print)
    for path, model in ((weights, half), (bundle, load(bundle))):
        files = [path] if path.is_file() else sorted(path.iterdir())
        print(path.name, f"{sum(f.stat().st_size for f in files) / 1e6:.2f} MB")
        print(json.dumps({f.name: sha256(f) for f in files}, indent=1))
        print(json.dumps(card_scores(evaluate(model, val))))


if __name__ == "__main__":
    main()
