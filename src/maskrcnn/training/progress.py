"""What a person sees while a run goes on: one bar with all losses and the time left, one line a validation."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SHORT = {
    "loss": "loss",
    "rpn_class_loss": "rpn class",
    "rpn_bbox_loss": "rpn bbox",
    "mrcnn_class_loss": "class",
    "mrcnn_bbox_loss": "bbox",
    "mrcnn_mask_loss": "mask",
}
SMOOTHING = 0.95


class ProgressDisplay:
    """A context for one run: the bar, and the smoothed losses below it; `console` None shows nothing."""

    def __init__(self, console: Console | None) -> None:
        self.console = console
        self.smooth: dict[str, float] = {}
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
        )
        self.task = self.bar.add_task("train", total=None)
        self.losses = Text(style="dim")
        self.live = Live(Group(self.bar, self.losses), console=console or Console(quiet=True), refresh_per_second=4)

    def __enter__(self) -> ProgressDisplay:
        self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()

    def say(self, line: str) -> None:
        """A line above the bar."""
        if self.console is not None:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def step(self, step: int, total: int | None, losses: dict[str, float]) -> None:
        """Step `step` is done."""
        for name, value in losses.items():
            before = self.smooth.get(name, value)
            self.smooth[name] = SMOOTHING * before + (1 - SMOOTHING) * value
        shown = (f"{short} {self.smooth[name]:.3f}" for name, short in SHORT.items() if name in self.smooth)
        self.losses.plain = "  ".join(shown)
        self.bar.update(self.task, completed=step, total=total)

    def validating(self, done: int, of: int) -> None:
        """Image `done` of a validation is done."""
        self.bar.update(self.task, description=f"validate {done}/{of}" if done < of else "train")


def describe_scores(scores: dict[str, Any]) -> str:
    """The scores of a validation in one line."""

    def show(value: float | None) -> str:
        return "  -  " if value is None else f"{value:.3f}"

    return (
        f"mask AP {show(scores['mask']['AP'])} AP50 {show(scores['mask']['AP50'])} "
        f"box AP {show(scores['box']['AP'])} Kaggle {show(scores['kaggle']['mean'])}"
    )
