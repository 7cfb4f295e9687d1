"""Scores against truth: precision and recall at every score, and whether a score of 0.8 is right 8 times in 10.

D detections, judged correct or not by `maskrcnn.evaluation.errors`
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PrecisionRecall:
    """`recall`, `precision` and `scores` (D,), of the detections down to each score, highest score first."""

    recall: np.ndarray
    precision: np.ndarray
    scores: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """(D,) harmonic mean of precision and recall."""
        return 2 * self.precision * self.recall / np.maximum(self.precision + self.recall, 1e-12)

    def at(self, score: float) -> tuple[float, float] | None:
        """(recall, precision) of the detections from `score` on; None where there is none."""
        n = int(np.searchsorted(-self.scores, -score, side="right"))
        return (float(self.recall[n - 1]), float(self.precision[n - 1])) if n else None


def precision_recall(scores: np.ndarray, hits: np.ndarray, n_truth: int) -> PrecisionRecall:
    """From scores (D,) and whether each detection is correct (D,), for `n_truth` instances."""
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(hits[order])
    return PrecisionRecall(right / max(n_truth, 1), right / np.arange(1, len(order) + 1), scores[order])


@dataclass(frozen=True)
class Reliability:
    """Detections in bins of equal width by score, which `edges` (bins + 1,) cut.

    Of each bin: `counts`, mean `scores` and `shares` that are correct, NaN where it is empty. `error` is the expected
    calibration error (Naeini, Cooper, Hauskrecht 2015; Guo et al. 2017): the mean over detections of the distance
    between the share and the score of their bin; None without detections.
    """

    edges: np.ndarray
    counts: np.ndarray
    scores: np.ndarray
    shares: np.ndarray
    error: float | None


def reliability(scores: np.ndarray, hits: np.ndarray, bins: int = 10) -> Reliability:
    """From scores (D,) in [0, 1] and whether each detection is correct (D,)."""
    which = np.minimum((scores * bins).astype(np.int64), bins - 1)
    counts = np.bincount(which, minlength=bins)
    some = np.where(counts > 0, counts, np.nan)
    mean, share = (np.bincount(which, values, minlength=bins) / some for values in (scores, hits))
    error = float(np.nansum(np.abs(mean - share) * counts) / len(scores)) if len(scores) else None
    return Reliability(np.linspace(0, 1, bins + 1), counts, mean, share, error)
