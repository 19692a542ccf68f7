"""A server that ends when it is told to."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler

import pytest

from base.prompt_server import PromptServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_it_answers_until_it_is_told_to_end_and_ends_then():
    server = PromptServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_port}"
    # The library would look an hour later.
    thread = threading.Thread(target=server.serve_forever, args=(3600.0,), daemon=True)
    thread.start()
    for _ in range(3):
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert answer.status == 204
    begun = time.monotonic()
    server.shutdown()
    thread.join(60)
    assert not thread.is_alive()
    assert time.monotonic() - begun < 60
    server.server_close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=5)
