"""Samples, histograms, events and anybody's metrics and logs: what lands is what is stored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Signal
from tests.kits.schema_tools import (
    NOW_MS,
    RESOURCE,
    any_value,
    attributes,
    event,
    framed,
    fresh_store,
    metrics,
    token,
    traces,
)
from tests.kits.schema_tools import edge_span as span_with

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.store.client import Store
    from tests.conftest import StoreServer

TIME = datetime.fromtimestamp(NOW_MS / 1000, UTC)
BIG = 2**64 - 1


@pytest.fixture(scope="module")
def store(store_server: StoreServer) -> Iterator[Store]:
    with fresh_store(store_server) as made:
        yield made


def land(store: Store, table: str, *messages: Any) -> None:
    store.insert_segment(table, framed(*messages), token())


def sample(instance: str, **gauges: float) -> ExportMetricsServiceRequest:
    resource = RESOURCE | {"service.instance.id": instance, "servescope.model": "tiny", "servescope.dp_rank": "0"}
    sums = {name: 100.0 for name in Signal if name.endswith("_total") and name not in SIGNALS_WITHOUT_COLUMN}
    sums |= {f"{name.removesuffix('_total')}_delta": 3.0 for name in sums}
    return metrics("servescope.sample", {"up": 1.0, "interval_seconds": 1.0, **gauges}, sums, resource)


def test_every_signal_has_its_columns(store: Store):
    body = sample("all", running=3, waiting=2, kv_cache_usage_ratio=0.5, scrape_seconds=0.004)
    land(store, "land_metrics", body)
    (row,) = store.rows("SELECT * FROM engine_samples WHERE instance = 'all'")
    assert (row["time"], row["model"], row["dp_rank"], row["engine"], row["deployment"]) == (
        TIME,
        "tiny",
        "0",
        "vllm",
        "chat",
    )
    assert (row["up"], row["running"], row["waiting"], row["kv_cache_usage_ratio"]) == (1, 3, 2, 0.5)
    for signal in Signal:
        if signal.endswith("_total") and signal not in SIGNALS_WITHOUT_COLUMN:
            assert row[signal] == 100.0
            assert row[f"{signal.removesuffix('_total')}_delta"] == 3.0


def test_signals_without_a_column_lie_in_the_map(store: Store):
    gauges = {name: 2.0 for name in SIGNALS_WITHOUT_COLUMN if not name.endswith("_total")}
    totals = {name: 70.0 for name in SIGNALS_WITHOUT_COLUMN if name.endswith("_total")}
    deltas = {f"{name.removesuffix('_total')}_delta": 0.0 for name in totals}
    body = sample("mapped", running=1, **gauges)
    body.MergeFrom(
        metrics("servescope.sample", {"up": 1.0}, totals | deltas, RESOURCE | {"service.instance.id": "few"})
    )
    land(store, "land_metrics", body)
    (row,) = store.rows("SELECT * FROM engine_samples WHERE instance = 'mapped'")
    assert row["other_signals"] == gauges
    (row,) = store.rows("SELECT * FROM engine_samples WHERE instance = 'few'")
    assert row["other_signals"] == totals | deltas


def test_what_a_server_does_not_say_is_null_and_zero_is_zero(store: Store):
    land(
        store,
        "land_metrics",
        metrics(
            "servescope.sample",
            {"up": 1.0, "running": 0.0},
            {"requests_finished_total": 0.0},
            {"service.instance.id": "silent"},
        ),
    )
    (row,) = store.rows("SELECT * FROM engine_samples WHERE instance = 'silent'")
    assert (row["running"], row["requests_finished_total"]) == (0, 0)
    assert row["waiting"] is None
    assert row["requests_finished_delta"] is None
    land(store, "land_metrics", metrics("servescope.sample", {"up": 0.0}, resource={"service.instance.id": "down"}))
    assert store.rows("SELECT up FROM engine_samples WHERE instance = 'down'") == [{"up": 0}]


def test_samples_of_several_servers_in_one_request(store: Store):
    body = sample("m1", running=1)
    body.MergeFrom(sample("m2", running=2))
    land(store, "land_metrics", body, sample("m3", running=3))
    rows = store.rows(
        "SELECT instance, running FROM engine_samples WHERE match(instance, '^m[0-9]$') ORDER BY instance"
    )
    assert rows == [{"instance": f"m{n}", "running": n} for n in (1, 2, 3)]
    for kind in ("gauge", "sum", "histogram"):
        assert store.rows(f"SELECT count() AS n FROM otel_metrics_{kind} WHERE ScopeName LIKE 'servescope%'") == [
            {"n": 0}
        ]


def test_a_sample_delivered_twice_is_one_row(store: Store):
    body = sample("twice", running=1)
    land(store, "land_metrics", body)
    land(store, "land_metrics", body)
    assert store.rows("SELECT count() AS n FROM engine_samples FINAL WHERE instance = 'twice'") == [{"n": 1}]


def test_histograms_keep_bounds_and_increases(store: Store):
    body = sample("h", running=1)
    for name, total in (("ttft_seconds", 3), ("e2e_seconds", 2)):
        point = body.resource_metrics[0].scope_metrics[0].metrics.add(name=name).histogram.data_points.add()
        point.time_unix_nano = NOW_MS * 1_000_000
        point.count, point.sum = total, 0.9
        point.explicit_bounds.extend([0.1, 1.0])
        point.bucket_counts.extend([1, total - 1, 0])
    land(store, "land_metrics", body)
    rows = store.rows("SELECT * FROM engine_histograms WHERE instance = 'h' ORDER BY count")
    assert [(row["signal"], row["count"], row["counts"]) for row in rows] == [
        ("e2e_seconds", 2, [1, 1, 0]),
        ("ttft_seconds", 3, [1, 2, 0]),
    ]
    assert all((row["time"], row["sum"], row["bounds"]) == (TIME, 0.9, [0.1, 1.0]) for row in rows)
    # A histogram's name is no signal.
    assert store.rows("SELECT running, other_signals FROM engine_samples WHERE instance = 'h'") == [
        {"running": 1, "other_signals": {}}
    ]


def test_host_and_gpu_rows(store: Store):
    host = RESOURCE | {"process.name": "VLLM::EngineCore", "process.pid": 4711, "host.name": "n1"}
    land(
        store,
        "land_metrics",
        metrics(
            "servescope.host",
            {"rss_bytes": 5e9, "stopped": 1.0, "open_files": 812.0, "open_files_limit": 1024.0, "uptime_seconds": 90.0},
            {"cpu_seconds_total": 9.5},
            host,
        ),
    )
    (row,) = store.rows("SELECT * FROM host_samples WHERE node = 'n1'")
    assert (row["process_name"], row["process_pid"], row["node"], row["time"]) == (
        "VLLM::EngineCore",
        "4711",
        "n1",
        TIME,
    )
    assert (row["rss_bytes"], row["stopped"], row["cpu_seconds_total"], row["load1"]) == (5e9, 1, 9.5, None)
    assert (row["open_files"], row["open_files_limit"], row["uptime_seconds"]) == (812, 1024, 90)
    gpu = {"hw.id": "GPU-1", "hw.name": "H100", "hw.index": "0", "host.name": "n1"}
    land(
        store,
        "land_metrics",
        metrics("servescope.gpu", {"gpu_utilization_ratio": 0.75, "power_watts": 300.0}, None, gpu),
    )
    (row,) = store.rows("SELECT * FROM gpu_samples WHERE gpu = 'GPU-1'")
    assert (row["gpu"], row["gpu_name"], row["gpu_index"], row["gpu_utilization_ratio"]) == ("GPU-1", "H100", "0", 0.75)
    assert row["temperature_celsius"] is None


def gpu_row(store: Store, values: dict[str, float], more: dict[str, str], *, totals: dict[str, float] | None = None):
    gpu = {"hw.id": "GPU-7", "hw.name": "H100", "hw.index": "7", "host.name": "n7"}
    land(store, "land_metrics", metrics("servescope.gpu", values, totals, gpu | more))


def test_gpu_figures_come_by_opentelemetrys_names_and_reasons_by_their_own(store: Store):
    gpu_row(
        store,
        {
            "hw.gpu.utilization": 0.5,
            "hw.power": 90.0,
            "throttle_reasons": 0x44,
            "sm_active_ratio": 0.25,
            "xid_total": 1,
        },
        {"hw.parent": "GPU-1", "hw.driver_version": "580"},
        totals={"hw.energy": 7.5},
    )
    (row,) = store.rows("SELECT *, throttled_by FROM gpu_samples WHERE gpu = 'GPU-7'")
    assert (row["gpu_utilization_ratio"], row["power_watts"], row["energy_joules_total"]) == (0.5, 90.0, 7.5)
    assert (row["sm_active_ratio"], row["xid_total"], row["ecc_corrected_total"]) == (0.25, 1, None)
    assert (row["gpu_parent"], row["driver_version"]) == ("GPU-1", "580")
    assert row["throttled_by"] == ["power cap", "thermal (hardware)"]


def test_processes_on_a_gpu_are_rows_of_their_own_and_tell_whose_it_was(store: Store):
    process = RESOURCE | {"process.pid": "31", "process.name": "VLLM::Worker_TP1", "servescope.rank": "TP1"}
    gpu_row(store, {"process_memory_bytes": 5e9, "process_sm_ratio": 0.9}, process | {"hw.id": "GPU-8"})
    gpu_row(store, {"process_memory_bytes": 6e9}, process | {"hw.id": "GPU-8"})
    gpu_row(store, {"process_memory_bytes": 1e9}, {"process.pid": "32", "hw.id": "GPU-8"})
    assert store.rows("SELECT * FROM gpu_samples WHERE gpu = 'GPU-8'") == []
    rows = store.rows("SELECT process_pid, instance, rank, memory_bytes, sm_ratio FROM gpu_processes FINAL ORDER BY 1")
    assert [tuple(row.values()) for row in rows] == [("31", "vllm-a", "TP1", 6e9, None), ("32", "", "", 1e9, None)]
    assert store.rows("SELECT instance, rank, node, gpu, process_pid, `from`, `to` FROM instance_gpus") == [
        {
            "instance": "vllm-a",
            "rank": "TP1",
            "node": "n7",
            "gpu": "GPU-8",
            "process_pid": "31",
            "from": TIME,
            "to": TIME,
        }
    ], "a stranger's process is no instance"


def test_the_state_of_a_process_is_its_letter(store: Store):
    whose = RESOURCE | {"process.name": "x", "process.pid": "9", "host.name": "n9"}
    land(store, "land_metrics", metrics("servescope.host", {"state": float(ord("D")), "cores": 4.0}, None, whose))
    assert store.rows("SELECT state, cores, cgroup_oom_kills_total FROM host_samples WHERE node = 'n9'") == [
        {"state": "D", "cores": 4.0, "cgroup_oom_kills_total": None}
    ]


def test_events_and_configuration(store: Store):
    land(store, "land_logs", event("instance_down", "vllm-a does not answer.", {"since": 3, "ratio": 0.5}))
    land(store, "land_logs", event("instance_config", "", {"block_size": "16", "prefix_caching": True}))
    (row,) = store.rows("SELECT * FROM events WHERE event = 'instance_down'")
    assert (row["time"], row["event"], row["message"]) == (TIME, "instance_down", "vllm-a does not answer.")
    assert (row["instance"], row["model"], row["version"]) == ("vllm-a", "tiny", "0.32.0")
    assert row["attributes"] == {"since": "3", "ratio": "0.5"}
    (row,) = store.rows("SELECT * FROM instance_config")
    assert (row["instance"], row["engine"], row["config"]) == (
        "vllm-a",
        "vllm",
        {"block_size": "16", "prefix_caching": "true"},
    )
    assert store.rows("SELECT EventName, Body FROM otel_logs WHERE EventName = 'instance_down'") == [
        {"EventName": "instance_down", "Body": "vllm-a does not answer."}
    ]


def foreign(service: str = "shop") -> ExportMetricsServiceRequest:
    body = metrics("app", {"temperature": 21.5}, {"jobs_total": 4.0}, {"service.name": service, "tags": ["a", "b"]})
    scoped = body.resource_metrics[0].scope_metrics[0]
    scoped.scope.attributes.extend(attributes({"lib": "x"}))
    whole = scoped.metrics[0].gauge.data_points.add(as_int=-7, time_unix_nano=NOW_MS * 1_000_000, flags=1)
    whole.attributes.extend(attributes({"room": "b", "floors": [1, 2]}))
    whole.exemplars.add(as_double=0.5, trace_id=b"\x01" * 16, span_id=b"\x02" * 8, time_unix_nano=NOW_MS * 1_000_000)
    one = scoped.metrics.add(name="latency", unit="s").histogram
    one.aggregation_temporality = 2
    one.data_points.add(
        count=3, sum=1.5, min=0.1, max=1.0, bucket_counts=[1, 2], explicit_bounds=[0.5], time_unix_nano=1
    )
    two = scoped.metrics.add(name="sizes").exponential_histogram
    point = two.data_points.add(count=4, sum=9.0, scale=-2, zero_count=1, time_unix_nano=1)
    point.positive.offset, point.negative.offset = -3, 4
    point.positive.bucket_counts.extend([1, 2])
    three = scoped.metrics.add(name="old").summary.data_points.add(count=2, sum=3.0, time_unix_nano=1)
    three.quantile_values.add(quantile=0.5, value=1.25)
    return body


def test_anybodys_metrics_have_the_exporters_rows(store: Store):
    land(store, "land_metrics", foreign())
    rows = store.rows("SELECT * FROM otel_metrics_gauge WHERE ServiceName = 'shop' ORDER BY Value")
    assert [(row["MetricName"], row["Value"], row["Attributes"]) for row in rows] == [
        ("temperature", -7.0, {"room": "b", "floors": "[1,2]"}),
        ("temperature", 21.5, {}),
    ]
    assert rows[0]["Flags"] == 1
    assert rows[0]["Exemplars.Value"] == [0.5]
    assert rows[0]["Exemplars.TraceId"] == ["01" * 16]
    assert rows[0]["ScopeAttributes"] == {"lib": "x"}
    assert rows[0]["ResourceAttributes"] == {"service.name": "shop", "tags": '["a","b"]'}
    (row,) = store.rows("SELECT * FROM otel_metrics_sum WHERE ServiceName = 'shop'")
    assert (row["Value"], row["IsMonotonic"], row["AggregationTemporality"]) == (4.0, True, 2)
    (row,) = store.rows("SELECT * FROM otel_metrics_histogram WHERE ServiceName = 'shop'")
    assert (row["Count"], row["Sum"], row["Min"], row["Max"], row["MetricUnit"]) == (3, 1.5, 0.1, 1.0, "s")
    assert (row["BucketCounts"], row["ExplicitBounds"], row["AggregationTemporality"]) == ([1, 2], [0.5], 2)
    (row,) = store.rows("SELECT * FROM otel_metrics_exponential_histogram WHERE ServiceName = 'shop'")
    assert (row["Scale"], row["ZeroCount"], row["PositiveOffset"], row["NegativeOffset"]) == (-2, 1, -3, 4)
    assert row["PositiveBucketCounts"] == [1, 2]
    (row,) = store.rows("SELECT * FROM otel_metrics_summary WHERE ServiceName = 'shop'")
    assert (row["Count"], row["ValueAtQuantiles.Quantile"], row["ValueAtQuantiles.Value"]) == (2, [0.5], [1.25])


def test_a_span_has_the_exporters_row(store: Store):
    span = span_with(deep={"a": 1}, flags=[True, False])
    span.status.code, span.status.message = 2, "late"
    span.events.add(time_unix_nano=NOW_MS * 1_000_000, name="e", attributes=attributes({"n": 1}))
    span.links.add(trace_id=b"\x03" * 16, span_id=b"\x04" * 8, trace_state="s", attributes=attributes({"l": True}))
    land(store, "land_traces", traces([span], "app", {"service.name": "shop"}))
    (row,) = store.rows("SELECT * FROM otel_traces WHERE ServiceName = 'shop'")
    assert (row["SpanKind"], row["StatusCode"], row["StatusMessage"], row["Duration"]) == (
        "Server",
        "Error",
        "late",
        140_000_000,
    )
    assert (row["SpanId"], row["ScopeName"], row["Timestamp"]) == (span.span_id.hex(), "app", TIME)
    assert (row["SpanAttributes"]["deep"], row["SpanAttributes"]["flags"]) == ('{"a":1}', "[true,false]")
    assert (row["SpanAttributes"]["servescope.edge_seconds"], row["SpanAttributes"]["gen_ai.usage.input_tokens"]) == (
        "0.001",
        "20",
    )
    assert (row["Events.Name"], row["Events.Timestamp"], row["Events.Attributes"]) == (["e"], [TIME], [{"n": "1"}])
    assert (row["Links.TraceId"], row["Links.SpanId"], row["Links.Attributes"]) == (
        ["03" * 16],
        ["04" * 8],
        [{"l": "true"}],
    )
    stamps = store.rows(
        "SELECT Start, End FROM otel_traces_trace_id_ts WHERE TraceId = {t:String}", {"t": span.trace_id.hex()}
    )
    assert stamps == [{"Start": TIME.replace(microsecond=0), "End": TIME.replace(microsecond=0)}]


def test_odd_metrics_and_logs_throw_in_no_view(store: Store):
    empty = ExportMetricsServiceRequest()
    empty.resource_metrics.add().scope_metrics.add().metrics.add(name="nothing")
    odd = foreign("odd")
    odd.resource_metrics[0].scope_metrics[0].scope.name = "servescope.sample"
    odd.resource_metrics[0].scope_metrics[0].metrics[1].sum.data_points[0].as_double = float("nan")
    late = metrics(
        "servescope.sample", {"up": float("inf"), "running": float("nan")}, resource={"service.instance.id": "odd"}
    )
    for metric in late.resource_metrics[0].scope_metrics[0].metrics:
        metric.gauge.data_points[0].time_unix_nano = BIG
    uneven = foreign("odd")
    point = uneven.resource_metrics[0].scope_metrics[0].metrics[2].histogram.data_points[0]
    point.time_unix_nano, point.count = BIG, BIG
    del point.explicit_bounds[:]
    land(store, "land_metrics", empty, odd, late, uneven)
    logs = ExportLogsServiceRequest()
    scoped = logs.resource_logs.add().scope_logs.add()
    scoped.scope.name = "servescope.event"
    scoped.log_records.add()
    scoped.log_records.add(
        time_unix_nano=BIG, severity_number=-1, trace_id=b"x", body=any_value({"k": [1]}), flags=2**32 - 1
    )
    scoped.log_records.add(observed_time_unix_nano=NOW_MS * 1_000_000, body=any_value([1, "b"]), event_name="note")
    land(store, "land_logs", logs)
    rows = store.rows("SELECT event, message FROM events WHERE event = 'note'")
    assert rows == [{"event": "note", "message": '[1,"b"]'}]
    assert store.rows("SELECT running FROM engine_samples WHERE instance = 'odd'") == [{"running": None}]
