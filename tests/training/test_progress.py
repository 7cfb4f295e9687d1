"""Progress display of a run."""

import io

from rich.console import Console

from maskrcnn.training.progress import ProgressDisplay


def test_last_line_of_a_log_ends():
    log = io.StringIO()
    console = Console(file=log, width=100)
    with ProgressDisplay(console) as display:
        display.step(1, 1, {"rpn_class_loss": 0.5})
    console.print("next", end="")
    assert log.getvalue().splitlines()[-2:] == ["rpn class 0.500", "next"]
