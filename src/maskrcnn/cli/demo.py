"""``maskrcnn demo``."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path
from typing import Any

from maskrcnn.cli import INTERRUPTED
from maskrcnn.cli.common import Json, Seed, print_json, say, show_scores, talk
from maskrcnn.config import Config
from maskrcnn.errors import UserError
from maskrcnn.settings import Settings

N_IMAGES = 200
HELD_OUT_SHARE = 0.2
SETTINGS: dict[str, dict[str, Any]] = {
    "model": {"image_size": 256},
    "train": {"epochs": 1, "epoch_images": 640, "batch_size": 4, "roi_batch": 64, "mask_batch": 12, "ema": 0.97},
    "augment": {"scale": (0.8, 1.25)},
}
"""Train at the size of the images for one epoch of 160 steps: about three minutes on two cores."""


def demo(*, out: Path | None = None, seed: Seed = 0, json: Json = False) -> int:
    """Make a small data set of overlapping shapes, train on it, score the model and predict.

    Needs only the installed package and about four minutes on two cores.

    Parameters
    ----------
    out
        Folder to create. Default: demo, or demo-2, demo-3, ... if that exists.
    seed
        Seed of every random choice.
    json
        Print the scores on held-out images as one JSON object.
    """
    from maskrcnn.data.formats import open_dataset
    from maskrcnn.data.synthetic import write_shapes
    from maskrcnn.evaluation import examine
    from maskrcnn.inference.outputs import Writer
    from maskrcnn.inspection.report import write_report
    from maskrcnn.training.loop import train

    started = time.monotonic()
    if out is None:
        out = next(p for n in count(1) if not (p := Path("demo" if n == 1 else f"demo-{n}")).exists())
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty; choose another --out")
    csv = write_shapes(out / "data", N_IMAGES, seed)
    train_part, held_out = open_dataset(csv, say=say).split(HELD_OUT_SHARE, seed)
    say(f"{len(train_part)} images to train on, {len(held_out)} held out")
    settings = Settings.build("lite", user=Config().changed(**SETTINGS).changed(train={"seed": seed}))
    run = train(train_part, None, out=out / "run", config=settings, console=talk)
    if not run.finished:
        return INTERRUPTED
    model = run.model
    evaluation = examine(model, held_out)
    scores = evaluation.scores
    show_scores(scores)
    report = run.path / "report.html"
    write_report(report, "demo", model.config, evaluation, run=run.path, provenance=model.provenance)
    writer = Writer(out / "predictions", overlays=True, labels=False, with_class=True)
    with writer.open(submission=True, coco=False):
        for path, detections in zip(held_out.files, model.predict_many(held_out.files, keep_pixels=True), strict=True):
            writer.add(Path(path.name), path.name, detections)
    seconds = time.monotonic() - started
    say(f"data        {csv}")
    say(f"model       {run.path}")
    say(f"report      {report}")
    say(f"pictures    {out / 'predictions' / 'overlays'}")
    say(f"submission  {out / 'predictions' / 'submission.csv'}")
    say(f"mask AP50 {scores['mask']['AP50']:.3f} on {len(held_out)} held-out images; {seconds:.0f} s in all")
    if json:
        print_json({**scores, "total_seconds": seconds, "seed": seed, "out": str(out)})
    return 0
