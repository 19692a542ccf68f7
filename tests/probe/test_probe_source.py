"""The agent's end: the socket is its owner's and first agent's, nothing that comes breaks it, what is lost counts."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from prometheus_client import CollectorRegistry
from servescope_probe import wire
from servescope_probe.sender import Sender

from agent.config import AgentConfig
from agent.host.engines import Engines
from agent.otlp.columns import encode_columns
from agent.probe import datagram
from agent.probe.datagram import Process
from agent.probe.socket import Listening, SocketUnusableError
from agent.probe.whose import Whose
from agent.sidecar import Sidecar
from agent.target import Target
from tests.kits.agent_fakes import FakeCollector, until
from tests.probe.probe_kit import STEP, VLLM, Listener

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from prometheus_client.metrics_core import Metric


def told(*records: bytes, number: int = 0, dropped: int = 0, instance: bytes = b"", pid: int = 7) -> bytes:
    head = wire.HEAD.pack(wire.MAGIC, wire.VERSION, len(instance), len(records), pid, number, dropped)
    return head + instance + b"".join(wire.RECORD.pack(len(body), wire.STEP, 0) + body for body in records)


def counts(families: Iterable[Metric]) -> dict[str, float]:
    return {
        " ".join((sample.name.removeprefix("servescope_agent_probe_"), *sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


async def test_steps_of_a_probe_are_shipped(tmp_path: Path):
    async with FakeCollector() as collector:
        settings = AgentConfig.model_validate(
            {
                "collector": collector.url, "health_port": 0, "otlp_http_port": None, "otlp_grpc_port": None,
                "flush_seconds": 0.05, "host": False, "gpu": False, "probe_socket": tmp_path / "run" / "probe.sock",
            }
        )  # fmt: skip
        sidecar, stop = Sidecar(settings, tmp_path / "data", [VLLM]), asyncio.Event()
        life = asyncio.create_task(sidecar.run(stop))
        sender = Sender(str(tmp_path / "run" / "probe.sock"), "vllm-a")

        def arrived() -> bool:
            sender._retry_at = 0.0
            sender.put(wire.STEP, 0, STEP, now=True)
            return b"servescope.step" in collector.merged("logs")

        await until(arrived)
        assert stat.S_IMODE((tmp_path / "run" / "probe.sock").stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
        sender.close()
        stop.set()
        await life
    groups = ExportLogsServiceRequest.FromString(collector.merged("logs")).resource_logs
    (event, *_) = {record.event_name for group in groups for scope in group.scope_logs for record in scope.log_records
                   if scope.scope.name == "servescope.step"}  # fmt: skip
    assert event == "engine_steps"
    assert not (tmp_path / "run" / "probe.sock").exists()


def test_a_socket_is_never_taken_from_another_agent_and_a_dead_ones_is(tmp_path: Path):
    path = tmp_path / "probe.sock"
    first = Listening(path)
    with pytest.raises(SocketUnusableError, match=f"another agent's \\(process {os.getpid()}\\)"):
        Listening(path)
    assert path.exists()
    first.close()
    assert not path.exists()
    killed = f"from pathlib import Path; from agent.probe.socket import Listening; Listening(Path({str(path)!r}))"
    subprocess.run([sys.executable, "-W", "ignore", "-c", f"{killed}; import os; os._exit(9)"], check=False)
    assert path.exists()
    Listening(path).close()


def test_places_that_are_no_place_are_refused(tmp_path: Path):
    everybodys = tmp_path / "everybodys"
    everybodys.mkdir()
    everybodys.chmod(0o777)
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(mine)
    for path in (
        everybodys / "probe.sock",
        tmp_path / "link" / "probe.sock",
        tmp_path / ("x" * 120) / "probe.sock",
        tmp_path / "file" / "probe.sock",
    ):
        (tmp_path / "file").touch()
        with pytest.raises(SocketUnusableError):
            Listening(path)
    assert list(mine.iterdir()) == []


async def test_an_agent_without_the_socket_runs_all_the_same(tmp_path: Path):
    listener = Listener(tmp_path)
    other = Listening(tmp_path / "probe.sock")
    await listener.source.open()
    assert counts(listener.source.metrics())["listening"] == 0
    other.close()
    listener.source._listen()
    assert counts(listener.source.metrics())["listening"] == 1
    await listener.source.close()


def test_what_is_lost_on_the_way_is_counted(tmp_path: Path):
    listener = Listener(tmp_path)
    for data in (
        told(STEP, number=3, dropped=2),
        told(STEP, STEP, number=4, dropped=2),
        told(STEP, number=7, dropped=5),
        told(STEP, number=0, pid=8),
        told(STEP[:-1], number=8, dropped=5),
        b"SVSP\x02" + bytes(60),
    ):
        listener.source.take(data, 0.0)
    found = counts(listener.source.metrics())
    assert (found["lost_total probe"], found["lost_total datagrams"]) == (5, 2)
    assert (found["malformed_total cut"], found["malformed_total version"]) == (1, 1)
    assert found["records_total step"] == 6


def door(kind: int, body: bytes, number: int, instance: bytes) -> bytes:
    """A datagram of a container's only server: each is the process 1 there."""
    head = wire.HEAD.pack(wire.MAGIC, wire.VERSION, len(instance), 1, 1, number, 0)
    return head + instance + wire.RECORD.pack(len(body), kind, -1) + body


def begins(number: int, span: bytes) -> bytes:
    begin = wire.BEGIN_BODY.pack(number, 1, 10**18, span * 16, span * 8, bytes(8), 1, 1)
    return begin + b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n"


def ends(number: int) -> bytes:
    return wire.END_BODY.pack(number, wire.LEFT, 1.0, float("nan"), 0.0, 0, 0, 17)


def test_two_containers_whose_servers_are_the_process_1_are_two(tmp_path: Path):
    listener = Listener(tmp_path, VLLM, Target("vllm-b", "chat", "vllm"))
    source = listener.source
    source.take(door(wire.EDGE_BEGIN, begins(0, b"a"), 0, b"vllm-a"), 0.0)
    source.take(door(wire.EDGE_BEGIN, begins(0, b"b"), 5, b"vllm-b"), 0.0)
    source.take(door(wire.EDGE_END, ends(0), 1, b"vllm-a"), 1.0)
    source.take(door(wire.EDGE_END, ends(0), 6, b"vllm-b"), 1.0)
    source.flush()
    assert sorted(span.span_id for span in listener.spans()) == [b"a" * 8, b"b" * 8]
    assert source._requests.told == {"recorded": 2}
    assert source.counted["missed"] == 0


def test_a_successor_under_the_same_number_ends_what_its_predecessor_left(tmp_path: Path):
    source = (listener := Listener(tmp_path)).source
    for number in range(2):
        source.take(door(wire.EDGE_BEGIN, begins(number, b"ab"[number : number + 1]), number, b"vllm-a"), 0.0)
    source.take(door(wire.EDGE_BEGIN, begins(0, b"c"), 0, b"vllm-a"), 1.0)
    assert source._requests.told == {"left": 2, "recorded": 2}
    source.take(door(wire.EDGE_BEGIN, begins(0, b"d"), 1, b"vllm-a"), 1.0)  # nobody has the same number twice
    assert source._requests.told == {"left": 3, "recorded": 3}
    source.take(door(wire.EDGE_END, ends(0), 2, b"vllm-a"), 2.0)
    source.flush()
    assert [span.span_id[:1] for span in listener.spans()] == [b"a", b"b", b"c", b"d"]
    assert source._requests.told == {"left": 3, "recorded": 4}


def test_rows_without_a_place_are_counted(tmp_path: Path):
    listener = Listener(tmp_path)
    for number in range(60):
        listener.source.take(told(*[STEP] * 100, number=number), 0.0)
    listener.source.flush()
    assert counts(listener.source.metrics())["lost_total agent"] == 6_000 - 4_096
    ((_, _, columns),) = listener.tables()
    assert len(columns["counter"]) == 4_096


def test_whose_step_it_is(tmp_path: Path):
    two = (VLLM, Target("vllm-b", "chat", "vllm"))
    listener = Listener(tmp_path, *two)
    listener.source._whose._by_pid = {11: "vllm-b"}
    for instance, pid in ((b"vllm-a", 1), (b"", 11), (b"", 12), (b"elsewhere", 13)):
        listener.source.take(told(STEP, instance=instance, pid=pid), 0.0)
    listener.source.flush()
    found = [(whose.get("service.instance.id"), whose["process.pid"]) for whose, _, _ in listener.tables()]
    assert found == [("vllm-a", "1"), ("vllm-b", "11"), (None, "12"), ("elsewhere", "13")]
    assert counts(listener.source.metrics())["unmatched_total"] == 2
    assert Whose([VLLM], Engines()).find(Process("", 99)) == VLLM, "the only one is meant where processes can't be told"


async def test_a_process_is_found_by_the_port_it_listens_on():
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    targets = [VLLM, Target("vllm-b", "chat", "vllm", f"http://127.0.0.1:{port}")]
    engines = Engines(targets)
    whose = Whose(targets, engines)
    await whose.look({os.getpid()}, 100.0)
    found = whose.find(Process("", os.getpid()))
    assert found is not None
    assert found.instance == "vllm-b"
    assert engines.owner(os.getpid()) is not None, "found once, for all who ask"
    await whose.look({os.getpid(), 1 << 30}, 101.0)
    found_at_first = engines.processes
    await whose.look({os.getpid(), 1 << 30}, 107.0)
    assert engines.processes is not found_at_first, "a newcomer is looked for within seconds"
    engines.know({})
    await whose.look({os.getpid(), 1 << 30}, 108.0)
    assert whose.knows(Process("", os.getpid())), "one that ended is known by its end"
    assert not whose.knows(Process("vllm-a", os.getpid())), "another container's has the same number"
    server.close()


@given(st.binary(max_size=400), st.integers(0, 8))
def test_no_bytes_break_it(junk: bytes, kind: int):
    for read in (
        datagram.read_step, datagram.read_finished, datagram.read_begin, datagram.read_body, datagram.read_answer,
        datagram.read_pieces, datagram.read_end, datagram.read,
    ):  # fmt: skip
        try:
            read(junk)
        except datagram.MalformedError as error:
            assert str(error) in {"cut", "foreign", "version", "numbers"}  # noqa: PT017 - either is right
    head = wire.HEAD.pack(wire.MAGIC, wire.VERSION, 0, 1, 1, 0, 0) + wire.RECORD.pack(len(junk), kind, 0)
    assert datagram.read(head + junk).records[0].body == junk


VALUES = st.none() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False) | st.text(max_size=40)


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.lists(VALUES, min_size=1, max_size=6), max_size=5))
def test_columns_are_plain_otlp(columns: dict[str, list[Any]]):
    body = encode_columns({"service.name": "chat"}, "scope", "event", 10**18, columns)
    (group,) = ExportLogsServiceRequest.FromString(body).resource_logs
    (record,) = group.scope_logs[0].log_records
    assert (record.time_unix_nano, record.event_name, group.scope_logs[0].scope.name) == (10**18, "event", "scope")
    read = {
        pair.key: [getattr(one, kind) if (kind := one.WhichOneof("value")) else None
                   for one in pair.value.array_value.values]
        for pair in record.attributes
    }  # fmt: skip
    assert read == columns


def test_its_metrics_can_be_shown(tmp_path: Path):
    registry = CollectorRegistry()
    listener = Listener(tmp_path)
    listener.source.take(b"junk", 0.0)

    class Families:
        def collect(self) -> Iterable[Metric]:
            return listener.source.metrics()

    registry.register(Families())
    assert registry.get_sample_value("servescope_agent_probe_malformed_total", {"reason": "foreign"}) == 1
