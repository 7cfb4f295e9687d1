"""Open mutated files in a process with limits, and count what happens.

    python benchmarks/fuzz.py [--target NAME ...] [--cases N] [--seed S] [--only CASE]

Every reader has to end in a data set or in a `UserError`. Anything else is a crash, whose traceback is printed once for
each place in the code. A target is a format, a codec of masks, or the decoder of pictures. A case is a function of the
seed, the target and its number: ``--only`` repeats one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz_targets import TARGETS, Target
from mutations import Mutator

from maskrcnn.errors import UserError

LIMIT_S = 5.0
"""Seconds that a case may take; three times as many before its process is killed."""

MEMORY, PEAK = 3 * 2**30, 2**30
"""Bytes that the process may add to its addresses, and that one case may add to the resident memory."""

BATCH = 200
"""Cases between two reports of a process."""

OUTCOMES = ("opened", "refused", "crash", "hang", "memory")


class OutOfTime(BaseException):
    """The case takes too long."""


@dataclass
class Tally:
    """How many cases ended in which way, and the first case and traceback of each fault."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, outcome: str, number: int, place: str = "", text: str = "") -> None:
        """Count a case."""
        self.outcomes[outcome] += 1
        if outcome not in ("opened", "refused"):
            self.faults.setdefault(f"{outcome} {place}", (number, text))

    def join(self, other: Tally) -> None:
        """Add the cases of another process."""
        self.outcomes += other.outcomes
        self.faults = other.faults | self.faults


def mutator_of(seed: int, name: str, number: int) -> Mutator:
    """Return the mutator of a case."""
    return Mutator(random.Random(f"{seed} {name} {number}"))


def run_case(target: Target, number: int, seed: int, tally: Tally) -> None:
    """Run one case and count its outcome."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    outcome, place, text = "opened", "", ""
    try:
        target.run(mutator_of(seed, target.name, number), number)
    except UserError:
        outcome = "refused"
    except OutOfTime:
        outcome, text = "hang", traceback.format_exc()
    except MemoryError:
        outcome, text = "memory", traceback.format_exc()
    except BaseException as error:  # a panic of a library in Rust is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome, text = "crash", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if outcome in ("opened", "refused") and grown > PEAK:
        outcome, text = "memory", f"the case took {grown / 2**20:,.0f} MiB"
    if text:
        frames = [line.strip() for line in text.splitlines() if line.startswith("  File")]
        place = f"{text.splitlines()[-1].partition(':')[0]} {' '.join(frames[-2:])}"
    tally.add(outcome, number, place, text)


def _raise_out_of_time(*_: Any) -> None:
    raise OutOfTime


def work(name: str, numbers: range, seed: int, connection: Any, current: Any) -> None:
    """Run the cases `numbers` and send a tally for every `BATCH` of them. `current` holds the number of the case."""
    warnings.filterwarnings("error", category=RuntimeWarning)
    warnings.filterwarnings("error", category=SyntaxWarning)
    signal.signal(signal.SIGALRM, _raise_out_of_time)
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        target = TARGETS[name](name, Path(folder))
        with suppress(UserError):
            target.run(None, 0)  # libraries load and kernels compile
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # panics in Rust print their own traces
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        tally = Tally()
        for number in numbers:
            current.value = number
            run_case(target, number, seed, tally)
            if (number + 1) % BATCH == 0:
                connection.send(tally)
                tally = Tally()
        connection.send(tally)
        connection.send(None)


def memory_folder() -> str | None:
    """Return a folder whose files stay in memory, if the system has one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def fuzz(name: str, n_cases: int, seed: int, first: int = 0) -> tuple[Tally, float]:
    """Run the cases of a target and return their tally and the seconds. A process that dies is replaced."""
    context = multiprocessing.get_context("fork")
    total, began, end = Tally(), time.perf_counter(), first + n_cases
    while first < end:
        receiver, sender = context.Pipe(duplex=False)
        current = context.Value("q", -1, lock=False)
        process = context.Process(target=work, args=(name, range(first, end), seed, sender, current))
        process.start()
        sender.close()
        is_done, case, since = False, -1, time.monotonic()
        while not is_done:
            if receiver.poll(1.0):
                try:
                    tally = receiver.recv()
                except EOFError:
                    break
                is_done = tally is None
                if tally is not None:
                    total.join(tally)
            if current.value != case:
                case, since = current.value, time.monotonic()
            elif time.monotonic() - since > 3 * LIMIT_S and case >= 0:
                break
        if is_done:
            process.join()
            break
        is_stuck = process.is_alive() and process.exitcode is None and time.monotonic() - since > 3 * LIMIT_S
        process.kill()
        process.join()
        if current.value < 0:
            raise SystemExit(f"{name}: the process ended before its first case, with {process.exitcode}")
        text = f"killed after {3 * LIMIT_S:.0f} s" if is_stuck else f"the process ended with {process.exitcode}"
        total.add("hang" if is_stuck else "crash", current.value, f"process {current.value}", text)
        first = current.value + 1
    return total, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="+", default=list(TARGETS), choices=list(TARGETS), metavar="NAME")
    parser.add_argument("--cases", type=int, default=1000, help="of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this case alone, and show its traceback")
    args = parser.parse_args()
    print("| target | cases | opened | refused | crashes | hangs | memory | cases a second |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in args.target:
        n_cases, first = (1, args.only) if args.only is not None else (args.cases, 0)
        tally, seconds = fuzz(name, n_cases, args.seed, first)
        counts = " | ".join(f"{tally.outcomes[outcome]:,}" for outcome in OUTCOMES)
        n = tally.outcomes.total()
        print(f"| {name} | {n:,} | {counts} | {n / seconds:,.0f} |", flush=True)
        for place, (number, text) in tally.faults.items():
            print(f"{name}, case {number}: {place}\n{text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
