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
    default_parameter=Parameter(negative_iterable=(), consume_multiple=True),
    help_format="plaintext",  # Markdown would cost another 0.1 s to import
)
COMMANDS = {
    "demo:demo": "Make a small data set, train on it, score and predict.",
    "check:check": "Check a data set: counts, sizes, classes, problems.",
    "convert:convert": "Write a data set in another format.",
    "split:split": "Split a CSV by image into training and validation.",
    "train:train": "Train a model, or continue a run.",
    "evaluate:evaluate": "Score a model: COCO and Kaggle metrics.",
    "import_:import_": "Convert a checkpoint of torchvision, Detectron2 or Matterport.",
    "export:export": "Write a model for use without torch.",
    "benchmark:benchmark": "Measure time and memory on this machine, stage by stage.",
    "predict:predict": "Find instances in pictures.",
}
for _function, _help in COMMANDS.items():
    app.command(f"maskrcnn.cli.{_function}", name=_function.partition(":")[0].rstrip("_"), help=_help)

SOME_UNREADABLE, INTERRUPTED = 3, 130
"""Exit status of a command that skipped pictures, and of one that Ctrl+C or a signal stopped."""

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
