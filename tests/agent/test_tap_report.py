"""What a tap says of itself: when requests really came, how late its loop is, and its counters in the store's words."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from agent.spool.framing import split_records
from agent.tap import report
from agent.tap.counters import Counters
from agent.tap.listening import adopt, inherited
from agent.tap.recorder import Recorder
from agent.tap.report import Reporter
from base.errors import ServescopeError
from tests.kits.agent_fakes import until
from tests.kits.tap import PATIENCE, Tap, answer, connect, post, replying, tap, tap_command, tap_process, upstream

if TYPE_CHECKING:
    from pathlib import Path

    from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint


# --- arrival


@pytest.mark.parametrize("kept", [False, True])
async def test_a_request_that_waited_in_its_socket_came_when_it_came(kept: bool):
    async with upstream(replying(answer(b"{}"))) as up, tap(up.port) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.setblocking(False)
            if kept:
                client.sendall(post(close=False))
                await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 65_536), PATIENCE)
            client.sendall(post())
            sent_ns = time.time_ns()
            time.sleep(0.3)  # noqa: ASYNC251 - the loop is busy with something else
            records = await served.memory.wait(1 + kept)
    record = records[-1]
    assert record.start_ns < sent_ns + 100_000_000
    assert record.edge_seconds is not None
    assert record.edge_seconds > 0.2
    assert record.e2e_seconds is not None
    assert record.e2e_seconds > 0.2


async def test_a_request_is_not_older_than_the_answer_before_it():
    async with upstream(replying(answer(b"{}"))) as up, tap(up.port) as served, connect(served.port) as client:
        before = 0
        for number in range(5):
            await client.send(post(close=False))
            await client.request()
            record = (await served.memory.wait(number + 1))[-1]
            assert record.start_ns >= before
            before = record.end_ns


async def test_a_loop_that_was_late_says_how_late():
    async with upstream(replying(answer(b"{}"))) as up, tap(up.port) as served, connect(served.port) as client:
        await client.send(post(close=False))
        await client.request()  # somebody is there, so that the loop looks at its clock often
        time.sleep(0.6)  # noqa: ASYNC251 - the loop is busy with something else
        async with asyncio.timeout(PATIENCE):
            while served.core.lag_seconds <= 0.2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        late = served.core.counters.registry.get_sample_value("servescope_tap_loop_lag_seconds_sum")
    assert late is not None
    assert late > 0.2


# --- the report


class Pages:
    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def append(self, signal_: str, body: bytes) -> bool:
        assert signal_ == "metrics"
        self.bodies.append(body)
        return True

    def close(self) -> None: ...


def points(body: bytes) -> tuple[dict[str, str], dict[str, list[tuple[dict[str, str], NumberDataPoint]]]]:
    (group,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
    (scope,) = group.scope_metrics
    found: dict[str, list[Any]] = {}
    for metric in scope.metrics:
        data = getattr(metric, metric.WhichOneof("data")).data_points
        found[metric.name] = [({a.key: a.value.string_value for a in point.attributes}, point) for point in data]
    return {a.key: a.value.string_value for a in group.resource.attributes}, found


def reporter(served: Tap, pages: Pages, folder: Path) -> Reporter:
    given = {"service.instance.id": "one", "service.name": "shop", "cloud.region": ""}
    return Reporter(served.core, Recorder(pages, given, Counters()), pages, folder, lambda _: True)


async def test_open_requests_and_counters_are_reported_under_the_targets_instance(tmp_path: Path):
    asked = asyncio.Event()

    async def script(peer: Any) -> None:
        await peer.request()
        asked.set()
        await peer.gone()

    pages = Pages()
    async with upstream(script) as up, tap(up.port) as served:
        reports = reporter(served, pages, tmp_path)
        async with connect(served.port) as client:
            await client.send(post())
            await asyncio.wait_for(asked.wait(), PATIENCE)
            await asyncio.sleep(0.05)
            await reports.report()
        record = await served.memory.only()
        served.core.open.done(record.span_id)
        served.core.door.turned_away("connections")
        await reports.report()
    resource, first = points(pages.bodies[0])
    assert resource["service.name"] == "servescope-tap"
    assert resource["service.instance.id"] == "one"
    assert "cloud.region" not in resource
    assert first["servescope.tap.requests.open"][0][1].as_double == 1
    assert first["servescope.tap.requests.oldest_age"][0][1].as_double >= 0.05
    _, second = points(pages.bodies[1])
    assert second["servescope.tap.requests.open"][0][1].as_double == 0
    assert second["servescope.tap.requests.oldest_age"][0][1].as_double == 0
    ((labels, ended),) = second["servescope.tap.requests"]
    assert (labels, ended.as_double) == ({"outcome": "client_abort"}, 1)
    assert 0 < ended.start_time_unix_nano < ended.time_unix_nano
    for found, refused in ((first, 0), (second, 1)):  # there from the start, so that the first rise is one
        counts = {labels["reason"]: p.as_double for labels, p in found["servescope.tap.connections_refused"]}
        assert counts == {"connections": refused, "tunnels": 0, "descriptors": 0}
        assert {labels["reason"] for labels, _ in found["servescope.tap.records_lost"]} == {"spool", "backlog", "fault"}


async def test_reports_are_rare_while_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pages = Pages()
    async with upstream(replying(answer(b"{}"))) as up, tap(up.port) as served:
        reports = reporter(served, pages, tmp_path)
        for _ in range(3):
            await reports.report()
        assert len(pages.bodies) == 1
        monkeypatch.setattr(report, "_IDLE_SECONDS", 0.0)
        await reports.report()
        assert len(pages.bodies) == 2
        monkeypatch.undo()
        await reports.report()
        assert len(pages.bodies) == 2
        await reports.report(final=True)
        assert len(pages.bodies) == 3


async def test_a_process_reports_into_its_spool_from_its_start_to_its_end(tmp_path: Path):
    async with upstream(replying(answer(b"{}"))) as up, tap_process(up.port, tmp_path) as (process, port):
        async with connect(port) as client:
            await client.send(post())
            await client.request()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    (segment,) = (tmp_path / "spool").glob("*/metrics/*.seg")
    merged = split_records(segment.read_bytes(), 0, None, checked=True)
    assert len(merged.ends) == 2
    last = segment.read_bytes()[merged.ends[0] :]
    _, found = points(split_records(last, 0, None, checked=True).body)
    assert [point.as_double for _, point in found["servescope.tap.requests"]] == [1]
    assert found["servescope.tap.records_written"][0][1].as_double == 1


# --- the socket


async def test_systemds_socket_is_taken(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with upstream(replying(answer(b"{}"))) as up:
            # What systemd does: the socket is 3, and the process that is told so becomes the tap.
            start = f"import os, sys; os.dup2({listener.fileno()}, 3); "
            start += "os.environ |= {'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid())}; "
            start += "os.execv(sys.executable, sys.argv[1:])"
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", start, *tap_command(tmp_path, up.port), "--port", "1",
                pass_fds=[listener.fileno()], stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            try:
                async with connect(port) as client:
                    await client.send(post())
                    assert (await client.head()).startswith(b"HTTP/1.1 200 ")
            finally:
                process.send_signal(signal.SIGTERM)
                assert await asyncio.wait_for(process.wait(), PATIENCE) == 0


def test_a_descriptor_that_does_not_listen_is_refused_in_words(tmp_path: Path):
    with socket.socket() as plain, (tmp_path / "f").open("w") as file:
        for descriptor in (os.dup(plain.fileno()), os.dup(file.fileno()), 9_999):
            with pytest.raises(ServescopeError, match=f"descriptor {descriptor} is no listening"):
                adopt(descriptor)


def test_a_socket_for_another_process_is_not_ours():
    assert inherited({}) is None
    for count, pid in (("1", "1"), ("0", str(os.getpid())), ("x", str(os.getpid())), ("1", "")):
        environment = {"LISTEN_FDS": count, "LISTEN_PID": pid, "PATH": "/"}
        assert inherited(environment) is None
        assert environment == {"PATH": "/"}


async def test_what_the_server_owes_is_its_silence_and_not_its_clients(tmp_path: Path):
    """Who has not asked wholly waits for nobody; of a stream the time since its last bytes counts."""
    begun = asyncio.Event()

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        begun.set()
        await peer.gone()

    def owed(bodies: list[bytes]) -> float:
        return float(points(bodies[-1])[1]["servescope.tap.requests.owed_age"][0][1].as_double)

    pages = Pages()
    async with upstream(script) as up, tap(up.port) as served:
        reports = reporter(served, pages, tmp_path)
        await reports.report()
        assert owed(pages.bodies) == 0
        async with connect(served.port) as client:
            whole = post()
            await client.send(whole[:-1])
            await until(lambda: len(served.core.open) == 1)
            await reports.report()
            assert owed(pages.bodies) == 0
            await client.send(whole[-1:])
            await asyncio.wait_for(begun.wait(), PATIENCE)
            await client.head()
            asked = time.monotonic()
            assert served.core.owed(asked + 40) > 39
            await reports.report()
            assert owed(pages.bodies) > 0
        await served.memory.only()
        assert served.core.owed(time.monotonic() + 40) == 0
