"""Remote write's messages of both versions, and what they become in OTLP."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.decode import MalformedError
from collector.prometheus import wire
from collector.prometheus.otlp import converted

LIMIT = 1 << 24
STALE = struct.unpack("<d", (0x7FF0000000000002).to_bytes(8, "little"))[0]
NAMES = st.text(min_size=1, max_size=12)
LABELS = st.dictionaries(st.text(min_size=1, max_size=8).filter(lambda name: name != "__name__"), NAMES, max_size=4)
SERIES = st.lists(
    st.tuples(NAMES, LABELS, st.lists(st.tuples(st.floats(allow_nan=False), st.integers(10**12, 2 * 10**12)))),
    max_size=5,
)


def first(series: list[tuple[str, dict[str, str], list[tuple[float, int]]]]) -> bytes:
    """A request of version 1.0."""
    request = wire.WriteRequest()
    for name, labels, samples in series:
        one = request.timeseries.add()
        for key, value in {"__name__": name, **labels}.items():
            one.labels.add(name=key, value=value)
        for value, time_ms in samples:
            one.samples.add(value=value, timestamp=time_ms)
    body: bytes = request.SerializeToString()
    return body


def second(series: list[tuple[str, dict[str, str], list[tuple[float, int]]]], kind: int = 0) -> bytes:
    """The same in version 2.0."""
    request = wire.Request()
    symbols = {"": 0}
    for name, labels, samples in series:
        one = request.timeseries.add()
        for text in (text for pair in {"__name__": name, **labels}.items() for text in pair):
            one.labels_refs.append(symbols.setdefault(text, len(symbols)))
        one.metadata.type = kind
        for value, time_ms in samples:
            one.samples.add(value=value, timestamp=time_ms)
    request.symbols.extend(symbols)
    body: bytes = request.SerializeToString()
    return body


@given(SERIES)
def test_both_versions_say_the_same(series: list[tuple[str, dict[str, str], list[tuple[float, int]]]]) -> None:
    said = [
        [
            (one.name, dict(one.labels), [(sample.value, sample.timestamp) for sample in one.samples])
            for one in wire.read(body, second=is_second)
        ]
        for body, is_second in ((first(series), False), (second(series), True))
    ]
    assert said[0] == said[1] == [(name, labels, samples) for name, labels, samples in series]


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_or_refused(body: bytes, is_second: bool) -> None:
    with contextlib.suppress(MalformedError):
        converted(wire.read(body, second=is_second), LIMIT).request.SerializeToString()


@pytest.mark.parametrize(
    ("refs", "symbols", "told"),
    [
        ([1], ["", "a"], "odd length"),
        ([1, 7], ["", "__name__"], "among the 2 there are"),
        ([0, 1], ["x", "a"], "not the empty text"),
    ],
)
def test_a_table_of_symbols_must_hold_what_is_referred_to(refs: list[int], symbols: list[str], told: str) -> None:
    request = wire.Request()
    request.symbols.extend(symbols)
    request.timeseries.add().labels_refs.extend(refs)
    with pytest.raises(MalformedError, match=told):
        wire.read(request.SerializeToString(), second=True)


def points(body: bytes, *, is_second: bool = False) -> dict[str, Any]:
    """Metrics of the only target by name."""
    (group,) = converted(wire.read(body, second=is_second), LIMIT).request.resource_metrics
    return {metric.name: metric for metric in group.scope_metrics[0].metrics}


def test_what_grows_is_told_by_the_sender_else_by_its_name() -> None:
    at = [(3.0, 10**12)]
    named = points(first([("a_total", {}, at), ("b_bucket", {"le": "1"}, at), ("c", {}, at)]))
    assert {name: metric.WhichOneof("data") for name, metric in named.items()} == {
        "a_total": "sum", "b_bucket": "sum", "c": "gauge",
    }  # fmt: skip
    assert named["a_total"].sum.is_monotonic
    counter, gauge, summary = 1, 2, 5
    assert points(second([("c", {}, at)], counter), is_second=True)["c"].WhichOneof("data") == "sum"
    assert points(second([("a_total", {}, at)], gauge), is_second=True)["a_total"].WhichOneof("data") == "gauge"
    both = points(second([("q", {"quantile": "0.5"}, at), ("q_count", {}, at)], summary), is_second=True)
    assert [metric.WhichOneof("data") for metric in both.values()] == ["gauge", "sum"]


def test_a_target_is_a_resource_and_other_labels_stay() -> None:
    at = [(1.0, 10**12)]
    series = [("x", {"job": "chat", "instance": "a:1", "pod": "p"}, at), ("x", {"job": "chat", "instance": "b:1"}, at)]
    request = converted(wire.read(first(series), second=False), LIMIT).request
    assert [
        {pair.key: pair.value.string_value for pair in group.resource.attributes} for group in request.resource_metrics
    ] == [
        {"service.name": "chat", "service.instance.id": "a:1"},
        {"service.name": "chat", "service.instance.id": "b:1"},
    ]
    (point,) = request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points
    assert {pair.key: pair.value.string_value for pair in point.attributes} == {"pod": "p"}
    assert point.time_unix_nano == 10**18


def test_a_series_that_ended_is_no_value_and_a_nan_is_one() -> None:
    named = points(first([("x", {}, [(STALE, 10**12), (float("nan"), 10**12 + 1)]), ("y", {}, [(STALE, 10**12)])]))
    assert "y" not in named
    (point,) = named["x"].gauge.data_points
    assert point.as_double != point.as_double


def histogram(**fields: Any) -> Any:
    request = wire.WriteRequest()
    one = request.timeseries.add()
    one.labels.add(name="__name__", value="h")
    made = one.histograms.add(timestamp=10**12)
    for name in ("positive_deltas", "positive_counts", "custom_values"):
        getattr(made, name).extend(fields.pop(name, ()))
    for offset, length in fields.pop("positive_spans", ()):
        made.positive_spans.add(offset=offset, length=length)
    for name, value in fields.items():
        setattr(made, name, value)
    return points(request.SerializeToString())["h"]


def test_a_native_histogram_becomes_an_exponential_one() -> None:
    # buckets 1, 2 and, after one that is empty, 4 hold 3, 1 and 2: the specification's own example of deltas
    made = histogram(
        count_int=7, sum=9.5, schema=1, zero_count_int=1, zero_threshold=0.001,
        positive_spans=[(1, 2), (1, 1)], positive_deltas=[3, -2, 1],
    )  # fmt: skip
    (point,) = made.exponential_histogram.data_points
    assert (point.count, point.sum, point.scale, point.zero_count) == (7, 9.5, 1, 1)
    # (2^0, 2^0.5] is bucket 1 of Prometheus and bucket 0 of OpenTelemetry
    assert (point.positive.offset, list(point.positive.bucket_counts)) == (0, [3, 1, 0, 2])


def test_a_native_histogram_of_floats_and_one_with_listed_bounds() -> None:
    made = histogram(count_float=3.0, sum=1.0, schema=0, positive_spans=[(-1, 2)], positive_counts=[1.0, 2.0])
    (point,) = made.exponential_histogram.data_points
    assert (point.positive.offset, list(point.positive.bucket_counts)) == (-2, [1, 2])
    made = histogram(
        count_int=6, sum=4.0, schema=-53, custom_values=[0.1, 1.0], positive_spans=[(0, 1), (1, 1)],
        positive_deltas=[2, 2],
    )  # fmt: skip
    (plain,) = made.histogram.data_points
    assert (list(plain.explicit_bounds), list(plain.bucket_counts)) == ([0.1, 1.0], [2, 0, 4])


WHOLE = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.one_of(st.floats(), st.just(STALE))


@given(st.data())
def test_any_message_is_converted_or_refused_by_name(data: st.DataObject) -> None:
    request = wire.WriteRequest()
    for _ in range(data.draw(st.integers(0, 3))):
        one = request.timeseries.add()
        one.labels.add(name="__name__", value=data.draw(st.sampled_from(["x", "x_total", ""])))
        for _ in range(data.draw(st.integers(0, 2))):
            one.samples.add(value=data.draw(FLOATS), timestamp=data.draw(WHOLE))
        for _ in range(data.draw(st.integers(0, 2))):
            made = one.histograms.add(timestamp=data.draw(st.one_of(WHOLE, st.just(10**12))), sum=data.draw(FLOATS))
            made.schema = data.draw(st.sampled_from([-53, -5, 0, 3, 9, 2**31 - 1]))
            if data.draw(st.booleans()):
                made.count_int = data.draw(st.integers(0, 2**64 - 1))
            else:
                made.count_float = data.draw(FLOATS)
            made.zero_count_float = data.draw(FLOATS)
            for spans in (made.positive_spans, made.negative_spans):
                for _ in range(data.draw(st.integers(0, 3))):
                    spans.add(
                        offset=data.draw(st.integers(-(2**31), 2**31 - 1)), length=data.draw(st.integers(0, 2**32 - 1))
                    )
            made.positive_deltas.extend(data.draw(st.lists(WHOLE, max_size=3)))
            made.negative_counts.extend(data.draw(st.lists(FLOATS, max_size=3)))
            made.custom_values.extend(data.draw(st.lists(FLOATS, max_size=3)))
    made = converted(wire.read(request.SerializeToString(), second=False), LIMIT)
    assert bool(made.refused) == bool(made.told)
    kept = points_of(made.request.SerializeToString())
    whole = [sample for one in request.timeseries for sample in one.samples if not wire.stale(sample.value)]
    whole += [each for one in request.timeseries for each in one.histograms if not wire.stale(each.sum)]
    assert kept + made.refused == len(whole)


def points_of(body: bytes) -> int:
    """How many points the collector counts in a request."""
    return sum(
        len(getattr(metric, str(metric.WhichOneof("data"))).data_points)
        for group in ExportMetricsServiceRequest.FromString(body).resource_metrics
        for metric in group.scope_metrics[0].metrics
        if metric.WhichOneof("data")
    )


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"count_float": float("nan")}, "count is nan"),
        ({"count_float": -1.0}, "count is -1.0"),
        ({"positive_spans": [(-(2**31), 1)], "positive_deltas": [1]}, "bucket number"),
        ({"positive_spans": [(0, 2)], "positive_deltas": [1, -2]}, "-1 in it"),
        ({"schema": 9}, "none from -4 to 8"),
    ],
)
def test_a_histogram_that_can_not_be_is_told_and_its_neighbours_stay(fields: dict[str, Any], told: str) -> None:
    request = wire.WriteRequest()
    for odd in (True, False):
        one = request.timeseries.add()
        one.labels.add(name="__name__", value="h")
        made = one.histograms.add(timestamp=10**12)
        for name, value in (fields if odd else {}).items():
            if name == "positive_spans":
                for offset, length in value:
                    made.positive_spans.add(offset=offset, length=length)
            elif isinstance(value, list):
                getattr(made, name).extend(value)
            else:
                setattr(made, name, value)
    found = converted(wire.read(request.SerializeToString(), second=False), LIMIT)
    assert (found.refused, points_of(found.request.SerializeToString())) == (1, 1)
    assert told in found.told
    assert found.told.startswith("h: ")


def test_a_span_of_billions_takes_no_memory() -> None:
    made = histogram(
        count_int=2, sum=1.0, schema=0, positive_spans=[(0, 1), (2**29, 2**32 - 1)], positive_deltas=[1, 0]
    )
    (point,) = made.exponential_histogram.data_points
    assert len(point.positive.bucket_counts) == 1
