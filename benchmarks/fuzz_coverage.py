"""Open mutated files, and keep those that reach new lines of the readers: `fuzz.py` with atheris (pip install atheris).

    python benchmarks/fuzz_coverage.py --target NAME [--seconds N] [--seed S]

A crash, a case of more than 5 seconds or of more than 6 GB ends the process, and its content is written to a file.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

import maskrcnn.kernels

for module in pkgutil.iter_modules(maskrcnn.kernels.__path__):  # compiled functions cannot count their lines
    importlib.import_module(f"maskrcnn.kernels.{module.name}")
with atheris.instrument_imports(include=["maskrcnn.data", "maskrcnn.rle", "maskrcnn.shapes", "maskrcnn.polygons"]):
    from fuzz import LIMIT_S, memory_folder, mutator_of
    from fuzz_targets import TARGETS

    from maskrcnn.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, choices=list(TARGETS), metavar="NAME")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder, tempfile.TemporaryDirectory() as corpus:
        target = TARGETS[args.target](args.target, Path(folder))
        for k, content in enumerate(target.contents()):
            Path(corpus, str(k)).write_bytes(content)

        def mutate(content: bytes, max_size: int, number: int) -> bytes:
            if number % 3 == 0:
                return atheris.Mutate(content, max_size)
            return mutator_of(args.seed, args.target, number).mutated(content, target.suffix)[:max_size]

        def read(content: bytes) -> None:
            with suppress(UserError):
                target.read(content)

        limits = [f"-max_total_time={args.seconds}", f"-timeout={LIMIT_S:.0f}", "-rss_limit_mb=6000", "-max_len=200000"]
        atheris.Setup([sys.argv[0], *limits, f"-seed={args.seed + 1}", corpus], read, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
