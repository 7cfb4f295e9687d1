"""Call the command line within the process, and the options of a training run of seconds."""

import pytest

from maskrcnn.cli import main

TINY = ["--backbone", "test_resnet", "--weights", "none", "--image-size", "64", "--channels", "16"]
TINY += ["--box-channels", "32", "--mask-channels", "16", "--epochs", "1", "--epoch-images", "4"]


def call(*arguments) -> int:
    """Run the command line and return its exit status."""
    with pytest.raises(SystemExit) as exit_info:
        main([str(a) for a in arguments])
    return exit_info.value.code or 0
