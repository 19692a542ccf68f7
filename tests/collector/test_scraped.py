"""What others scraped becomes the samples that an agent would have made of the same pages."""

from __future__ import annotations

import random
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA

from agent.engine_table import detect
from agent.otlp.encode import Moment
from agent.pages.follow import Follower
from agent.pages.page import parse
from agent.pages.samples import Sampler
from collector.auth import NOBODY, Sender
from collector.ledger import Ledger
from collector.prometheus import wire
from collector.scraped import derive
from collector.scraped.derive import Deriver
from collector.scraped.series import groups
from tests.kits.scraped import (
    SECOND,
    START,
    WHOSE,
    Taker,
    by_agent,
    clock,
    page,
    rounds,
    sent,
    settled,
    told,
    waited,
    written,
)

__all__ = ["clock"]


@pytest.mark.parametrize("shards", [1, 3])
async def test_samples_are_those_of_an_agent(clock: list[float], shards: int) -> None:
    seen = [(START + index * SECOND, page(name)) for index, name in enumerate(("idle", "busy_02", "busy_04", "after"))]
    taker, drawn = Taker(), random.Random(7)
    deriver = Deriver(taker, Ledger())  # type: ignore[arg-type]
    for one in seen:
        series = written([one])
        drawn.shuffle(series)
        for shard in range(shards):
            deriver.look(sent(series[shard::shards]), NOBODY)
        await waited(deriver, clock)
    ours = told(body for signal, body, _ in taker.taken if signal == "metrics")
    assert ours == by_agent(seen)
    assert len(ours) == len(seen)


async def test_an_hour_that_comes_at_once_and_out_of_step_makes_each_sample_once(clock: list[float]) -> None:
    names = ("idle", "busy_02", "busy_04", "after")
    seen = [(START + index * SECOND, page(names[index // 6])) for index in range(24)]
    taker = Taker()
    ledger = Ledger()
    deriver = Deriver(taker, ledger)  # type: ignore[arg-type]
    # a shard holds some of the series; one is far ahead of the other
    shards = [[written([one])[half::2] for one in seen] for half in range(2)]
    order = [(0, at) for at in range(8)]
    order += [pair for at in range(8, 24) for pair in ((0, at), (1, at - 8))] + [(1, at) for at in range(16, 24)]
    for half, at in order:
        deriver.look(sent(shards[half][at]), NOBODY)
        clock[0] += 0.1
        await rounds(deriver)
    await waited(deriver, clock)
    ours = told(body for signal, body, _ in taker.taken if signal == "metrics")
    assert [time_ns for time_ns, _, _ in ours] == [time_ns for time_ns, _ in seen]
    assert ours == by_agent(seen)
    assert ledger.derive_late._value.get() == 0  # type: ignore[attr-defined]


async def test_a_target_that_can_not_be_scraped_is_down(clock: list[float]) -> None:
    taker = Taker()
    deriver = Deriver(taker, Ledger())  # type: ignore[arg-type]
    deriver.look(sent(written([(START, page("idle"))])), NOBODY)
    await waited(deriver, clock)
    deriver.look(sent(written([(START + SECOND, parse("# nothing\n"))], up=0.0)), NOBODY)
    await settled(deriver, clock)
    samples = told(body for signal, body, _ in taker.taken if signal == "metrics")
    assert [values["up"] for _, _, values in samples] == [1.0, 0.0]
    events = [
        record.event_name
        for signal, body, _ in taker.taken
        if signal == "logs"
        for group in ExportLogsServiceRequest.FromString(body).resource_logs
        for record in group.scope_logs[0].log_records
    ]
    assert events == ["instance_up", "instance_config", "instance_down"]


async def test_other_exporters_and_our_own_samples_are_passed_over(clock: list[float]) -> None:
    taker = Taker()
    deriver = Deriver(taker, Ledger())  # type: ignore[arg-type]
    deriver.look(sent(written([(START, parse("node_load1 1\n"))])), NOBODY)
    sample: list[bytes] = []
    one = page("busy_02")
    sampler = Sampler(detect(one))
    Follower("a:1", WHOSE).page(
        one, sampler.sample(one), None, Moment(START), lambda kind, body: kind == "metrics" and sample.append(body)
    )
    deriver.look(sample[0], NOBODY)
    await waited(deriver, clock)
    assert taker.taken == []


async def test_histograms_of_opentelemetry_are_pages_too(clock: list[float]) -> None:
    request = ExportMetricsServiceRequest()
    taker = Taker()
    deriver = Deriver(taker, Ledger())  # type: ignore[arg-type]
    for turn in range(2):
        request = ExportMetricsServiceRequest()
        group = request.resource_metrics.add()
        for key, value in (("service.name", "chat"), ("service.instance.id", "a:1"), ("k8s.pod.name", "p-0")):
            group.resource.attributes.add(key=key).value.string_value = value
        metrics = group.scope_metrics.add().metrics
        at = START + turn * SECOND

        def point(points: Any, at: int = at, **fields: Any) -> Any:
            made = points.add(time_unix_nano=at, **fields)
            made.attributes.add(key="model_name").value.string_value = "tiny"
            made.attributes.add(key="engine").value.int_value = 0
            return made

        point(metrics.add(name="vllm:num_requests_running").gauge.data_points, as_int=3)
        point(metrics.add(name="vllm:prompt_tokens_total").sum.data_points, as_double=100.0 + 5 * turn)
        ended = point(metrics.add(name="vllm:num_requests_waiting").gauge.data_points, flags=1)
        assert ended.flags == 1
        point(
            metrics.add(name="vllm:e2e_request_latency_seconds").histogram.data_points,
            count=4 + turn, sum=2.0 + turn, explicit_bounds=[0.3, 1.0], bucket_counts=[1, 2, 1 + turn],
        )  # fmt: skip
        deriver.look(request.SerializeToString(), NOBODY)
        await waited(deriver, clock)
    await settled(deriver, clock)
    first, second = told(body for signal, body, _ in taker.taken if signal == "metrics")
    assert first[1] == {
        "service.name": "chat", "service.instance.id": "a:1", "k8s.pod.name": "p-0", "servescope.engine": "vllm",
        "servescope.model": "tiny", "servescope.dp_rank": "0",
    }  # fmt: skip
    assert (second[2]["running"], second[2]["prompt_tokens_delta"]) == (3.0, 5.0)
    assert "waiting" not in second[2]
    assert second[2]["e2e_seconds"] == (1.0, [0, 0, 1])


async def test_two_senders_with_the_same_target_are_two(clock: list[float]) -> None:
    taker = Taker()
    deriver = Deriver(taker, Ledger())  # type: ignore[arg-type]
    for tenant in ("a7", "b8"):
        deriver.look(sent(written([(START, page("idle"))])), Sender("", tenant, ""))
    await waited(deriver, clock)
    assert [sender.tenant for signal, _, sender in taker.taken if signal == "metrics"] == ["a7", "b8"]


async def test_a_busy_log_is_asked_again_and_what_waits_is_bounded(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derive, "_MOST_WAITING", 2)
    taker = Taker()
    taker.busy = True
    ledger = Ledger()
    deriver = Deriver(taker, ledger)  # type: ignore[arg-type]
    for turn in range(3):
        deriver.look(sent(written([(START + turn * SECOND, page("idle"))])), NOBODY)
        await waited(deriver, clock)
    taker.busy = False
    await rounds(deriver)
    assert [time_ns for time_ns, _, _ in told(body for _, body, _ in taker.taken)] == [
        START + SECOND, START + 2 * SECOND,
    ]  # fmt: skip
    assert ledger.derive_dropped._value.get() == 3  # type: ignore[attr-defined] # two events and a sample


async def test_series_that_are_remembered_are_bounded(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derive, "_MOST_SERIES", 1)
    taker = Taker()
    deriver = Deriver(taker, Ledger())  # type: ignore[arg-type]
    deriver.look(sent(written([(START, page("idle"))])), NOBODY)
    await waited(deriver, clock)
    assert taker.taken == []


async def test_what_is_under_way_is_handed_on_at_the_end(clock: list[float]) -> None:
    taker = Taker()
    deriver = Deriver(taker, Ledger())  # type: ignore[arg-type]
    deriver.look(sent(written([(START, page("idle"))])), NOBODY)
    await rounds(deriver)
    assert taker.taken == []
    await deriver.finish()
    assert [signal for signal, _, _ in taker.taken] == ["logs", "logs", "metrics"]


COUNTER = "vllm:prompt_tokens_total"


def counted(at: int, value: float, **labels: str) -> bytes:
    """A page of one gauge and one counter."""
    series = []
    for name, one in (("vllm:num_requests_running", 1.0), (COUNTER, value)):
        written_one = wire.WriteRequest().timeseries.add()
        told = {"__name__": name, "job": "chat", "instance": "a:1", "model_name": "m", **labels}
        for label, text in told.items():
            written_one.labels.add(name=label, value=text)
        written_one.samples.add(value=one, timestamp=(START + at * SECOND) // 1_000_000)
        series.append(written_one)
    return sent(series)


async def taken(clock: list[float], *bodies: bytes, ledger: Ledger | None = None) -> list[dict[str, Any]]:
    """Values of the samples that requests become, each of which is waited for."""
    taker = Taker()
    deriver = Deriver(taker, ledger or Ledger())  # type: ignore[arg-type]
    for body in bodies:
        deriver.look(body, NOBODY)
        await waited(deriver, clock)
    return [values for _, _, values in told(body for signal, body, _ in taker.taken if signal == "metrics")]


def gains(samples: list[dict[str, Any]]) -> list[float | None]:
    return [values.get("prompt_tokens_delta") for values in samples]


async def test_what_is_seen_for_the_first_time_is_no_increase(clock: list[float]) -> None:
    """A first page may have come in part, and a scraper's labels may change: a counter did not begin for that."""
    first = wire.WriteRequest().timeseries.add()
    for label, text in {"__name__": "vllm:num_requests_running", "job": "chat", "instance": "a:1"}.items():
        first.labels.add(name=label, value=text)
    first.samples.add(value=1.0, timestamp=START // 1_000_000)
    found = await taken(clock, sent([first]), counted(1, 1e6), counted(2, 1e6 + 5), counted(3, 1e6 + 7, region="eu"))
    assert gains(found) == [None, None, 5.0, None]


async def test_of_two_scrapers_of_a_target_one_is_followed(clock: list[float]) -> None:
    bodies = [
        counted(second, 100.0 + second, prometheus_replica=replica) for second in range(4) for replica in ("r0", "r1")
    ]
    found = await taken(clock, *bodies)
    assert gains(found) == [None, 1.0, 1.0, 1.0]
    # the other takes over when it falls silent
    clock[0] += 100
    alone = [counted(second, 100.0 + second, replica="r0") for second in range(2)]
    later = [counted(100 + second, 200.0 + second, replica="r1") for second in range(3)]
    taker = Taker()
    deriver = Deriver(taker, Ledger())  # type: ignore[arg-type]
    for body in alone:
        deriver.look(body, NOBODY)
        await rounds(deriver)
    clock[0] += 61
    for body in later:
        deriver.look(body, NOBODY)
        await waited(deriver, clock)
    assert gains([v for _, _, v in told(body for signal, body, _ in taker.taken if signal == "metrics")])[-2:] == [1, 1]


async def test_a_page_of_the_future_makes_no_other_late(clock: list[float]) -> None:
    ledger = Ledger()
    found = await taken(clock, counted(0, 1.0), counted(10**8, 2.0), counted(1, 3.0), counted(2, 5.0), ledger=ledger)
    assert gains(found) == [None, 2.0, 2.0]
    assert ledger.derive_late._value.get() == 2  # type: ignore[attr-defined]


async def test_targets_and_what_is_not_read_are_bounded(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derive, "_MOST_TARGETS", 3)
    ledger = Ledger()
    deriver = Deriver(Taker(), ledger)  # type: ignore[arg-type]
    for number in range(10):
        request = ExportMetricsServiceRequest()
        group = request.resource_metrics.add()
        group.resource.attributes.add(key="service.instance.id").value.string_value = f"i{number}"
        group.scope_metrics.add().metrics.add(name="vllm:num_requests_running").gauge.SetInParent()
        deriver.look(request.SerializeToString(), NOBODY)
    await rounds(deriver)
    assert len(deriver._targets) == 3
    assert ledger.derive_dropped._value.get() == 7  # type: ignore[attr-defined]
    clock[0] += 3601
    await rounds(deriver)
    assert not deriver._targets
    monkeypatch.setattr(derive, "_MOST_BYTES", 10)
    deriver.look(counted(0, 1.0), NOBODY)
    assert ledger.derive_dropped._value.get() == 8  # type: ignore[attr-defined]


async def test_changes_of_a_level_and_what_has_ended_are_passed_over(clock: list[float]) -> None:
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    group.resource.attributes.add(key="service.instance.id").value.string_value = "t"
    metrics = group.scope_metrics.add().metrics
    metrics.add(name="nv_inference_pending_request_count").gauge.data_points.add(time_unix_nano=START, as_double=4)
    summed = metrics.add(name="nv_inference_count").sum
    summed.aggregation_temporality = AGGREGATION_TEMPORALITY_DELTA
    summed.data_points.add(time_unix_nano=START, as_double=9)
    ended = metrics.add(name="nv_inference_request_summary_us").summary
    ended.data_points.add(time_unix_nano=START, flags=1)
    (found,) = await taken(clock, request.SerializeToString())
    assert found["waiting"] == 4
    assert not {"inferences_total", "requests_finished_total"} & found.keys()


def test_bounds_of_buckets_keep_their_digits() -> None:
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    group.resource.attributes.add(key="service.instance.id").value.string_value = "a"
    point = group.scope_metrics.add().metrics.add(name="h").histogram.data_points.add(count=2, bucket_counts=[1, 1, 0])
    point.explicit_bounds.extend([1048576.0, 1048577.0])
    (found,) = groups(request)
    assert [one.labels["le"] for one in found.points() if one.name == "h_bucket"] == ["1048576.0", "1048577.0", "+Inf"]
