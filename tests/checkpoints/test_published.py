"""Fetching a published checkpoint: whole, resumed, damaged and offline, from a server on this machine."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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
        asked: list[str | None] = []  # noqa: RUF012 (of this test alone)
        cut_at: int | None = None

        def do_GET(self):
            begin = self.headers.get("Range")
            Handler.asked.append(begin)
            start = int(begin.removeprefix("bytes=").rstrip("-")) if begin else 0
            if start >= len(CONTENT):
                self.send_error(416)
                return
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            self.wfile.write(CONTENT[start : Handler.cut_at])

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/model.pth", Handler
        running.shutdown()
        thread.join()


def at(url, digest=DIGEST):
    return Published(url, digest, norm_eps=0.0)


def test_a_file_is_fetched_once(server):
    url, handler = server
    path = fetch(at(url))
    assert path.read_bytes() == CONTENT
    assert fetch(at(url)) == path
    assert len(handler.asked) == 1


def test_a_broken_fetch_goes_on_where_it_was(server):
    url, handler = server
    handler.cut_at = 700_000
    with pytest.raises(UserError, match="could not be fetched"):
        fetch(at(url))
    handler.cut_at = None
    assert fetch(at(url)).read_bytes() == CONTENT
    assert handler.asked == [None, "bytes=700000-"]


def test_a_fetch_that_broke_after_the_last_byte(server):
    url, _ = server
    target = at(url).file
    target.parent.mkdir(parents=True)
    target.with_name("model.pth.part").write_bytes(CONTENT)
    assert fetch(at(url)).read_bytes() == CONTENT


def test_other_content_is_not_taken(server):
    url, _ = server
    with pytest.raises(UserError, match=r"begins .*, not 00000000; it was thrown away"):
        fetch(at(url, "00000000"))
    assert list(at(url).file.parent.iterdir()) == []
    at(url).file.write_bytes(b"damaged")
    with pytest.raises(UserError, match="delete it and try again"):
        fetch(at(url))


def test_offline_says_what_to_fetch_and_where_to_put_it(monkeypatch, tmp_path):
    monkeypatch.setenv("MASKRCNN_CACHE", str(tmp_path))
    monkeypatch.setitem(published.PUBLISHED, "coco", at("http://127.0.0.1:9/models/maskrcnn.pth"))
    with pytest.raises(UserError) as caught:
        open_initial("coco")
    for part in ("http://127.0.0.1:9/models/maskrcnn.pth", str(tmp_path / "maskrcnn.pth"), "--init FILE"):
        assert part in str(caught.value)
