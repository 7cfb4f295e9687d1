"""Count the pictures in which a limit cut off likely objects, and say which setting lifts it."""

from __future__ import annotations

from collections.abc import Iterable

from maskrcnn.config import Config
from maskrcnn.detection.select import detection_limit
from maskrcnn.errors import counted
from maskrcnn.structures import Detections

LIKELY = 0.5
"""Minimum objectness of the weakest proposal for which the limit of proposals may have cost objects."""


class LimitCounter:
    """Pictures whose detections or proposals reached their limit, for a model of `config`.

    The limit of detections counts where the weakest one passes the score threshold of `config`, which may be above that
    of the detections. Most pictures fill the limit of proposals, so this counts only where the weakest one is likely.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._pictures = self._cut_detections = self._cut_proposals = 0

    def add(self, detections: Detections) -> None:
        """Count a picture."""
        score, objectness = detections.weakest_of_limit
        self._pictures += 1
        self._cut_detections += score is not None and score >= self._config.predict.score_threshold
        self._cut_proposals += objectness is not None and objectness >= LIKELY

    def sentence(self) -> str | None:
        """Return a sentence about the limits that were reached, or None."""
        detections, pictures = detection_limit(self._config.predict), counted(self._pictures, "picture")
        parts = [
            f"{n:,} of {pictures} reached the limit of {counted(limit, name[:-1])} (--{name} N)"
            for n, limit, name in (
                (self._cut_detections, detections, "detections"),
                (self._cut_proposals, self._config.model.proposals, "proposals"),
            )
            if n
        ]
        return f"{'; '.join(parts)}: objects may be missing" if parts else None


def limit_note(found: Iterable[Detections], config: Config) -> str | None:
    """Return the sentence of a `LimitCounter` about all pictures."""
    counter = LimitCounter(config)
    for detections in found:
        counter.add(detections)
    return counter.sentence()
