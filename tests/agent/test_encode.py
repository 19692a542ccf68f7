from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_INFO, SEVERITY_NUMBER_WARN
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric, ResourceMetrics

from agent.engine_table import detect
from agent.otlp.encode import Moment, SampleEncoder, attributes, encode_event, encode_gauges, resource
from agent.pages.page import PageReader
from agent.pages.samples import EngineSample, Increase, Key, Sampler
from agent.target import Place, Target
from base.vocabulary import Distribution, Signal

FIXTURES = Path(__file__).parents[1] / "fixtures"
TARGET = Target("vllm-a", "chat", "vllm", "http://127.0.0.1:8000")
PLACE = Place(region="eu-west-1", node="n1")
MOMENT = Moment(2_000_000_000, 1_000_000_000, 0.25)


def decode(body: bytes, *, canonical: bool = True) -> list[ResourceMetrics]:
    request = ExportMetricsServiceRequest.FromString(body)
    if canonical:
        assert request.SerializeToString() == body  # nothing unknown, nothing out of order
    return list(request.resource_metrics)


def labels(one: ResourceMetrics) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in one.resource.attributes}


def metrics(one: ResourceMetrics) -> dict[str, Metric]:
    (scope,) = one.scope_metrics
    assert len({metric.name for metric in scope.metrics}) == len(scope.metrics)
    return {metric.name: metric for metric in scope.metrics}


@pytest.mark.parametrize("engine", ["vllm", "triton"])
def test_recorded_pages_arrive_value_by_value(engine: str):
    paths = sorted(FIXTURES.glob(f"{engine}/metrics_busy_*.txt.gz"))
    reader = PageReader()
    pages = [reader.read(gzip.decompress(path.read_bytes())) for path in paths]
    sampler = Sampler(detect(pages[0]))
    runs = [sampler.sample(page).samples for page in pages]
    encoder = SampleEncoder(attributes(TARGET, PLACE, "0.32.0"))
    for _, samples in pairwise(runs):
        rows = decode(encoder.encode(samples, MOMENT))
        assert len(rows) == len(samples)
        for row, sample in zip(rows, samples, strict=True):
            assert row.scope_metrics[0].scope.name == "servescope.sample"
            assert labels(row)["servescope.model"] == sample.key.model
            assert labels(row).get("servescope.dp_rank", "") == sample.key.dp_rank
            found = metrics(row)
            for name, value in sample.gauges.items():
                (point,) = found.pop(name).gauge.data_points
                assert (point.as_double, point.time_unix_nano) == (value, 2_000_000_000)
            for name, value in sample.totals.items():
                total = found.pop(name).sum
                (point,) = total.data_points
                assert (point.as_double, point.time_unix_nano) == (value, 2_000_000_000)
                assert total.is_monotonic
                assert total.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
            assert len(sample.deltas) == len(sample.totals)
            for name, value in sample.deltas.items():
                delta = found.pop(name.removesuffix("_total") + "_delta").sum
                (point,) = delta.data_points
                assert (point.as_double, point.time_unix_nano) == (value, 2_000_000_000)
                assert point.start_time_unix_nano == 1_000_000_000
                assert delta.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
            for one in sample.histograms:
                histogram = found.pop(one.distribution).histogram
                (bucket,) = histogram.data_points
                assert histogram.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
                assert tuple(bucket.bucket_counts) == one.counts
                assert tuple(bucket.explicit_bounds) == one.bounds
                assert (bucket.count, bucket.sum) == (one.count, one.total)
                assert (bucket.start_time_unix_nano, bucket.time_unix_nano) == (1_000_000_000, 2_000_000_000)
            own = {name: metric.gauge.data_points[0].as_double for name, metric in found.items()}
            assert own == {"up": 1, "scrape_seconds": 0.25, "interval_seconds": 1}


def test_resource_has_what_is_known_and_no_empty_attribute():
    encoder = SampleEncoder(attributes(TARGET, PLACE))
    (row,) = decode(encoder.encode([EngineSample(Key("", ""), {Signal.RUNNING: 1.0}, {}, {})], MOMENT))
    assert labels(row) == {
        "service.name": "chat",
        "service.instance.id": "vllm-a",
        "servescope.engine": "vllm",
        "servescope.role": "both",
        "cloud.region": "eu-west-1",
        "host.name": "n1",
    }


def test_first_sample_has_no_interval():
    encoder = SampleEncoder({})
    (row,) = decode(encoder.encode([EngineSample(Key("m", "0"), {}, {}, {})], Moment(5)))
    assert set(metrics(row)) == {"up", "scrape_seconds"}


def test_a_failed_scrape_is_up_zero_for_each_model_and_nothing_else():
    rows = decode(SampleEncoder({}).encode_down([Key("a", "0"), Key("a", "1")], Moment(5)))
    assert [labels(row)["servescope.dp_rank"] for row in rows] == ["0", "1"]
    for row in rows:
        (only,) = metrics(row).values()
        assert (only.name, only.gauge.data_points[0].as_double) == ("up", 0)


TIMES = st.integers(0, 2**63)
FINITE = st.floats(allow_nan=False)


@settings(max_examples=150, deadline=None)
@given(
    gauges=st.dictionaries(st.sampled_from([one for one in Signal if not one.endswith("_total")]), FINITE),
    totals=st.dictionaries(st.sampled_from([one for one in Signal if one.endswith("_total")]), FINITE),
    gains=st.lists(FINITE, max_size=20),
    counts=st.lists(st.integers(0, 2**40), min_size=1, max_size=40),
    model=st.text(max_size=300),
    time_ns=TIMES,
    start_ns=TIMES,
)
def test_any_sample_decodes_to_itself(
    gauges: dict[Signal, float],
    totals: dict[Signal, float],
    gains: list[float],
    counts: list[int],
    model: str,
    time_ns: int,
    start_ns: int,
):
    deltas = dict(zip(totals, gains, strict=False))
    bounds = tuple(float(number) for number in range(len(counts) - 1))
    increase = Increase(Distribution.TTFT_SECONDS, bounds, tuple(counts), sum(counts), 1.5)
    sample = EngineSample(Key(model, ""), gauges, totals, deltas, (increase,))
    # A serialiser leaves zeros and empty lists out, which a fixed layout writes.
    (row,) = decode(SampleEncoder({}).encode([sample], Moment(time_ns, start_ns)), canonical=False)
    assert labels(row) == ({"servescope.model": model} if model else {})
    found = metrics(row)
    for name, value in {**gauges, **totals}.items():
        metric = found[name]
        (point,) = (metric.gauge if metric.HasField("gauge") else metric.sum).data_points
        assert (point.as_double, point.time_unix_nano) == (value, time_ns)
    for name, value in deltas.items():
        (point,) = found[name.removesuffix("_total") + "_delta"].sum.data_points
        assert (point.as_double, point.start_time_unix_nano) == (value, start_ns)
    (point,) = found["ttft_seconds"].histogram.data_points
    assert list(point.bucket_counts) == counts


def test_gauge_rows():
    whose = [resource({"process.name": "host"}), resource({"process.name": "VLLM::EngineCore", "process.pid": "7"})]
    body = encode_gauges(
        [(whose[0], {"load1": 1.5}), (whose[1], {"threads": 3.0, "stopped": 1.0})], "servescope.host", 9
    )
    first, second = decode(body)
    assert labels(second) == {"process.name": "VLLM::EngineCore", "process.pid": "7"}
    assert first.scope_metrics[0].scope.name == "servescope.host"
    assert {name: one.gauge.data_points[0].as_double for name, one in metrics(second).items()} == {
        "threads": 3,
        "stopped": 1,
    }


def test_events():
    body = encode_event(
        {"service.instance.id": "a"}, "instance_down", "a is down", 9, {"reason": "refused"}, warning=True
    )
    (logs,) = ExportLogsServiceRequest.FromString(body).resource_logs
    (scope,) = logs.scope_logs
    (record,) = scope.log_records
    assert labels(logs) == {"service.instance.id": "a"}
    assert scope.scope.name == "servescope.event"
    assert (record.event_name, record.body.string_value, record.time_unix_nano) == ("instance_down", "a is down", 9)
    assert record.observed_time_unix_nano == 9
    assert [(pair.key, pair.value.string_value) for pair in record.attributes] == [("reason", "refused")]
    assert (record.severity_text, record.severity_number) == ("WARN", SEVERITY_NUMBER_WARN)


def test_an_event_is_byte_by_byte_what_protobuf_makes_of_it():
    for size in (1, 127, 128, 1_999):
        body = encode_event({"a": "b"}, "e", "ü" * size, 1 << 60, {"k": "", "l": "v" * size})
        request = ExportLogsServiceRequest.FromString(body)
        assert request.SerializeToString(deterministic=True) == body
        assert request.resource_logs[0].scope_logs[0].log_records[0].severity_number == SEVERITY_NUMBER_INFO
