"""Records that are not what they say are refused and counted, their neighbours kept; values nest to any depth."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector.decode import Decoded, MalformedError, decode
from collector.nested import flatten, may_nest
from tests.kits.schema_tools import (
    NOW_MS,
    RESOURCE,
    any_value,
    attributes,
    edge_span,
    engine_span,
    event,
    metrics,
    traces,
)

if TYPE_CHECKING:
    from google.protobuf.message import Message

NOW = NOW_MS * 1_000_000
TRACE, OWN = b"\x01" * 16, b"\x02" * 8


def take(signal: str, body: bytes | Message, *, as_json: bool = False) -> Decoded:
    raw = body if isinstance(body, bytes) else body.SerializeToString()
    return decode(signal, raw, as_json=as_json, store_prompts=False)


def span(trace: bytes = TRACE, own: bytes = OWN, **more: Any) -> Span:
    return Span(trace_id=trace, span_id=own, name="s", start_time_unix_nano=NOW, end_time_unix_nano=NOW + 1, **more)


ODD_IDS = {
    "none": (b"", b""),
    "no trace": (b"", OWN),
    "no span": (TRACE, b""),
    "zeros": (bytes(16), bytes(8)),
    "zero trace": (bytes(16), OWN),
    "zero span": (TRACE, bytes(8)),
    "short": (b"\x01\x02\x03", b"\x01"),
    "64-bit trace": (b"\x01" * 8, OWN),
    "hex text": (TRACE.hex().encode(), OWN.hex().encode()),
    "hex text with dashes": (b"0af76519-16cd-43dd-8448-eb211c80319c", OWN),
    "long": (b"\x01" * 17, b"\x02" * 9),
}


@pytest.mark.parametrize("ids", ODD_IDS.values(), ids=ODD_IDS)
def test_a_span_with_odd_ids_is_refused_alone(ids: tuple[bytes, bytes]):
    taken = take("traces", traces([span(), span(*ids), span(own=b"\x03" * 8), span(*ids)]))
    kept = ExportTraceServiceRequest.FromString(taken.body).resource_spans[0].scope_spans[0].spans
    assert [(s.trace_id, s.span_id) for s in kept] == [(TRACE, OWN), (TRACE, b"\x03" * 8)]
    assert taken.records == 2
    assert taken.refusal is not None
    assert (taken.refusal.reason, taken.refusal.records) == ("ids", 2)
    assert f"a span has {len(ids[0])} and {len(ids[1])}" in taken.refusal.text
    with pytest.raises(MalformedError, match="trace_id must have 16 bytes and span_id 8") as caught:
        take("traces", traces([span(*ids)]))
    assert (caught.value.reason, caught.value.records) == ("ids", 1)


def test_what_is_wrong_is_told():
    with pytest.raises(MalformedError, match="not their hex text"):
        take("traces", traces([span(TRACE.hex().encode(), OWN.hex().encode())]))


BASE64 = "W47/95gDgQPSabYzgT/GDA==", "7uGbfsPBsbM="


@pytest.mark.parametrize("ids", [("", ""), ("abcd", "ef"), ("00" * 16, "00" * 8), BASE64, ("z" * 16, OWN.hex())])
def test_json_has_no_odd_ids_either(ids: tuple[str, str]):
    one = {"traceId": ids[0], "spanId": ids[1], "name": "s", "startTimeUnixNano": str(NOW)}
    good = one | {"traceId": TRACE.hex(), "spanId": OWN.hex()}
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [one, good]}]}]}
    taken = take("traces", json.dumps(body).encode(), as_json=True)
    assert taken.records == 1
    assert taken.refusal is not None
    assert taken.refusal.records == 1


def test_a_log_in_json_loses_its_odd_ids_alone():
    records = [{"timeUnixNano": str(NOW), "traceId": ids[0], "spanId": ids[1]} for ids in (BASE64, ("-", "z" * 8))]
    records.append({"timeUnixNano": str(NOW), "traceId": TRACE.hex(), "spanId": OWN.hex()})
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).encode()
    taken = take("logs", body, as_json=True)
    assert (taken.records, taken.refusal) == (3, None)
    kept = ExportLogsServiceRequest.FromString(taken.body).resource_logs[0].scope_logs[0].log_records
    assert [len(one.trace_id) == 16 for one in kept] == [len(one.span_id) == 8 for one in kept] == [False, False, True]


def log_request(**more: Any) -> ExportLogsServiceRequest:
    made = event("deploy", "model loaded", {"a": "b"})
    record = made.resource_logs[0].scope_logs[0].log_records[0]
    for name, value in more.items():
        setattr(record, name, value)
    return made


def metric_request(name: str, description: str = "") -> ExportMetricsServiceRequest:
    made = metrics("theirs", {}, {name: 1.0})
    made.resource_metrics[0].scope_metrics[0].metrics[0].description = description
    return made


BODIES: dict[str, tuple[str, Message]] = {
    "log": ("logs", log_request()),
    "log without attributes": ("logs", ExportLogsServiceRequest.FromString(log_request().SerializeToString())),
    "log with ids": ("logs", log_request(trace_id=TRACE, span_id=OWN, flags=1, observed_time_unix_nano=NOW)),
    "sum": ("metrics", metric_request("tokens")),
    "sum whose name is as long as an id": ("metrics", metric_request("sixteen_letters_", "8_letter")),
    "gauge": ("metrics", metrics("theirs", {"running": 1.0})),
    "span": ("traces", traces([span()])),
    "edge": ("traces", traces([edge_span()])),
    "engine": ("traces", traces([engine_span()])),
}
del BODIES["log without attributes"][1].resource_logs[0].scope_logs[0].log_records[0].attributes[:]  # type: ignore[attr-defined]


@pytest.mark.parametrize("door", ["traces", "metrics", "logs"])
@pytest.mark.parametrize("name", BODIES)
def test_a_request_at_another_signals_door_is_refused(name: str, door: str):
    signal, body = BODIES[name]
    if door == signal:
        assert take(door, body).refusal is None
        return
    with pytest.raises(MalformedError) as caught:
        take(door, body)
    assert str(caught.value)


def test_a_lost_request_is_shown_its_door():
    with pytest.raises(MalformedError, match="send logs to /v1/logs"):
        take("traces", log_request())
    for signal, other, body in (
        ("traces", "logs", {"resourceLogs": [{"scopeLogs": []}]}),
        ("logs", "metrics", {"resource_metrics": []}),
        ("metrics", "traces", {"resourceSpans": [{}]}),
    ):
        with pytest.raises(MalformedError, match=f"no {signal} are in it, but {other}: send it to /v1/{other}"):
            take(signal, json.dumps(body).encode(), as_json=True)
    for signal in ("traces", "metrics", "logs"):
        assert take(signal, b"").records == take(signal, b"{}", as_json=True).records == 0


def test_a_log_keeps_its_place_without_times_and_ids():
    body = log_request(trace_id=b"x", span_id=bytes(8), time_unix_nano=0)
    assert take("logs", body).records == 1
    assert take("logs", body).refusal is None


def test_a_metric_without_a_name_is_refused_alone():
    made = metrics("theirs", {"": 1.0, "named": 2.0})
    taken = take("metrics", made)
    assert (taken.records, taken.refusal and taken.refusal.reason) == (1, "unnamed")


UNITS = {"seconds": 10**9, "milliseconds": 10**6, "microseconds": 10**3}
CLOCKS = {**{unit: NOW // divisor for unit, divisor in UNITS.items()}, "a time of 1970": 17_000 * 10**9, "a count": 1}


@pytest.mark.parametrize("time", CLOCKS.values(), ids=CLOCKS)
@pytest.mark.parametrize("field", ["start_time_unix_nano", "end_time_unix_nano", "events"])
def test_a_span_of_another_unit_is_refused_alone(field: str, time: int):
    odd = span(own=b"\x05" * 8)
    if field == "events":
        odd.events.add(name="late", time_unix_nano=NOW)
        odd.events.add(name="odd", time_unix_nano=time)
    else:
        setattr(odd, field, time)
    taken = take("traces", traces([span(), odd, span(own=b"\x03" * 8)]))
    kept = ExportTraceServiceRequest.FromString(taken.body).resource_spans[0].scope_spans[0].spans
    assert [s.span_id for s in kept] == [OWN, b"\x03" * 8]
    assert taken.refusal is not None
    assert (taken.refusal.reason, taken.refusal.records) == ("times", 1)
    assert field in taken.refusal.text
    assert f"is {time}, " in taken.refusal.text
    with pytest.raises(MalformedError, match="send nanoseconds since 1970") as caught:
        take("traces", traces([odd]))
    assert (caught.value.reason, caught.value.records) == ("times", 1)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("year", [2002, 2026, 2285])
def test_the_unit_is_named(unit: str, year: int):
    time = (year - 1970) * 31_556_952 * 10**9 // UNITS[unit]
    with pytest.raises(MalformedError, match=f"is {time}, which is in {unit}: send nanoseconds"):
        take("logs", log_request(time_unix_nano=time))


def test_a_logs_observed_time_counts_where_it_is_the_only_one():
    early = NOW // 10**6
    assert take("logs", log_request(time_unix_nano=NOW, observed_time_unix_nano=early)).refusal is None
    with pytest.raises(MalformedError, match="observed_time_unix_nano of a log record is"):
        take("logs", log_request(time_unix_nano=0, observed_time_unix_nano=early))


def test_a_point_of_another_unit_is_refused_alone_and_its_metric_stays():
    made = metrics("theirs", {"running": 1.0, "waiting": 2.0})
    first = made.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points
    first.add(as_double=3.0, time_unix_nano=NOW // 10**9)
    taken = take("metrics", made)
    assert (taken.records, taken.refusal and taken.refusal.reason) == (2, "times")
    kept = ExportMetricsServiceRequest.FromString(taken.body).resource_metrics[0].scope_metrics[0].metrics
    assert [[p.as_double for p in metric.gauge.data_points] for metric in kept] == [[1.0], [2.0]]
    made.resource_metrics[0].scope_metrics[0].metrics.add().gauge.data_points.add(as_int=1)
    both = take("metrics", made)
    assert (both.records, both.refusal and both.refusal.records) == (2, 2)


@pytest.mark.parametrize("kind", ["gauge", "sum", "histogram", "exponential_histogram", "summary"])
def test_points_of_every_kind_have_times(kind: str):
    made = ExportMetricsServiceRequest()
    metric = made.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    getattr(metric, kind).data_points.add(time_unix_nano=NOW // 10**3)
    with pytest.raises(MalformedError, match="which is in microseconds"):
        take("metrics", made)


@pytest.mark.parametrize("time", [0, 10**18, NOW, 2**64 - 1])
def test_other_times_stay(time: int):
    assert take("traces", traces([Span(trace_id=TRACE, span_id=OWN, start_time_unix_nano=time)])).refusal is None
    assert take("logs", log_request(time_unix_nano=time, observed_time_unix_nano=0)).refusal is None


DEEP = {"event": {"name": "x", "id": 7, "more": {"deepest": "here"}}, "list": [["x", "y"], {"k": "v"}], "flat": "ok"}


def nested(levels: int, leaf: object = "leaf") -> object:
    value = leaf
    for level in range(levels):
        value = {"k": value} if level % 2 else [value]
    return value


@pytest.mark.parametrize(
    "value", [DEEP, [[1]], ["a", ["b"]], [{"a": 1}], {"a": [1]}, nested(20), [[]], {"a": {}}], ids=str
)
def test_a_nested_value_becomes_its_json(value: object):
    span_body = traces([span()])
    target = span_body.resource_spans[0].scope_spans[0]
    target.spans[0].attributes.extend(attributes({"v": value, "n": 1}))
    target.spans[0].events.add(name="e", attributes=attributes({"v": value}))
    target.spans[0].links.add(trace_id=TRACE, span_id=OWN, attributes=attributes({"v": value}))
    span_body.resource_spans[0].resource.attributes.extend(attributes({"v": value}))
    assert may_nest(span_body.SerializeToString())
    made = ExportTraceServiceRequest.FromString(take("traces", span_body).body).resource_spans[0]
    one = made.scope_spans[0].spans[0]
    for found in (
        one.attributes[0],
        one.events[0].attributes[0],
        one.links[0].attributes[0],
        made.resource.attributes[-1],
    ):
        assert json.loads(found.value.string_value) == value
    log = log_request()
    log.resource_logs[0].scope_logs[0].log_records[0].body.CopyFrom(any_value(value))
    record = ExportLogsServiceRequest.FromString(take("logs", log).body).resource_logs[0].scope_logs[0].log_records[0]
    assert json.loads(record.body.string_value) == value


def test_flat_lists_and_maps_go_as_they_are():
    body = traces([span(attributes=attributes({"l": [1, "a"], "m": {"a": 1.5}, "e": [], "s": "2*\n2\x0a*"}))])
    assert take("traces", body).body == body.SerializeToString()


def test_scopes_and_exemplars_keep_lists_as_json():
    body = traces([span()])
    body.resource_spans[0].scope_spans[0].scope.attributes.extend(attributes({"l": [1, "a"]}))
    made = ExportTraceServiceRequest.FromString(take("traces", body).body)
    assert made.resource_spans[0].scope_spans[0].scope.attributes[0].value.string_value == '[1,"a"]'
    gauge = metrics("theirs", {"g": 1.0})
    point = gauge.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0]
    point.exemplars.add(filtered_attributes=attributes({"l": ["x"]}))
    taken = ExportMetricsServiceRequest.FromString(take("metrics", gauge).body)
    point = taken.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0]
    assert point.exemplars[0].filtered_attributes[0].value.string_value == '["x"]'


def test_what_json_has_no_word_for():
    odd = AnyValue()
    for item in (float("nan"), float("inf"), float("-inf"), 2**63 - 1, b"\x00\xff", True, "é\x00"):
        odd.array_value.values.add().array_value.values.append(any_value(item))
    odd.array_value.values.add()
    body = log_request()
    body.resource_logs[0].scope_logs[0].log_records[0].body.CopyFrom(odd)
    made = ExportLogsServiceRequest.FromString(take("logs", body).body)
    text = made.resource_logs[0].scope_logs[0].log_records[0].body.string_value
    assert json.loads(text) == [["nan"], ["inf"], ["-inf"], [2**63 - 1], ["AP8="], [True], ["é\x00"], None]


VALUES = st.recursive(
    st.one_of(st.text(max_size=200), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=9), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=9), inner, max_size=4)),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=20), VALUES, max_size=4), st.text(max_size=300))
def test_no_nested_value_is_overlooked(values: dict[str, object], name: str):
    body = traces([span(attributes=attributes(values))])
    body.resource_spans[0].scope_spans[0].spans[0].name = name
    raw = body.SerializeToString()
    if flatten(body):
        assert may_nest(raw)


@given(st.binary(max_size=60))
def test_odd_bytes_end_in_a_word_to_the_sender_or_in_a_request(noise: bytes):
    body = traces([span()], resource=RESOURCE).SerializeToString() + b"\x0a" + struct.pack("B", len(noise)) + noise
    for signal in ("traces", "metrics", "logs"):
        try:
            assert take(signal, body).records >= 0
        except MalformedError as error:
            assert str(error)  # noqa: PT017 - either way is right
