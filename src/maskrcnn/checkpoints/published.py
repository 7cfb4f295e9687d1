"""Download torchvision's published COCO checkpoints: resume a broken download, check the hash, cache the file."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from maskrcnn.errors import UserError
from maskrcnn.files import cache_folder

TIMEOUT_SECONDS = 30
CHUNK = 1 << 20
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416


@dataclass(frozen=True)
class Published:
    """A checkpoint: its URL, the first digits of its SHA-256, and the epsilon of its batch norm."""

    url: str
    digest: str
    norm_eps: float

    @property
    def file(self) -> Path:
        """Path of the checkpoint in the cache."""
        return cache_folder() / self.url.rpartition("/")[2]


# From torchvision/models/detection/mask_rcnn.py. File names end in the first digits of the hash; v1 needs epsilon 0.
PUBLISHED = {
    "coco": Published(
        "https://download.pytorch.org/models/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", "bf2d0c1e", norm_eps=0.0
    ),
    "coco-v2": Published(
        "https://download.pytorch.org/models/maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth", "73cbd019", norm_eps=1e-5
    ),
}


def fetch(published: Published) -> Path:
    """Return the path of the checkpoint in the cache, after a download if it is not there.

    Of several processes, one downloads and the others wait. Raise `UserError` if the hash is wrong or the download
    fails; the message says what to download and where to put it.
    """
    target = published.file
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _locked(target.with_name(f"{target.name}.lock")):
                if not target.exists():
                    _download_checked(published)
        except OSError as error:  # URLError and timeouts among them
            raise UserError(
                f"{published.url} could not be fetched ({getattr(error, 'reason', None) or error}). Download it by "
                f"other means and put it at {target}, or pass --init FILE. The next try resumes a partial download"
            ) from None
    _check(target, published, "delete it and try again")
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file; say so before a wait for another process."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=1)
    except Timeout:
        Console(stderr=True).print("waiting for another process that downloads the weights", highlight=False)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download_checked(published: Published) -> None:
    partial = published.file.with_name(f"{published.file.name}.part")
    _download(published.url, partial)
    try:
        _check(partial, published, "it was deleted; try again")
    except UserError:
        partial.unlink()
        raise
    os.replace(partial, published.file)


def _download(url: str, partial: Path) -> None:
    received = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={received}-"} if received else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if received and error.code == RANGE_NOT_SATISFIABLE:  # the file is complete
            return
        raise
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with response, Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        resumed = response.status == PARTIAL_CONTENT
        received = received if resumed else 0
        length = response.headers.get("Content-Length")
        total = received + int(length) if length else None
        task = bar.add_task(partial.stem, total=total, completed=received)
        with open(partial, "ab" if resumed else "wb") as file:
            while block := response.read(CHUNK):
                file.write(block)
                received += len(block)
                bar.update(task, completed=received)
    if total is not None and received < total:
        raise OSError(f"the connection closed after {received:,} of {total:,} bytes")


def _check(path: Path, published: Published, remedy: str) -> None:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(published.digest):
        raise UserError(
            f"{path} is not the file at {published.url}: its SHA-256 begins with {digest[:8]}, not {published.digest}; "
            + remedy
        )
