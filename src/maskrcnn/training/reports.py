"""The reports of a run: one after each validation, and the last one, of the run's model with the causes of its errors.

run's model -> its evaluation -> diagnosis of as many images as the time allows -> report.html
"""

from __future__ import annotations

import time
from collections.abc import Callable

from torch import Tensor

from maskrcnn.checkpoints.native import read_model
from maskrcnn.data.table import Dataset
from maskrcnn.evaluation import Evaluation, find, judge_found
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inspection.diagnosis import diagnose, images_within
from maskrcnn.inspection.report import failures_said, write_run_report
from maskrcnn.training.budget import prediction_seconds
from maskrcnn.training.progress import ProgressDisplay
from maskrcnn.training.run_folder import RunFolder, RunState


class Reports:
    """Writes the reports of a run. A report influences nothing else, and a failure is only said.

    `last` and `best` are the evaluations of the last and of the best validation, if this process made them.
    """

    def __init__(self, folder: RunFolder, display: ProgressDisplay) -> None:
        self.folder, self.display = folder, display
        self.last: Evaluation | None = None
        self.best: Evaluation | None = None
        self.seconds = 0.0
        """How long the last report took to write."""

    def write(self, step: int) -> None:
        """Write the report of the last validation, after `step` steps."""
        began = time.monotonic()
        write_run_report(self.folder.path, self.last, step, self.display.say)
        self.seconds = time.monotonic() - began

    def write_last(
        self,
        val_data: Dataset,
        predictor_of: Callable[[dict[str, Tensor]], Predictor],
        state: RunState,
        seconds_left: float,
        processes: int,
    ) -> None:
        """Write the report of the run's model, the best or else the last, with the causes of its errors.

        As many images are examined as `seconds_left` allow, by the pace of the last validation with its `processes`.
        Without time for any, the report of that validation stays. A run that was resumed after its best validation
        scores the best model again. Do nothing if this process validated nothing. `predictor_of` takes weights.
        """
        if self.last is None:
            return
        path, step = (self.folder.best, state.best_step) if state.best_step else (self.folder.last, state.step)
        evaluation = self.best if state.best_step else self.last
        each = processes * prediction_seconds(self.last)
        again = each * len(val_data) + self.last.scores["seconds"] if evaluation is None else 0.0
        n_images = images_within(seconds_left - self.seconds - again, each)
        if n_images == 0:
            self.display.say("the budget left no time to explain errors in the report; maskrcnn evaluate --report does")
            return
        with failures_said(self.display.say):
            model = predictor_of(read_model(path).weights)
            if evaluation is None:
                evaluation = judge_found(model, val_data, find(model, val_data, range(len(val_data))), again)
            diagnosis = diagnose(model, evaluation, n_images, self.display.explaining)
            write_run_report(self.folder.path, evaluation, step, self.display.say, diagnosis=diagnosis)
