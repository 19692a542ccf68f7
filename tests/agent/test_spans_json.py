from __future__ import annotations

import base64
import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from base.otlp_json import NO_ID, MalformedJsonError, parse

FIXTURES = Path(__file__).parent.parent / "fixtures"

scalars = st.one_of(
    st.builds(AnyValue, string_value=st.text(max_size=20)),
    st.builds(AnyValue, bool_value=st.booleans()),
    st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
    st.builds(AnyValue, double_value=st.floats(allow_nan=False)),
    st.builds(AnyValue, bytes_value=st.binary(max_size=20)),
)


def with_hex_ids(item: Any) -> Any:
    """The one difference of OTLP's JSON to protobuf's own."""
    if isinstance(item, list):
        return [with_hex_ids(one) for one in item]
    if isinstance(item, dict):
        ids = {"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"}
        return {key: base64.b64decode(one).hex() if key in ids else with_hex_ids(one) for key, one in item.items()}
    return item


@given(
    st.lists(st.tuples(st.text(max_size=10), scalars), max_size=5),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**64 - 1),
)
def test_any_span_comes_back(pairs: list[tuple[str, AnyValue]], trace_id: bytes, start: int):
    request = ExportTraceServiceRequest()
    span = (
        request.resource_spans.add()
        .scope_spans.add()
        .spans.add(trace_id=trace_id, span_id=b"12345678", name="n", kind=2, start_time_unix_nano=start)
    )
    for key, value in pairs:
        span.attributes.add(key=key).value.CopyFrom(value)
        span.events.add(name="e").attributes.add(key=key).value.array_value.values.append(value)
        span.links.add(trace_id=trace_id).attributes.add(key=key).value.kvlist_value.values.add(
            key="in"
        ).value.CopyFrom(value)
    document = with_hex_ids(json_format.MessageToDict(request, use_integers_for_enums=True))
    assert parse(json.dumps(document).encode(), ExportTraceServiceRequest()) == request
    snake = json_format.MessageToDict(request, use_integers_for_enums=True, preserving_proto_field_name=True)
    assert parse(json.dumps(with_hex_ids(snake)).encode(), ExportTraceServiceRequest()) == request


def test_numbers_as_texts_enums_by_name_and_unknown_keys():
    document = {
        "resourceMetrics": [{"scopeMetrics": [{"metrics": [{
            "name": "h", "future": {"a": [1]},
            "histogram": {
                "aggregationTemporality": "AGGREGATION_TEMPORALITY_DELTA",
                "dataPoints": [
                    {"count": "3", "sum": "NaN", "bucketCounts": ["1", 2], "explicitBounds": [0.5], "max": None}
                ],
            },
        }]}]}]
    }  # fmt: skip
    request = parse(json.dumps(document).encode(), ExportMetricsServiceRequest())
    histogram = request.resource_metrics[0].scope_metrics[0].metrics[0].histogram
    (point,) = histogram.data_points
    assert histogram.aggregation_temporality == 1
    assert (point.count, list(point.bucket_counts), list(point.explicit_bounds)) == (3, [1, 2], [0.5])
    assert math.isnan(point.sum)
    assert not point.HasField("max")


def test_real_triton_json_reads_like_protobuf_s_own_parser():
    body = gzip.decompress((FIXTURES / "triton" / "otlp_json_4_spans.json.gz").read_bytes())

    def to_base64(item: Any) -> Any:
        if isinstance(item, list):
            return [to_base64(one) for one in item]
        if isinstance(item, dict):
            ids = {"traceId", "spanId", "parentSpanId"}
            return {
                key: base64.b64encode(bytes.fromhex(one)).decode() if key in ids else to_base64(one)
                for key, one in item.items()
            }
        return item

    expected = json_format.ParseDict(to_base64(json.loads(body)), ExportTraceServiceRequest())
    assert parse(body, ExportTraceServiceRequest()) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"resourceSpans": {}}',
        b'{"resourceSpans": [3]}',
        b'{"resourceSpans": [{"resource": []}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": 3}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": 7}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "-1"}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"kind": "NO_SUCH"}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"kind": 1.5}]}]}]}',
        b"[" * 100_000,
    ],
)
def test_what_is_not_the_shape_is_refused(body: bytes):
    with pytest.raises(MalformedJsonError):
        parse(body, ExportTraceServiceRequest())


def test_an_id_that_is_not_hexadecimal_is_none_of_any_length():
    body = b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "%s", "spanId": "0g"}]}]}]}' % (b"z" * 16)
    span = parse(body, ExportTraceServiceRequest()).resource_spans[0].scope_spans[0].spans[0]
    assert span.trace_id == span.span_id == NO_ID
    assert len(NO_ID) not in {8, 16}
