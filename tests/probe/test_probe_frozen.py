"""Silence of steps while requests are open is a frozen engine; one process's silence, or an idle engine's, is not."""

from __future__ import annotations

import fcntl
import itertools
import math
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from servescope_probe import wire

from agent.spool.writer import producer_folder
from agent.tap.open_requests import OpenRequest, OpenRequests
from base import locks
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


def left(running: int, waiting: int = 0) -> bytes:
    """A step after which the engine has so many requests."""
    return told(wire.STEP, wire.STEP_BODY.pack(1, 0, 10**18 + 7, -1, running, waiting, 0, 0.25, *[-1] * 20, math.nan))


def answers(number: int, fields: bytes) -> bytes:
    return told(wire.EDGE_HEAD, wire.ANSWER_BODY.pack(number, 0.5, 200) + fields)


def test_an_engine_that_has_nothing_left_to_do_is_not_frozen_whoever_still_reads(tmp_path: Path):
    """A client that reads slowly holds its request open long after the last step."""
    source = (listener := Listener(tmp_path)).source
    for data in (*asks(1), left(1), answers(1, b"content-type: text/event-stream\r\n"), left(0)):
        source.take(data, 100.0)
    source.look(200.0)
    assert events(listener) == []
    for data in (*asks(2), left(1), answers(2, b"content-type: text/event-stream\r\n")):
        source.take(data, 200.0)
    source.look(214.0)
    assert events(listener) == []
    source.look(216.0)
    assert events(listener) == [("engine_frozen", "WARN")], "its answer stopped in the middle"


def test_a_whole_answer_waits_for_its_client_alone_and_one_that_did_not_begin_for_the_engine(tmp_path: Path):
    source = (listener := Listener(tmp_path)).source
    for data in (*asks(1), left(1), answers(1, b"content-length: 900000\r\n")):
        source.take(data, 100.0)
    source.look(200.0)
    assert events(listener) == []
    for data in (left(0), *asks(2)):
        source.take(data, 200.0)
    source.look(216.0)
    assert events(listener) == [("engine_frozen", "WARN")], "the engine had rested and takes no request any more"


def test_what_is_open_at_a_tap_waits_too(tmp_path: Path):
    """Where a tap stands in front the middleware records nothing, and nothing else tells that somebody waits."""
    source = (listener := Listener(tmp_path)).source
    tap = OpenRequests(producer_folder(tmp_path / "spool", "tap-vllm-a"), 4)
    source.take(left(0), 100.0)
    source.look(200.0)
    assert events(listener) == [], "it is idle"
    tap.begin(at_a_tap(1, seconds_ago=30.0, model=""))  # still coming in
    tap.begin(at_a_tap(2, seconds_ago=30.0, operation=""))  # a list of models
    source.look(210.0)
    assert events(listener) == []
    tap.begin(at_a_tap(3, seconds_ago=30.0))
    source.look(220.0)
    assert events(listener) == [("engine_frozen", "WARN")]
    assert "requests open at its door: 1" in next(iter(messages(listener)))
    source.take(left(0), 221.0)
    source.look(221.5)
    assert events(listener)[1:] == [("engine_moves", "INFO")]
    source.look(237.0)
    assert events(listener)[2:] == [], "all that it was asked before that step is done: its client reads slowly"
    tap.close()


def test_what_an_engine_still_has_and_a_tap_too_waits_and_what_a_killed_tap_had_does_not(tmp_path: Path):
    source = (listener := Listener(tmp_path)).source
    tap = OpenRequests(producer_folder(tmp_path / "spool", "tap-vllm-a"), 4)
    tap.begin(at_a_tap(1, seconds_ago=130.0))
    source.take(left(1), 100.0)
    source.look(110.0)
    assert events(listener) == []
    fcntl.flock(tap._lock, fcntl.LOCK_UN)  # as a kill does
    source.look(140.0)
    assert events(listener) == []
    locks.hold(tap._lock)
    source.look(150.0)
    assert events(listener) == [("engine_frozen", "WARN")]
    tap.close()


def at_a_tap(number: int, seconds_ago: float, operation: str = "chat", model: str = "tiny") -> OpenRequest:
    span_id, arrived = bytes([number]) * 8, time.time_ns() - int(seconds_ago * 1e9)
    return OpenRequest(
        span_id, b"\x01" * 16, b"", 1, arrived, "POST", "/v1/chat/completions", operation, "", "", f"r-{number}", model
    )


def messages(listener: Listener) -> list[str]:
    return [
        record.body.string_value
        for signal, body in listener.bodies
        if signal == "logs"
        for group in ExportLogsServiceRequest.FromString(body).resource_logs
        for scope in group.scope_logs
        for record in scope.log_records
        if record.event_name == "engine_frozen"
    ]
