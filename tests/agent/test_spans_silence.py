"""An engine that was started to send its spans to this agent, and sends none, is told of; whoever was not is not."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from agent.host.engines import Engines
from agent.otlp.intake import SpanStats
from agent.otlp.silence import REQUESTS, SECONDS, Silence
from agent.target import Known, Place, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT = 14317
TARGET = Target("a", "chat", "vllm", "http://127.0.0.1:1")


@dataclass
class Room:
    """One engine and its agent; a test turns the clock and says how many requests finished."""

    silence: Silence
    stats: SpanStats
    finished: float = 0.0
    now: float = 100.0
    told: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def known(self, _instance: str) -> Known:
        return Known("vllm", "9.1", "m", self.finished)

    def emit(self, _signal: str, body: bytes) -> bool:
        record = ExportLogsServiceRequest.FromString(body).resource_logs[0].scope_logs[0].log_records[0]
        details = {one.key: one.value.string_value for one in record.attributes}
        self.told.append((record.event_name, record.body.string_value, details))
        return True

    def later(self, seconds: float, finished: float = 0.0) -> list[str]:
        self.now += seconds
        self.finished += finished
        self.silence.look({PORT, 14318}, self.now, self.emit)
        return [name for name, _, _ in self.told]


@pytest.fixture
def start() -> Iterator[object]:
    running: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str) -> Room:
        program = "import sys; print(flush=True); sys.stdin.read()"
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        running.append(process)
        assert process.stdout is not None
        process.stdout.readline()  # its command line is its own from here on
        engines, stats = Engines([TARGET]), SpanStats()
        engines.know({"a": {process.pid: "vllm"}})
        room = Room(Silence(engines, stats, lambda _: None, Place()), stats)
        room.silence.known = room.known
        return room

    yield run
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--otlp-traces-endpoint", f"http://127.0.0.1:{PORT}"),
        ("--otlp-traces-endpoint=localhost:14317",),
        ("--trace-config", "opentelemetry,url=http://localhost:14318/v1/traces"),
    ],
)
def test_spans_that_never_come_are_told_once_and_again_when_they_do(start: type[Room], arguments: tuple[str, ...]):
    room = start(*arguments)
    assert room.later(0) == []
    assert room.later(SECONDS, REQUESTS - 1) == []
    assert room.later(1, 1) == ["contract_broken"]
    assert room.later(500, 500) == ["contract_broken"]
    assert list(room.silence.silent()) == ["a"]
    assert room.told[0][1] == (
        f"a was started to send its spans here, and it never sent a span while {REQUESTS} requests finished in 31 s"
    )
    assert room.told[0][2] == {"kind": "silent", "what": "spans"}
    room.stats.last_seen["a"] = 1.0
    assert room.later(1) == ["contract_broken", "contract_mended"]
    assert list(room.silence.silent()) == []


def test_spans_that_cease_are_told_and_those_of_nobody_are_named(start: type[Room]):
    room = start("--otlp-traces-endpoint", f"http://[::1]:{PORT}")
    for second in range(1, 100):
        room.stats.last_seen["a"] = float(second)
        assert room.later(1, 5) == []
    room.stats.unmatched += 3
    assert room.later(SECONDS, REQUESTS) == ["contract_broken"]
    assert "no span came from it while 20 requests finished in 30 s" in room.told[0][1]
    assert "3 groups of spans of no known server came" in room.told[0][1]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--otlp-traces-endpoint", "http://collector.example:14317"),
        ("--otlp-traces-endpoint", "http://127.0.0.1:143170"),
        ("--otlp-traces-endpoint", "http://127.0.0.1:4317"),
    ],
)
def test_who_sends_elsewhere_or_nowhere_is_not_judged(start: type[Room], arguments: tuple[str, ...]):
    room = start(*arguments)
    assert room.later(0) == room.later(500, 500) == []


def test_an_idle_engine_and_an_exporter_that_is_late_are_not_silent(start: type[Room]):
    room = start("--otlp-traces-endpoint", f"http://127.0.0.1:{PORT}")
    assert room.later(0) == room.later(9_000) == []
    room.stats.last_seen["a"] = 1.0
    assert room.later(1) == room.later(SECONDS - 1, 5_000) == []


def test_one_that_was_started_anew_without_it_is_over(start: type[Room]):
    room, other = start("--otlp-traces-endpoint", f"http://127.0.0.1:{PORT}"), start()
    room.later(0)
    room.later(SECONDS, REQUESTS)
    room.silence.engines.know({})
    assert room.later(10) == ["contract_broken"], "nobody knows what is not there"
    room.silence.engines.know(other.silence.engines.processes)
    assert room.later(10) == ["contract_broken", "contract_mended"]
