from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from agent.otlp.request import RequestRecord, time_coded_span_id
from agent.otlp.request_wire import to_otlp, to_otlp_many
from base.vocabulary import SCOPE_EDGE, Edge, Outcome
from tests.kits.request_span import to_span

FULL = RequestRecord(
    trace_id=b"t" * 16, span_id=b"s" * 8, parent_span_id=b"p" * 8, trace_state="a=1", flags=1, start_ns=10, end_ns=20,
    method="POST", route="/v1/completions", outcome=Outcome.OK, status=200, operation="text_completion",
    request_model="asked", response_model="told", response_id="cmpl-1", request_id="r", tenant="team",
    finish_reasons=("stop", "length"), error_type="", stream=True, prompt_tokens=0, completion_tokens=4,
    cached_tokens=1, tokens_counted=True,
    caller_sampled=False, unsampled=True, request_bytes=5, response_bytes=6, edge_seconds=0.1, ttft_seconds=0.2,
    e2e_seconds=0.3, itl_mean_seconds=0.01, itl_p50_seconds=0.02, itl_p99_seconds=0.03, itl_max_seconds=0.04,
    itl_gaps=3,
)  # fmt: skip
NAMES = {value for key, value in vars(Edge).items() if key.isupper()}


def span_of(record: RequestRecord) -> Span:
    (group,) = ExportTraceServiceRequest.FromString(to_otlp(record, {"service.name": "d"})).resource_spans
    (scope,) = group.scope_spans
    assert scope.scope.name == SCOPE_EDGE
    (span,) = scope.spans
    return span


def attributes(span: Span) -> dict[str, object]:
    out = {}
    for item in span.attributes:
        kind = item.value.WhichOneof("value")
        value = getattr(item.value, kind)
        out[item.key] = [v.string_value for v in value.values] if kind == "array_value" else value
    return out


def test_full_record_uses_every_word_of_the_vocabulary_but_the_error():
    found = attributes(span_of(FULL))
    assert set(found) == NAMES - {Edge.ERROR_TYPE}
    assert found[Edge.FINISH_REASONS] == ["stop", "length"]
    assert found[Edge.INPUT_TOKENS] == 0
    assert found[Edge.STREAM] is True
    assert found[Edge.E2E_SECONDS] == 0.3


def test_span_itself():
    span = span_of(FULL)
    assert (span.trace_id, span.span_id, span.parent_span_id) == (b"t" * 16, b"s" * 8, b"p" * 8)
    assert (span.name, span.kind, span.trace_state) == ("POST /v1/completions", Span.SPAN_KIND_SERVER, "a=1")
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (10, 20)


def test_unknown_is_absent_and_status_follows_the_outcome():
    bare = RequestRecord(b"t" * 16, b"s" * 8, 10, 2_000_000_010, Outcome.UNREACHABLE, "GET", "/*")
    span = span_of(bare)
    found = attributes(span)
    assert set(found) == {Edge.OUTCOME, Edge.METHOD, Edge.ROUTE, Edge.REQUEST_BYTES, Edge.RESPONSE_BYTES,
                          Edge.E2E_SECONDS, Edge.STREAM}  # fmt: skip
    assert found[Edge.E2E_SECONDS] == 2.0
    for outcome in Outcome:
        code = span_of(bare._replace(outcome=outcome)).status.code
        calm = outcome in {Outcome.OK, Outcome.CLIENT_ABORT, Outcome.CLIENT_ERROR}
        assert code == (Status.STATUS_CODE_UNSET if calm else Status.STATUS_CODE_ERROR)


def test_many_records_share_one_resource():
    request = ExportTraceServiceRequest.FromString(to_otlp_many([FULL, FULL], {"a": "b", "none": ""}))
    assert [a.key for a in request.resource_spans[0].resource.attributes] == ["a"]
    assert len(request.resource_spans[0].scope_spans[0].spans) == 2


def test_texts_are_bounded():
    found = attributes(span_of(FULL._replace(request_model="x" * 10_000)))
    assert len(found[Edge.REQUEST_MODEL]) == 256


@given(st.integers(0, (1 << 42) * 1_000_000 - 1), st.integers(0, 1 << 30))
def test_span_id_holds_the_milliseconds(arrival_ns: int, random: int):
    span_id = time_coded_span_id(arrival_ns, random)
    assert len(span_id) == 8
    number = int.from_bytes(span_id, "big")
    assert number >> 22 == arrival_ns // 1_000_000
    assert number & ((1 << 22) - 1) == random % (1 << 22)
    assert time_coded_span_id(arrival_ns)[:5] == span_id[:5]


def absent(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | strategy


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=300)
COUNTS = st.integers(0, 2**40)
SECONDS = st.floats(0, 1e9)
ANY_RECORD = st.builds(
    RequestRecord,
    trace_id=st.binary(max_size=16),
    span_id=st.binary(max_size=8),
    start_ns=st.integers(0, 2**62),
    end_ns=st.integers(0, 2**62),
    method=TEXTS,
    route=TEXTS,
    outcome=st.sampled_from(Outcome),
    parent_span_id=st.binary(max_size=8),
    trace_state=TEXTS,
    flags=st.integers(0, 255),
    status=absent(st.integers(0, 999)),
    operation=TEXTS,
    request_model=TEXTS,
    response_model=TEXTS,
    response_id=TEXTS,
    request_id=TEXTS,
    tenant=TEXTS,
    caller_sampled=absent(st.booleans()),
    unsampled=st.booleans(),
    finish_reasons=st.lists(TEXTS, max_size=3).map(tuple),
    error_type=TEXTS,
    stream=st.booleans(),
    prompt_tokens=absent(COUNTS),
    completion_tokens=absent(COUNTS),
    cached_tokens=absent(COUNTS),
    tokens_counted=st.booleans(),
    request_bytes=COUNTS,
    response_bytes=COUNTS,
    edge_seconds=absent(SECONDS),
    ttft_seconds=absent(SECONDS),
    e2e_seconds=absent(SECONDS),
    itl_mean_seconds=absent(SECONDS),
    itl_p50_seconds=absent(SECONDS),
    itl_p99_seconds=absent(SECONDS),
    itl_max_seconds=absent(SECONDS),
    itl_gaps=COUNTS,
)


@given(st.lists(ANY_RECORD, max_size=3), st.dictionaries(TEXTS.filter(bool), TEXTS, max_size=3))
def test_what_is_packed_by_hand_is_what_protobuf_would_write(records: list[RequestRecord], resource: dict[str, str]):
    group = ResourceSpans(scope_spans=[ScopeSpans(scope=InstrumentationScope(name=SCOPE_EDGE))])
    group.scope_spans[0].spans.extend(to_span(record) for record in records)
    for key, value in resource.items():
        if value:
            group.resource.attributes.append(KeyValue(key=key, value=AnyValue(string_value=value[:256])))
    assert to_otlp_many(records, resource) == ExportTraceServiceRequest(resource_spans=[group]).SerializeToString()
