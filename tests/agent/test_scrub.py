from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from base.scrub import PROMPT_EVENTS, is_prompt_bearing, may_hold_prompts, scrub_body
from base.vocabulary import PROMPT_BEARING

SECRET = "my grandmother's recipe"


def attribute(key: str, text: str = SECRET) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=text))


def traces(*attributes: KeyValue, event: str = "", event_attributes: tuple[KeyValue, ...] = ()) -> bytes:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(name="llm_request")
    span.attributes.extend(attributes)
    if event:
        span.events.add(name=event).attributes.extend(event_attributes)
    return request.SerializeToString()


@pytest.mark.parametrize("key", sorted(PROMPT_BEARING))
@pytest.mark.parametrize("suffix", ["", ".0.content"])
def test_every_prompt_bearing_key_goes_and_the_rest_stays(key: str, suffix: str):
    body = traces(attribute("gen_ai.request.id", "r1"), attribute(key + suffix))
    clean, removed = scrub_body("traces", body)
    assert removed == 1
    assert SECRET.encode() not in clean
    assert clean == traces(attribute("gen_ai.request.id", "r1"))


@pytest.mark.parametrize(
    "key", ["gen_ai.usage.prompt_tokens", "gen_ai.usage.input_tokens", "gen_ai.prompts", "gen_ai.promptly.x"]
)
def test_keys_that_only_resemble_stay(key: str):
    assert not is_prompt_bearing(key)
    body = traces(attribute(key))
    assert scrub_body("traces", body) == (body, 0)


def test_clean_body_is_the_same_object():
    body = traces(attribute("gen_ai.request.model", "tiny"), attribute("servescope.tenant", "a"))
    clean, removed = scrub_body("traces", body)
    assert clean is body
    assert removed == 0


@given(st.lists(st.sampled_from([*sorted(PROMPT_BEARING), "gen_ai.request.id", "x", "http.route"]), max_size=8))
def test_removed_counts_the_prompt_bearing_keys(keys: list[str]):
    clean, removed = scrub_body("traces", traces(*(attribute(k) for k in keys)))
    assert removed == sum(k in PROMPT_BEARING for k in keys)
    left = ExportTraceServiceRequest.FromString(clean).resource_spans[0].scope_spans[0].spans[0].attributes
    assert [a.key for a in left] == [k for k in keys if k not in PROMPT_BEARING]


def test_nested_maps_and_arrays_are_searched():
    inner = AnyValue(kvlist_value=KeyValueList(values=[attribute("gen_ai.prompt"), attribute("ok", "kept")]))
    nested = KeyValue(key="request", value=AnyValue(array_value=ArrayValue(values=[inner])))
    clean, removed = scrub_body("traces", traces(nested))
    assert removed == 1
    assert SECRET.encode() not in clean
    assert b"kept" in clean


def test_bottomless_nesting_is_cut():
    value = AnyValue(kvlist_value=KeyValueList(values=[attribute("gen_ai.prompt")]))
    for _ in range(30):
        value = AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="k", value=value)]))
    clean, _ = scrub_body("traces", traces(KeyValue(key="deep", value=value)))
    assert SECRET.encode() not in clean


@pytest.mark.parametrize("event", sorted(PROMPT_EVENTS))
def test_span_events_lose_their_payload(event: str):
    body = traces(event=event, event_attributes=(attribute("content"), attribute("gen_ai.event.content")))
    clean, removed = scrub_body("traces", body)
    assert removed == 2
    assert SECRET.encode() not in clean


def test_ordinary_span_event_keeps_its_message():
    body = traces(event="exception", event_attributes=(attribute("message", "boom"),))
    assert scrub_body("traces", body) == (body, 0)


@pytest.mark.parametrize("named_by", ["field", "attribute"])
def test_bodies_of_genai_log_events_go(named_by: str):
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    record = records.add(body=AnyValue(string_value=SECRET))
    if named_by == "field":
        record.event_name = "gen_ai.user.message"
    else:
        record.attributes.append(attribute("event.name", "gen_ai.choice"))
    records.add(body=AnyValue(string_value="instance up"), event_name="instance_up")
    records.add().body.kvlist_value.values.append(attribute("gen_ai.output.messages"))
    clean, removed = scrub_body("logs", request.SerializeToString())
    assert removed == 2
    assert SECRET.encode() not in clean
    assert b"instance up" in clean


def test_metrics_attributes_and_exemplars():
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="x")
    point = metric.sum.data_points.add(as_double=1)
    point.attributes.append(attribute("gen_ai.prompt"))
    point.exemplars.add().filtered_attributes.append(attribute("llm.prompts.0"))
    clean, removed = scrub_body("metrics", request.SerializeToString())
    assert removed == 2
    assert SECRET.encode() not in clean


def test_unknown_fields_go_with_the_rest():
    hidden = b"\xfa\x3f" + bytes([len(SECRET.encode())]) + SECRET.encode()
    clean, removed = scrub_body("traces", traces(attribute("gen_ai.prompt")) + hidden)
    assert removed == 1
    assert SECRET.encode() not in clean


def test_fast_path_never_misses_a_name():
    for name in PROMPT_BEARING | PROMPT_EVENTS:
        assert may_hold_prompts(b"\x0a\x10" + name.encode() + b"\x12\x00"), name


def test_a_broken_body_that_could_hold_prompts_is_an_error():
    with pytest.raises(DecodeError):
        scrub_body("traces", b"\x0a\x7fgen_ai.prompt")
