"""Silence of steps while requests are open is a frozen engine; one process's silence, or an idle engine's, is not."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import TYPE_CHECKING

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from servescope_probe import wire

from tests.probe.probe_kit import STEP, VLLM, Listener

if TYPE_CHECKING:
    from pathlib import Path


NUMBERS: defaultdict[int, itertools.count[int]] = defaultdict(itertools.count)


def told(kind: int, body: bytes, pid: int = 7, dropped: int = 0) -> bytes:
    """The next datagram of a process."""
    head = wire.HEAD.pack(wire.MAGIC, wire.VERSION, 6, 1, pid, next(NUMBERS[pid]), dropped) + b"vllm-a"
    return head + wire.RECORD.pack(len(body), kind, 0) + body


def asks(
    number: int, path: bytes = b"/v1/completions", pid: int = 7, dropped: int = 0, *, whole: bool = True
) -> list[bytes]:
    """A request begins, and has wholly come."""
    begin = wire.BEGIN_BODY.pack(number, 1, 10**18, b"\x01" * 16, b"\x02" * 8, bytes(8), 1, 1)
    body = b'{"model": "tiny"}'
    data = [told(wire.EDGE_BEGIN, begin + b"POST " + path + b" HTTP/1.1\r\nhost: x\r\n", pid, dropped)]
    if whole:
        body = wire.BODY_BODY.pack(number, 0.001, len(body), len(body)) + body
        data.append(told(wire.EDGE_BODY, body, pid, dropped))
    return data


def ends(number: int, pid: int = 7) -> bytes:
    return told(wire.EDGE_END, wire.END_BODY.pack(number, 1, 1.0, float("nan"), 0.0, 0, 0, 17), pid)


def events(listener: Listener) -> list[tuple[str, str]]:
    return [
        (record.event_name, record.severity_text)
        for signal, body in listener.bodies
        if signal == "logs"
        for group in ExportLogsServiceRequest.FromString(body).resource_logs
        for scope in group.scope_logs
        for record in scope.log_records
        if scope.scope.name == "servescope.event"
    ]


def test_a_frozen_engine_is_told_once_and_when_it_moves(tmp_path: Path):
    listener = Listener(tmp_path)
    source = listener.source
    source.take(told(wire.STEP, STEP), 100.0)
    for data in asks(1):
        source.take(data, 100.5)
    for now in (105.0, 115.0):
        source.look(now)
    assert events(listener) == []
    for now in (116.0, 117.0, 200.0):
        source.look(now)
    assert events(listener) == [("engine_frozen", "WARN")]
    assert len(list(source.problems(0.0, 0.0))) == 1
    source.take(told(wire.STEP, STEP), 201.0)
    source.look(201.5)
    assert events(listener) == [("engine_frozen", "WARN"), ("engine_moves", "INFO")]
    assert list(source.problems(0.0, 0.0)) == []


def test_a_request_whose_end_was_lost_waits_for_nothing(tmp_path: Path):
    source = (listener := Listener(tmp_path)).source
    source.take(told(wire.STEP, STEP), 100.0)
    for data in asks(1):
        source.take(data, 100.5)
    ends(1)  # on its way it is lost
    source.take(told(wire.STEP, STEP), 101.0)
    source.look(200.0)
    assert (events(listener), source.counted["missed"]) == ([], 1)


def test_what_a_busy_probe_held_before_it_dropped_something_waits_for_nothing(tmp_path: Path):
    source = (listener := Listener(tmp_path)).source
    source.take(told(wire.STEP, STEP, dropped=1), 100.0)  # the end of 1, which is still to come
    for data in asks(1, dropped=1):
        source.take(data, 101.0)
    source.look(150.0)
    assert events(listener) == []
    for data in asks(2, dropped=1):
        source.take(data, 190.0)
    source.look(200.0)
    assert events(listener) == []
    source.look(206.0)
    assert events(listener) == [("engine_frozen", "WARN")], "what came a minute later has lost nothing"


def test_another_process_of_the_same_engine_tells_for_both(tmp_path: Path):
    """With two API servers the steps of one engine come from either."""
    source = (listener := Listener(tmp_path)).source
    source.take(told(wire.STEP, STEP, pid=7), 100.0)
    for data in asks(1, pid=7):
        source.take(data, 100.5)
    for now in range(101, 160):
        source.take(told(wire.STEP, STEP, pid=8), float(now))
        source.look(float(now))
    assert events(listener) == []


def test_what_waits_for_no_model_and_who_waits_for_nothing_says_nothing(tmp_path: Path):
    source = (listener := Listener(tmp_path)).source
    source.take(told(wire.STEP, STEP), 100.0)
    source.look(900.0)  # idle
    for data in asks(1, b"/tokenize"):
        source.take(data, 900.0)
    source.look(1_000.0)
    (begin,) = asks(2, whole=False)
    source.take(begin, 1_000.0)  # its client is still sending it
    source.look(1_100.0)
    assert events(listener) == []
    for data in asks(3):
        source.take(data, 1_100.0)
    source.look(1_110.0)
    assert events(listener) == [], "it was asked ten seconds ago"
    source.look(1_116.0)
    assert events(listener) == [("engine_frozen", "WARN")]
    source.take(ends(3), 1_117.0)
    source.look(1_118.0)
    assert list(source.problems(0.0, 0.0)) == [], "nobody waits any more, and nothing says that it moves"
    assert events(listener) == [("engine_frozen", "WARN")]


def test_an_engine_whose_steps_nobody_tells_is_not_judged(tmp_path: Path):
    source = (listener := Listener(tmp_path, VLLM)).source
    for data in asks(1):
        source.take(data, 100.0)
    source.look(900.0)
    assert events(listener) == []
