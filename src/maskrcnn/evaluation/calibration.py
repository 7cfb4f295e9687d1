"""Precision-recall curve and reliability of scores, from D detections that `maskrcnn.evaluation.tide` has judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision-recall curve: entry k of each (D,) array covers the k + 1 highest-scoring detections."""

    recall: np.ndarray
    precision: np.ndarray
    scores: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall, (D,)."""
        return 2 * self.precision * self.recall / np.maximum(self.precision + self.recall, 1e-12)

    def at(self, score: float) -> tuple[float, float] | None:
        """Return (recall, precision) of the detections that score at least `score`; None if there are none."""
        n = int(np.searchsorted(-self.scores, -score, side="right"))
        return (float(self.recall[n - 1]), float(self.precision[n - 1])) if n else None


def precision_recall(scores: np.ndarray, hits: np.ndarray, n_truth: int) -> PrecisionRecall:
    """Compute the curve from scores (D,) and correctness `hits` (D,) of detections, for `n_truth` instances."""
    order = np.argsort(-scores, kind="stable")
    n_correct = np.cumsum(hits[order])
    return PrecisionRecall(n_correct / max(n_truth, 1), n_correct / np.arange(1, len(order) + 1), scores[order])


@dataclass(frozen=True)
class Reliability:
    """Reliability diagram: detections in score bins of equal width, bounded by `edges` (bins + 1,).

    `counts`, mean `scores` and `shares` of correct detections are (bins,); the last two are NaN in an empty bin.
    `error` is the expected calibration error (Naeini, Cooper, Hauskrecht 2015; Guo et al. 2017): |share - mean score|
    of each bin, averaged over detections, or None without any.
    """

    edges: np.ndarray
    counts: np.ndarray
    scores: np.ndarray
    shares: np.ndarray
    error: float | None


def reliability(scores: np.ndarray, hits: np.ndarray, bins: int = 10) -> Reliability:
    """Bin detections by their scores (D,) in [0, 1], with correctness `hits` (D,)."""
    bin_index = np.minimum((scores * bins).astype(np.int64), bins - 1)
    counts = np.bincount(bin_index, minlength=bins)
    divisors = np.where(counts > 0, counts, np.nan)
    mean_scores, shares = (np.bincount(bin_index, values, minlength=bins) / divisors for values in (scores, hits))
    error = float(np.nansum(np.abs(mean_scores - shares) * counts) / len(scores)) if len(scores) else None
    return Reliability(np.linspace(0, 1, bins + 1), counts, mean_scores, shares, error)
