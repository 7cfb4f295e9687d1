"""Progress display of a run: one bar with the time left and all losses, and one line per validation."""

from __future__ import annotations

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

LABELS = {
    "loss": "loss",
    "rpn_class_loss": "rpn class",
    "rpn_bbox_loss": "rpn bbox",
    "mrcnn_class_loss": "class",
    "mrcnn_bbox_loss": "bbox",
    "mrcnn_mask_loss": "mask",
}
SMOOTHING = 0.95
"""Decay of the moving average of each loss."""


class ProgressDisplay:
    """Context manager that shows the bar and, below it, the smoothed losses; shows nothing if `console` is None."""

    def __init__(self, console: Console | None) -> None:
        self.console = console
        self.smoothed: dict[str, float] = {}
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

    def __exit__(self, *error: object) -> None:
        self.live.stop()
        if self.console is not None and not self.console.is_terminal:
            self.console.line()  # rich ends its last line on a terminal only

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self.console is not None:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def step(self, step: int, total: int | None, losses: dict[str, float]) -> None:
        """Show that step `step` is done."""
        for name, value in losses.items():
            previous = self.smoothed.get(name, value)
            self.smoothed[name] = SMOOTHING * previous + (1 - SMOOTHING) * value
        texts = (f"{label} {self.smoothed[name]:.3f}" for name, label in LABELS.items() if name in self.smoothed)
        self.losses.plain = "  ".join(texts)
        self.bar.update(self.task, completed=step, total=total)

    def validating(self, done: int, total: int) -> None:
        """Show that `done` of the `total` images of a validation are done."""
        self.bar.update(self.task, description=f"validate {done}/{total}" if done < total else "train")

    def explaining(self, done: int, total: int) -> None:
        """Show that `done` of up to `total` images of the last report are examined."""
        self.bar.update(self.task, description=f"explain {done}/{total}")
