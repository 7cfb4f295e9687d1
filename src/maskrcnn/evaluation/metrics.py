"""`Metrics`: the scores of an evaluation, a dictionary that shows itself in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Metrics(dict[str, Any]):
    """Scores by name, as `maskrcnn.evaluation.score` describes them: ``metrics["mask"]["AP"]``.

    The values are those of JSON.
    """

    def plot(self) -> Figure:
        """Return AP by IoU and by class as a figure of matplotlib. Raise `UserError` without matplotlib."""
        from maskrcnn.inspection.plots import plot_metrics

        return plot_metrics(self)

    def _repr_html_(self) -> str:
        from maskrcnn.inspection.notebook import metrics_view

        return metrics_view(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Write what IPython shows where it shows no HTML, and stores beside it."""
        printer.text(f"<Metrics: {describe_scores(self)}>")


def describe_scores(scores: Mapping[str, Any]) -> str:
    """Format the main scores in one line; a dash stands for an undefined one."""

    def text(value: float | None) -> str:
        return "  -  " if value is None else f"{value:.3f}"

    return (
        f"mask AP {text(scores['mask']['AP'])} AP50 {text(scores['mask']['AP50'])} "
        f"box AP {text(scores['box']['AP'])} Kaggle {text(scores['kaggle']['mean'])}"
    )
