"""No time is 1970 for want of one, parts go by arrival, odd ids are none, and what nests is read back as JSON."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector import framing
from collector.decode import decode
from tests.kits.schema_tools import (
    NOW_MS,
    any_value,
    attributes,
    edge_span,
    engine_span,
    event,
    fresh_store,
    metrics,
    token,
    traces,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

    from collector.store.client import Store
    from tests.conftest import StoreServer

DAY_NS = 86_400_000_000_000
NOW = NOW_MS * 1_000_000
CAME = 1_795_000_000_123_456_789
CAME_AT = datetime.fromtimestamp(CAME // 10**9, UTC)
END = 2**64 - 1


@pytest.fixture(scope="module")
def store(store_server: StoreServer) -> Iterator[Store]:
    with fresh_store(store_server) as made:
        yield made


def land(store: Store, signal: str, *messages: Message, came: int = CAME) -> None:
    frames = b""
    for message in messages:
        body = decode(signal, message.SerializeToString(), as_json=False, store_prompts=False).body
        frames += framing.encode(body, records=1, digest=bytes(16), received_ns=came)
    store.insert_segment(f"land_{signal}", frames, token())


def nanoseconds(store: Store, columns: str, rest: str, **parameters: Any) -> list[tuple[int, ...]]:
    found = ", ".join(f"toUnixTimestamp64Nano({name}) AS c{index}" for index, name in enumerate(columns.split(", ")))
    return [tuple(row.values()) for row in store.rows(f"SELECT {found} FROM {rest}", parameters)]


def span(start: int, end: int) -> Span:
    made = Span(trace_id=os.urandom(16), span_id=os.urandom(8), name=f"{start} {end}")
    made.start_time_unix_nano, made.end_time_unix_nano = start, end
    made.events.add(name="e")
    return made


def test_a_spans_missing_times_are_those_next_to_them(store: Store):
    cases = {
        (NOW, NOW + 5): (NOW, 5),
        (0, NOW): (NOW, 0),
        (NOW, 0): (NOW, 0),
        (0, 0): (CAME, 0),
        (NOW, NOW - 5): (NOW, 0),
    }
    land(store, "traces", traces([span(*case) for case in cases], "times"), traces([span(END, END)], "times"))
    rows = nanoseconds(
        store, "Timestamp, Events.Timestamp[1]", "otel_traces WHERE ScopeName = 'times' ORDER BY SpanName"
    )
    took = store.rows("SELECT SpanName, Duration FROM otel_traces WHERE ScopeName = 'times' ORDER BY SpanName")
    found = {row["SpanName"]: (*times, row["Duration"]) for row, times in zip(took, rows, strict=True)}
    for (start, end), (time, duration) in cases.items():
        assert found[f"{start} {end}"] == (time, time, duration)
    assert found[f"{END} {END}"][0] == 9 * 10**18


@pytest.mark.parametrize("half", [edge_span, engine_span])
def test_a_request_without_times_came_when_it_arrived(store: Store, half: Any):
    one = half(trace=os.urandom(16))
    one.start_time_unix_nano = one.end_time_unix_nano = 0
    one.span_id, one.parent_span_id = os.urandom(8), b""
    land(store, "traces", traces([one], "servescope.edge" if half is edge_span else "vllm.x"))
    found = "requests WHERE trace_id = {t:String}"
    assert store.rows(f"SELECT toUnixTimestamp64Milli(time) AS ms FROM {found}", {"t": one.trace_id.hex()}) == [
        {"ms": CAME // 10**6}
    ]


def test_a_records_time_is_its_own_else_observed_else_of_arrival(store: Store):
    notes = []
    for index, (own, observed) in enumerate([(NOW, 5), (0, NOW), (0, 0), (END, 0)]):
        note = event("times", f"{index}", {})
        record = note.resource_logs[0].scope_logs[0].log_records[0]
        record.time_unix_nano, record.observed_time_unix_nano = own, observed
        notes.append(note)
    land(store, "logs", *notes)
    wanted = [(NOW,), (NOW,), (CAME,), (9 * 10**18,)]
    assert nanoseconds(store, "Timestamp", "otel_logs WHERE EventName = 'times' ORDER BY Body") == wanted
    old = "SELECT count() AS n FROM events WHERE event = 'times' AND time < '2000-01-01'"
    assert store.rows(old) == [{"n": 0}]
    assert store.rows("SELECT count() AS n FROM events WHERE event = 'times'") == [{"n": 4}]


@pytest.mark.parametrize("scope", ["theirs", "servescope.sample", "servescope.host", "servescope.gpu"])
def test_a_point_without_a_time_is_of_its_arrival(store: Store, scope: str):
    name = token()
    made = metrics(scope, {"running": 1.0}, {"x_total": 2.0}, {"service.name": name, "service.instance.id": name})
    for metric in made.resource_metrics[0].scope_metrics[0].metrics:
        (point,) = (metric.gauge.data_points or metric.sum.data_points)[:]
        point.time_unix_nano = 0
        point.exemplars.add(as_int=1)
    land(store, "metrics", made)
    if scope == "theirs":
        columns = "TimeUnix, StartTimeUnix, Exemplars.TimeUnix[1]"
        for table in ("gauge", "sum"):
            rest = f"otel_metrics_{table} WHERE ServiceName = {{n:String}}"
            assert nanoseconds(store, columns, rest, n=name) == [(CAME, CAME, CAME)]
        return
    table = {"sample": "engine_samples", "host": "host_samples", "gpu": "gpu_samples"}[scope.rpartition(".")[2]]
    found = f"SELECT toUnixTimestamp64Milli(time) AS ms FROM {table} WHERE instance = {{n:String}}"
    assert store.rows(found, {"n": name}) == [{"ms": CAME // 10**6}]


def test_spans_of_many_days_are_one_part_of_the_day_they_came(store: Store):
    came = CAME + 90 * DAY_NS
    days = [edge_span(ms=NOW_MS - day * 86_400_000, bits=day + 1, trace=os.urandom(16)) for day in range(300)]
    land(store, "traces", traces(days, resource={"service.name": "days"}), came=came)
    assert store.rows("SELECT count() AS n, uniqExact(toDate(time)) AS d FROM requests WHERE deployment = 'days'") == [
        {"n": 300, "d": 300}
    ]
    at = datetime.fromtimestamp(came // 10**9, UTC)
    for table in ("otel_traces", "otel_traces_trace_id_ts", "requests_t", "request_keys", "requests_1m"):
        when = f"{at:%Y%m}" if table == "requests_1m" else f"{at:%Y-%m-%d}"
        parts = (
            "SELECT count() AS n FROM system.parts WHERE database = currentDatabase() AND table = {t:String} AND active"
            f" AND partition = '{when}'"
        )
        assert store.rows(parts, {"t": table}) == [{"n": 1}], table
    oldest = f"time < fromUnixTimestamp64Milli({NOW_MS - 299 * 86_400_000 + 1})"
    one = f"SELECT count() AS n FROM requests WHERE deployment = 'days' AND {oldest}"
    assert store.rows(one) == [{"n": 1}]


@pytest.mark.parametrize("first", ["edge", "engine"])
def test_halves_that_come_on_two_days_are_one_row(store: Store, first: str):
    trace, bits = os.urandom(16), int.from_bytes(os.urandom(2), "big")
    midnight = (CAME // DAY_NS + 1) * DAY_NS
    ms = midnight // 10**6 - 500
    halves = [traces([edge_span(ms, bits, trace)]), traces([engine_span(ms, bits, trace)], "vllm.x")]
    for half, came in zip(
        halves if first == "edge" else halves[::-1], (midnight - 10**8, midnight + 10**9), strict=True
    ):
        land(store, "traces", half, came=came)
    for _ in range(2):
        (row,) = store.rows("SELECT has_edge, has_engine FROM requests WHERE trace_id = {t:String}", {"t": trace.hex()})
        assert row == {"has_edge": 1, "has_engine": 1}
        store.command("OPTIMIZE TABLE requests_t FINAL")


def test_a_repeated_segment_is_of_the_day_it_came_and_brings_nothing(store: Store):
    message = traces([edge_span(bits=4_000_000, trace=os.urandom(16))], resource={"service.name": "late"})
    frame = framing.encode(message.SerializeToString(), records=1, digest=bytes(16), received_ns=CAME)
    name = token()
    for _ in range(2):
        store.insert_segment("land_traces", frame, name)
    for table, column in (("otel_traces", "ServiceName"), ("requests_1m", "deployment")):
        assert store.rows(f"SELECT count() AS n, any(received_at) AS at FROM {table} WHERE {column} = 'late'") == [
            {"n": 1, "at": CAME_AT}
        ]


def test_odd_ids_beside_a_row_are_none(store: Store):
    one = span(NOW, NOW)
    one.parent_span_id = b"ab" * 8
    for trace, own in ((b"\x01" * 16, b"\x02" * 8), (bytes(16), bytes(8)), (b"ab" * 16, b"cd" * 8), (b"", b"")):
        one.links.add(trace_id=trace, span_id=own)
    land(store, "traces", traces([one], "odd ids"))
    columns = "ParentSpanId, Links.TraceId, Links.SpanId"
    assert list(store.rows(f"SELECT {columns} FROM otel_traces WHERE ScopeName = 'odd ids'")[0].values()) == [
        "",
        ["01" * 16, "", "", ""],
        ["02" * 8, "", "", ""],
    ]
    notes = []
    for trace, own in ((b"\x01" * 16, b"\x02" * 8), (bytes(16), bytes(8)), (b"ab" * 16, b"cd" * 8), (b"x", b"y")):
        note = event("odd ids", "x", {})
        record = note.resource_logs[0].scope_logs[0].log_records[0]
        record.trace_id, record.span_id = trace, own
        notes.append(note)
    land(store, "logs", *notes)
    found = "SELECT TraceId, SpanId FROM otel_logs WHERE EventName = 'odd ids' ORDER BY TraceId"
    assert [tuple(row.values()) for row in store.rows(found)] == [*[("", "")] * 3, ("01" * 16, "02" * 8)]


def test_values_of_any_depth_are_json_and_keep_every_level(store: Store):
    deep = {
        "event": {"name": "x", "id": 7, "more": {"deepest": "hé\n"}},
        "list": [["x", 1.5], {"k": True}],
        "flat": "ok",
    }
    flat = {"list": [1, "a", float("nan"), float("-inf"), b"\x00\xff", 2**62], "map": {"a": 1, "nan": float("nan")}}
    note = event("nested", "x", {"deep": deep, **flat})
    record = note.resource_logs[0].scope_logs[0].log_records[0]
    record.body.CopyFrom(any_value(deep))
    record.attributes[1].value.array_value.values.add()
    land(store, "logs", note)
    one = span(NOW, NOW)
    one.attributes.extend(record.attributes)
    one.events[0].attributes.extend(attributes({"deep": deep}))
    request = traces([one], "nested", {"service.name": "nested", "deep": "x"})
    request.resource_spans[0].resource.attributes[1].value.CopyFrom(any_value(deep))
    land(store, "traces", request)
    (log,) = store.rows("SELECT Body, LogAttributes AS a FROM otel_logs WHERE EventName = 'nested'")
    (row,) = store.rows(
        "SELECT SpanAttributes AS a, ResourceAttributes AS r, Events.Attributes AS e FROM otel_traces"
        " WHERE ScopeName = 'nested'"
    )
    assert [json.loads(text) for text in (log["Body"], row["r"]["deep"], row["e"][0]["deep"])] == [deep] * 3
    for found in (log["a"], row["a"]):
        assert json.loads(found["deep"]) == deep
        assert json.loads(found["list"]) == [1, "a", "nan", "-inf", "AP8=", 2**62, None]
        assert json.loads(found["map"]) == {"a": 1, "nan": "nan"}
