"""Choose the precision of a bundle: of those whose cost in AP is known and allowed, what this processor runs fastest.

precisions that bundle and processor have -> those of known, allowed cost -> timed on this network, or looked up in the
user's cache -> the fastest, and a line that says why
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from maskrcnn.config import Precision
from maskrcnn.detection.fit import fit_picture, stack
from maskrcnn.detection.pool import BOX_POOL
from maskrcnn.errors import counted
from maskrcnn.inference.runtimes import Runtime
from maskrcnn.inference.timings import noise_picture, read_seconds, write_seconds

R = TypeVar("R", bound=Runtime)

KINDS = ("box AP", "mask AP")

MAX_LOSS = 1.0
"""Box or mask AP, in points of 100, that a precision may cost, unless the export allows another loss."""

MIN_GAIN = 1.05
"""Minimum speed of a precision that replaces fp32, as a multiple of fp32's: the noise of a timing must not cost AP."""

OBJECTS = 50
"""Objects in the timed picture."""

SECONDS, ROUNDS = 1.0, 3
"""Timing ends after so many seconds and at least so many rounds."""


def change_of_ap(scores: Mapping[str, Any], precision: str) -> dict[str, float] | None:
    """What `precision` adds to fp32's box and mask AP, in points of 100. None if one was not measured or is undefined.

    `scores` are those of ``model.json``: "images", and "box AP" and "mask AP" by precision.
    """
    measured, exact = scores.get(precision), scores.get("fp32")
    if not isinstance(measured, Mapping) or not isinstance(exact, Mapping):
        return None
    change = {}
    for kind in KINDS:
        before, after = exact.get(kind), measured.get(kind)
        if before is None or after is None:
            return None
        change[kind] = after - before
    return change


def is_allowed(scores: Mapping[str, Any], precision: str, max_loss: float) -> bool:
    """Whether the cost of `precision` is known and at most `max_loss` points."""
    change = change_of_ap(scores, precision)
    return change is not None and all(added >= -max_loss for added in change.values())


def choose(
    precisions: Sequence[Precision],
    scores: Mapping[str, Any],
    max_loss: float,
    open_in: Callable[[Precision], R],
    timings: Path,
    say: Callable[[str], None],
) -> R:
    """Open a model with `open_in` in the fastest of `precisions` that `is_allowed`, or in the first, whose cost is 0.

    `timings` is where the measured times are kept. If there was a choice, `say` gets a line about it.
    """
    first, *others = precisions
    names = [first, *(name for name in others if is_allowed(scores, name, max_loss))]
    if len(names) == 1:
        return open_in(first)
    opened: dict[Precision, R] = {}
    seconds = read_seconds(timings, names)
    if seconds is None:
        opened = {name: open_in(name) for name in names}
        seconds = measure(opened)
        write_seconds(timings, seconds)
    fastest = min(seconds, key=seconds.__getitem__)
    chosen = fastest if seconds[first] >= MIN_GAIN * seconds[fastest] else first
    say(reason(chosen, seconds, scores))
    return opened[chosen] if chosen in opened else open_in(chosen)


def reason(chosen: Precision, seconds: Mapping[Precision, float], scores: Mapping[str, Any]) -> str:
    """Say why `chosen` was chosen, given the `seconds` of the allowed precisions, of which fp32 is the first."""
    first, *others = seconds
    if chosen == first:
        speeds = " and ".join(f"{name} runs {seconds[first] / seconds[name]:.2f} times as fast" for name in others)
        return f"{first}: on this processor, {speeds}"
    change = change_of_ap(scores, chosen) or {}
    costs = ", ".join(f"{kind} {added:+.2f}" for kind, added in change.items())
    speed, images = seconds[first] / seconds[chosen], counted(scores.get("images", 0), "image")
    return f"{chosen}: {speed:.2f} times as fast as {first} on this processor, {costs} on {images}"


def measure(runtimes: Mapping[Precision, Runtime]) -> dict[Precision, float]:
    """Median seconds of each network for one picture of a usual size, in turns: all proposals, and `OBJECTS` objects.

    The number of regions does not depend on what the networks find.
    """
    detector = next(iter(runtimes.values())).detector
    config = detector.config
    fitted = fit_picture(noise_picture(config, detector.conventions), detector.conventions, config)
    pixels, windows = stack([fitted.pixels])[0], np.array([fitted.window], np.int64)
    rng, cells = np.random.default_rng(0), config.mask_size // 2
    shapes = {"box_head": (config.proposals, BOX_POOL, BOX_POOL), "mask_head": (OBJECTS, cells, cells)}
    regions = {name: rng.standard_normal((*shape, config.channels), np.float32) for name, shape in shapes.items()}
    labels = np.ones(OBJECTS, np.int64)

    def seconds(runtime: Runtime) -> float:
        network = runtime.network()
        pooled = {name: network.region_formats[name].encode(values) for name, values in regions.items()}
        began = time.perf_counter()
        network.trunk(pixels, windows)
        network.box_head(pooled["box_head"])
        network.mask_head(pooled["mask_head"], labels)
        return time.perf_counter() - began

    for runtime in runtimes.values():
        seconds(runtime)  # allocates memory
    rounds: list[list[float]] = []
    began = time.perf_counter()
    while len(rounds) < ROUNDS or time.perf_counter() - began < SECONDS:
        rounds.append([seconds(runtime) for runtime in runtimes.values()])
    return dict(zip(runtimes, map(statistics.median, zip(*rounds, strict=True)), strict=True))
