"""torchvision's published COCO checkpoints: fetched once, hash checked, cached, resumed where a fetch broke."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from maskrcnn.errors import UserError

TIMEOUT_SECONDS = 30
CHUNK = 1 << 20
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416


@dataclass(frozen=True)
class Published:
    """Where a checkpoint is, the first digits of its SHA-256, and what batch norm adds to the variance with it."""

    url: str
    digest: str
    norm_eps: float

    @property
    def file(self) -> Path:
        """Its place in the cache."""
        return cache_folder() / self.url.rpartition("/")[2]


# torchvision/models/detection/mask_rcnn.py: URLs, whose last digits are those of the hash, and the zero that v1 needs.
PUBLISHED = {
    "coco": Published(
        "https://download.pytorch.org/models/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", "bf2d0c1e", norm_eps=0.0
    ),
    "coco-v2": Published(
        "https://download.pytorch.org/models/maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth", "73cbd019", norm_eps=1e-5
    ),
}


def cache_folder() -> Path:
    """``$MASKRCNN_CACHE``, else a folder of the user's cache."""
    own = os.environ.get("MASKRCNN_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maskrcnn"


def fetch(published: Published) -> Path:
    """The checkpoint's file, from the cache or the network.

    Raises `UserError` that says what to fetch and where to put it, when it cannot be had.
    """
    target = published.file
    if target.exists():
        _check(target, published, "delete it and try again")
        return target
    partial = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(published.url, partial)
    except OSError as error:  # URLError and timeouts among them
        raise UserError(
            f"{published.url} could not be fetched ({getattr(error, 'reason', None) or error}). Fetch it by other "
            f"means and put it at {target}, or name it where it is: --init FILE. What had arrived is kept for next time"
        ) from None
    try:
        _check(partial, published, "it was thrown away; try again")
    except UserError:
        partial.unlink()
        raise
    os.replace(partial, target)
    return target


def _download(url: str, partial: Path) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if have and error.code == RANGE_NOT_SATISFIABLE:  # all of it is here
            return
        raise
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with answer, Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        resumed = answer.status == PARTIAL_CONTENT
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        task = bar.add_task(partial.stem, total=total, completed=have)
        with open(partial, "ab" if resumed else "wb") as file:
            while block := answer.read(CHUNK):
                file.write(block)
                have += len(block)
                bar.update(task, completed=have)
    if total is not None and have < total:
        raise OSError(f"the connection ended after {have:,} of {total:,} bytes")


def _check(path: Path, published: Published, remedy: str) -> None:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(published.digest):
        raise UserError(
            f"{path} is not what {published.url} holds: its SHA-256 begins {digest[:8]}, not {published.digest}; "
            + remedy
        )
