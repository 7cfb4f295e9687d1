"""The command ``maskrcnn``: one thin module for each subcommand, loaded when it is called."""

from __future__ import annotations

import sys

from cyclopts import App, Parameter

from maskrcnn import __version__
from maskrcnn.errors import UserError

app = App(
    name="maskrcnn",
    help="Mask R-CNN: images and run-length masks in; a trained, scored model and predicted masks out.",
    version=__version__,
    help_on_error=False,
    default_parameter=Parameter(negative_iterable=()),
    help_format="plaintext",  # Markdown would cost another 0.1 s to import
)
app.command("maskrcnn.cli.demo:demo", name="demo", help="Make a small data set, train on it, score and predict.")
app.command(
    "maskrcnn.cli.check:check",
    name="check",
    help="Check a data set: counts, sizes, classes, problems.",
)
app.command("maskrcnn.cli.split:split", name="split", help="Split a CSV by image into training and validation.")
app.command("maskrcnn.cli.train:train", name="train", help="Train a model, or continue a run.")
app.command("maskrcnn.cli.evaluate:evaluate", name="evaluate", help="Score a model: COCO and Kaggle metrics.")
app.command(
    "maskrcnn.cli.import_:import_",
    name="import",
    help="Convert a checkpoint of torchvision, Detectron2 or Matterport.",
)
app.command("maskrcnn.cli.export:export", name="export", help="Write a model for use without torch.")
app.command(
    "maskrcnn.cli.benchmark:benchmark",
    name="benchmark",
    help="Measure time and memory on this machine, stage by stage.",
)
app.command("maskrcnn.cli.predict:predict", name="predict", help="Find instances in pictures.")

INTERRUPTED = 130
EXTRA_OF = {
    "polars": "data",
    **dict.fromkeys(("torch", "torchvision", "timm", "tensorboard", "filelock"), "train"),
    **dict.fromkeys(("openvino", "onnxruntime", "onnx", "nncf"), "export"),
}
"""The extra of this package that installs a missing package."""

STANDARD_INPUT = "/dev/stdin"
"""Stands for the hyphen of ``maskrcnn predict -``, which the parser would take for an option."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. A user's mistake ends in one message and a non-zero exit status, without a traceback."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["predict"]:
        words = [STANDARD_INPUT if word == "-" else word for word in words]
    try:
        status = app(words)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        extra = EXTRA_OF.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        print(f"error: {error.name} is not installed: pip install 'maskrcnn[{extra}]'", file=sys.stderr)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
