"""kill -9 of each part of a running line during traffic: no answered request without its row, none twice."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.line_kit import Client, Line, Triton, free_block, infer, start_line, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.heavy, pytest.mark.triton, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("kills")
    base = free_block()
    with Triton(folder / "triton", base + 30, f"127.0.0.1:{base + 2}"):
        started = start_line(folder / "data", base, f"triton=http://127.0.0.1:{base + 30}")
        try:
            yield started
        finally:
            assert started.stop() == 0, started.log.read_text()[-3000:]


@pytest.mark.parametrize("part", ["collector", "store", "agent"])
def test_a_killed_part_loses_no_answered_request(line: Line, part: str) -> None:
    client = Client(line.tap, tenant=f"kill-{part}")
    stop = threading.Event()

    def steady(worker: int) -> None:
        number = 0
        while not stop.is_set():
            path, body = infer("ranker", "features", [1, 64], [(number % 40) / 40] * 64)
            client.send("ranker", path, body, f"{part}-{worker}-{number}")
            number += 1
            stop.wait(0.03)

    with ThreadPoolExecutor(4) as pool:
        for worker in range(4):
            pool.submit(steady, worker)
        try:
            for _ in range(3):
                have = len(client.whole)
                wait_for(lambda have=have: len(client.whole) > have + 60, 60, "traffic")
                line.kill(part)
        finally:
            stop.set()

    def rows() -> list[str]:
        found = line.rows(
            "SELECT request_id FROM requests WHERE tenant = {tenant:String} AND has_edge = 1",
            {"tenant": f"kill-{part}"},
        )
        return sorted(str(row["request_id"]) for row in found)

    wait_for(lambda: len(rows()) >= len(client.whole), 90, f"all {len(client.whole)} rows")
    assert rows() == sorted(client.whole)
    spans = line.rows(
        "SELECT count() AS n, uniqExact(SpanId) AS distinct FROM otel_traces"
        " WHERE ScopeName = 'servescope.edge' AND SpanAttributes['servescope.tenant'] = {tenant:String}",
        {"tenant": f"kill-{part}"},
    )[0]
    assert spans["n"] == spans["distinct"] == len(client.whole)
