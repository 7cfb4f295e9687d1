"""The command ``maskrcnn``: one thin module for each subcommand, loaded when it is called."""

from __future__ import annotations

import sys

from cyclopts import App, CycloptsError, Parameter

from maskrcnn import __version__
from maskrcnn.errors import UserError

app = App(
    name="maskrcnn",
    help="Mask R-CNN: images and run-length masks in; a trained, scored model and predicted masks out.",
    version=__version__,
    default_parameter=Parameter(negative_iterable=(), consume_multiple=1),  # a list option takes 1 value or more
    help_format="markdown",  # plain text would keep the line ends of the source
)
COMMANDS = {
    "demo:demo": "Make a small data set, train on it, score and predict.",
    "check:check": "Check a data set: counts, sizes, classes, problems.",
    "convert:convert": "Write a data set in another format.",
    "split:split": "Choose validation images of a data set.",
    "train:train": "Train a model, or continue a run.",
    "evaluate:evaluate": "Score a model: COCO and Kaggle metrics.",
    "import_:import_": "Convert a checkpoint of torchvision, Detectron2 or Matterport.",
    "export:export": "Write a model for use without torch.",
    "benchmark:benchmark": "Measure time and memory on this machine, stage by stage.",
    "predict:predict": "Find instances in pictures.",
    "inspect:inspect": "Write a page that walks pictures through every stage.",
}
NAME_OF_FUNCTION = {function: function.partition(":")[0].rstrip("_") for function in COMMANDS}
for _function, _help in COMMANDS.items():
    app.command(f"maskrcnn.cli.{_function}", name=NAME_OF_FUNCTION[_function], help=_help)

MISUSED, SOME_UNREADABLE, INTERRUPTED = 2, 3, 130
"""Exit status after a wrong command line, of a command that skipped pictures, and of one that a signal stopped."""

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
        if words and words[0] in NAME_OF_FUNCTION.values():
            app[words[0]].help = None  # its docstring says more than its line in the list of commands
        status = app(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        from maskrcnn.cli.mistakes import describe

        print(f"error: {describe(error, NAME_OF_FUNCTION.values())}", file=sys.stderr)
        sys.exit(MISUSED)
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
