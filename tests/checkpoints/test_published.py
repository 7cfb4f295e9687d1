"""Downloads of a published checkpoint from a local server: complete, resumed, damaged and offline."""

import hashlib
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from maskrcnn import UserError
from maskrcnn.checkpoints import published
from maskrcnn.checkpoints.published import Published, fetch
from maskrcnn.training.initial import open_initial

CONTENT = bytes(range(256)) * 5000
DIGEST = hashlib.sha256(CONTENT).hexdigest()[:8]


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("MASKRCNN_CACHE", str(tmp_path / "cache"))

    class Handler(BaseHTTPRequestHandler):
        ranges: list[str | None] = []  # noqa: RUF012 (a new class for each test)
        stop_at: int | None = None
        slow = False

        def do_GET(self):
            requested = self.headers.get("Range")
            Handler.ranges.append(requested)
            start = int(requested.removeprefix("bytes=").rstrip("-")) if requested else 0
            if start >= len(CONTENT):
                self.send_error(416)
                return
            self.send_response(206 if requested else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            content = CONTENT[start : Handler.stop_at]
            for block in range(0, len(content), 100_000):
                self.wfile.write(content[block : block + 100_000])
                time.sleep(0.2 if Handler.slow else 0)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/model.pth", Handler
        running.shutdown()
        thread.join()


def checkpoint_at(url, digest=DIGEST):
    return Published(url, digest, norm_eps=0.0)


def test_a_file_is_fetched_once(server):
    url, handler = server
    path = fetch(checkpoint_at(url))
    assert path.read_bytes() == CONTENT
    assert fetch(checkpoint_at(url)) == path
    assert len(handler.ranges) == 1


def test_a_broken_download_is_resumed(server):
    url, handler = server
    handler.stop_at = 700_000
    with pytest.raises(UserError, match="could not be fetched"):
        fetch(checkpoint_at(url))
    handler.stop_at = None
    assert fetch(checkpoint_at(url)).read_bytes() == CONTENT
    assert handler.ranges == [None, "bytes=700000-"]


def test_a_complete_partial_file_needs_no_download(server):
    url, _ = server
    target = checkpoint_at(url).file
    target.parent.mkdir(parents=True)
    target.with_name("model.pth.part").write_bytes(CONTENT)
    assert fetch(checkpoint_at(url)).read_bytes() == CONTENT


FETCH = """
import sys
from maskrcnn.checkpoints.published import Published, fetch
sys.stdout.write(str(fetch(Published(sys.argv[1], sys.argv[2], norm_eps=0.0))))
"""


def test_processes_that_fetch_at_the_same_time_download_once(server):
    url, handler = server
    handler.slow = True
    children = [
        subprocess.Popen([sys.executable, "-c", FETCH, url, DIGEST], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for child in children:
        path, errors = child.communicate(timeout=100)
        assert child.returncode == 0, errors.decode()
        assert Path(path.decode()).read_bytes() == CONTENT
    assert handler.ranges == [None]


def test_a_cache_that_cannot_be_locked_serves_what_it_holds(server):
    """Such as one that is mounted read-only."""
    url, handler = server
    target = fetch(checkpoint_at(url))
    lock = target.with_name("model.pth.lock")
    lock.unlink()
    lock.mkdir()
    assert fetch(checkpoint_at(url)) == target
    target.unlink()
    with pytest.raises(UserError, match="could not be fetched"):
        fetch(checkpoint_at(url))
    assert len(handler.ranges) == 1


def test_a_wrong_hash_is_refused(server):
    url, _ = server
    with pytest.raises(UserError, match=r"begins with .*, not 00000000; it was deleted"):
        fetch(checkpoint_at(url, "00000000"))
    assert [path.name for path in checkpoint_at(url).file.parent.iterdir()] == ["model.pth.lock"]
    checkpoint_at(url).file.write_bytes(b"damaged")
    with pytest.raises(UserError, match="delete it and try again"):
        fetch(checkpoint_at(url))


def test_the_offline_message_says_what_to_download_and_where_to_put_it(monkeypatch, tmp_path):
    monkeypatch.setenv("MASKRCNN_CACHE", str(tmp_path))
    monkeypatch.setitem(published.PUBLISHED, "coco", checkpoint_at("http://127.0.0.1:9/models/maskrcnn.pth"))
    with pytest.raises(UserError) as caught:
        open_initial("coco")
    for part in ("http://127.0.0.1:9/models/maskrcnn.pth", str(tmp_path / "maskrcnn.pth"), "--init FILE"):
        assert part in str(caught.value)
