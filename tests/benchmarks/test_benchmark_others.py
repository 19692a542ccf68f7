"""What other tools are shown of a recording: pages as they were, and the moment that is meant."""

from __future__ import annotations

import gzip
import json
import urllib.request
from http.server import BaseHTTPRequestHandler
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from base.prompt_server import PromptServer
from benchmarks.causes import Run
from benchmarks.others import Door, Pages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN = Run("one", "kv_exhaustion", 10.0, 13.0, (11.0, 12.0), "", "kv_cache_full", ("one",))


@pytest.fixture
def pages(tmp_path: Path) -> Pages:
    (tmp_path / "one").mkdir()
    with gzip.open(tmp_path / "one" / "pages.jsonl.gz", "wt") as out:
        for at, status, waiting in ((10.5, 200, 1), (11.5, 200, 7), (12.0, 503, 9), (12.5, 200, 3)):
            text = f'# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{{engine="0"}} {waiting}\n'
            out.write(json.dumps({"t": at, "status": status, "text": text}) + "\n")
    return Pages(tmp_path, [RUN])


def test_a_moment_has_the_page_that_was_there_then(pages: Pages):
    assert pages.at(10.0) == ""
    assert pages.at(12.4).endswith(" 7\n")
    assert pages.at(99.0).endswith(" 3\n")


def test_samples_are_written_with_the_times_of_their_pages(pages: Pages, tmp_path: Path):
    pages.write(tmp_path / "all.om")
    assert (tmp_path / "all.om").read_text().splitlines() == [
        'vllm:num_requests_waiting{engine="0"} 1 10.500',
        'vllm:num_requests_waiting{engine="0"} 7 11.500',
        'vllm:num_requests_waiting{engine="0"} 3 12.500',
        "# EOF",
    ]


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    paths: list[str] = []

    class Prometheus(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = PromptServer(("127.0.0.1", 0), Prometheus)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()
    server.server_close()


def test_the_door_asks_as_of_the_moment_that_is_meant(pages: Pages, asked: tuple[str, list[str]]):
    url, paths = asked
    door = Door(url, pages)
    Thread(target=door.serve_forever, daemon=True).start()
    door.moment = 11.75
    with urllib.request.urlopen(f"{door.url}/metrics") as answer:
        assert answer.read().endswith(b" 7\n")
    with urllib.request.urlopen(f"{door.url}/api/v1/query?query=up&time=99"):
        pass
    assert paths == ["/api/v1/query?query=up&time=11.750"]
    door.shutdown()
    door.server_close()
