"""Headers of a data set's pictures. A run keeps them, so that its next start reads those of changed files alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from time import perf_counter, thread_time

import msgspec

from maskrcnn.data.images import Header, read_each, read_header, result_or_error
from maskrcnn.data.table import Dataset
from maskrcnn.errors import ImageError
from maskrcnn.files import atomic, named

N_PROBED, MAX_LATENCY, N_REMOTE_THREADS = 200, 3.0, 32
"""Headers that show whether files are far away: they take more than so many times the processor's time. Then so many
threads wait for the others."""


class KnownHeader(msgspec.Struct, array_like=True):
    """A header with the size in bytes and the time of change, in ns, of its file then."""

    size: int
    mtime_ns: int
    header: Header


KnownHeaders = Mapping[str, KnownHeader]
"""By path."""


def read_headers(paths: list[Path], known: KnownHeaders) -> list[Header | ImageError]:
    """Return the header of each file, or the error of one that cannot be read. Headers of unchanged files are `known`.

    Reading a header is a tenth of a millisecond of Python, which threads only slow down. They pay where the files are
    far away, which the first files show.
    """
    headers = [_still_valid(known.get(str(path)), path) for path in paths] if known else [None] * len(paths)
    missing = [path for path, header in zip(paths, headers, strict=True) if header is None]
    read = iter(_read(missing))
    return [next(read) if header is None else header for header in headers]


def _still_valid(known: KnownHeader | None, path: Path) -> Header | None:
    return known.header if known is not None and (known.size, known.mtime_ns) == _version(path) else None


def _version(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _read(paths: list[Path]) -> list[Header | ImageError]:
    headers: list[Header | ImageError] = []
    wall, cpu = perf_counter(), thread_time()
    for path in paths:
        if len(headers) == N_PROBED and perf_counter() - wall > MAX_LATENCY * (thread_time() - cpu):
            return headers + read_each(read_header, paths[N_PROBED:], n_threads=N_REMOTE_THREADS)
        headers.append(result_or_error(read_header, path))
    return headers


def save_headers(datasets: Iterable[Dataset], target: Path) -> None:
    """Write the headers of the data sets that have them to the JSON file `target`."""
    known = {
        str(path): KnownHeader(*version, header)
        for data in datasets
        for path, header in zip(data.files, data.headers or (), strict=data.headers is not None)
        if (version := _version(path))
    }
    with atomic(target) as temporary, named(target):
        temporary.write_bytes(msgspec.json.encode(known))


def load_headers(source: Path) -> KnownHeaders:
    """Return what `save_headers` wrote; nothing if the file is missing or damaged: headers can be read again."""
    try:
        return msgspec.json.decode(source.read_bytes(), type=dict[str, KnownHeader])
    except (OSError, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
