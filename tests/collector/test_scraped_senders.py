"""What real OpenTelemetry senders write of a vLLM page, read as the page: recorded payloads."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.auth import NOBODY
from collector.ledger import Ledger
from collector.scraped import derive
from collector.scraped.derive import Deriver
from collector.scraped.series import groups
from tests.kits.scraped import FIXTURES, START, Taker, by_agent, clock, page, settled, told, waited

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["clock"]
PROMOTEL = [
    gzip.decompress((FIXTURES / "otlp_senders" / f"promotel_0.2.2_vllm_{one}.pb.gz").read_bytes())
    for one in range(1, 5)
]
"""Four scrapes by `promotel` of pages idle, busy_02, busy_04 and after: each series with the time at which it was read,
a resource that names the service alone, histograms with one bucket."""


@pytest.fixture
def then(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock when they were recorded."""
    first = max(point.time_ns for group in parsed(PROMOTEL[0]) for point in group.points())
    monkeypatch.setattr(derive.time, "time_ns", lambda: first + int((clock[0] - 1000.0) * 1e9))
    return clock


def parsed(body: bytes) -> list[Any]:
    return list(groups(ExportMetricsServiceRequest.FromString(body)))


async def taken(clock: list[float], bodies: Iterable[bytes], ledger: Ledger | None = None) -> list[Any]:
    taker = Taker()
    deriver = Deriver(taker, ledger or Ledger())  # type: ignore[arg-type]
    for body in bodies:
        deriver.look(body, NOBODY)
        await waited(deriver, clock)
    await settled(deriver, clock)
    return told(body for signal, body, _ in taker.taken if signal == "metrics")


def changed(body: bytes, **resource: str) -> bytes:
    """With other attributes of the resource; empty ones are left out."""
    request = ExportMetricsServiceRequest.FromString(body)
    attributes = request.resource_metrics[0].resource.attributes
    known = {pair.key: pair.value.string_value for pair in attributes} | {
        name.replace("_", "."): value for name, value in resource.items()
    }
    del attributes[:]
    for name, value in known.items():
        if value:
            attributes.add(key=name).value.string_value = value
    return request.SerializeToString()


def without(body: bytes, *names: str) -> bytes:
    request = ExportMetricsServiceRequest.FromString(body)
    for scope in request.resource_metrics[0].scope_metrics:
        kept = [one for one in scope.metrics if one.name not in names]
        del scope.metrics[:]
        scope.metrics.extend(kept)
    return request.SerializeToString()


async def test_series_that_are_stamped_one_after_the_other_are_one_page(then: list[float]) -> None:
    ours = await taken(then, PROMOTEL)
    agents = by_agent([(START + at, page(name)) for at, name in enumerate(("idle", "busy_02", "busy_04", "after"))])
    assert len(ours) == len(agents)
    for (_, whose, values), (_, _, expected) in zip(ours, agents, strict=True):
        assert (whose["service.name"], whose["service.instance.id"], whose["servescope.engine"]) == (
            "chat", "chat", "vllm",
        )  # fmt: skip
        numbers = {name: value for name, value in expected.items() if isinstance(value, float)}
        del numbers["scrape_seconds"]  # nobody tells it
        numbers.pop("interval_seconds", None)
        assert {name: values.get(name) for name in numbers} == pytest.approx(numbers)


async def test_a_histogram_of_one_bucket_is_no_distribution(then: list[float]) -> None:
    names = {point.name for body in PROMOTEL for group in parsed(body) for point in group.points()}
    assert "vllm:e2e_request_latency_seconds_count" in names
    assert not any(name.endswith("_bucket") for name in names)
    assert all(isinstance(value, float) for _, _, values in await taken(then, PROMOTEL) for value in values.values())


async def test_two_processes_under_one_name_are_two(then: list[float]) -> None:
    """A sender that names no instance says of two replicas that they are one: each counts for itself all the same."""
    other = [body.replace(b"process_start_time_seconds", b"process_start_time_secondz") for body in PROMOTEL]
    assert [len(body) for body in other] == [len(body) for body in PROMOTEL]
    again = []
    for body in PROMOTEL:
        request = ExportMetricsServiceRequest.FromString(body)
        for metric in request.resource_metrics[0].scope_metrics[0].metrics:
            if metric.name == "process_start_time_seconds":
                metric.gauge.data_points[0].as_double += 60
            if metric.name == "vllm:prompt_tokens_total":
                metric.sum.data_points[0].as_double += 1e6
        again.append(request.SerializeToString())
    alone = [values.get("prompt_tokens_delta") for _, _, values in await taken(then, PROMOTEL)]
    then[0] = 1000.0
    both = await taken(then, [body for pair in zip(PROMOTEL, again, strict=True) for body in pair])
    assert sorted(values["prompt_tokens_delta"] for _, _, values in both if "prompt_tokens_delta" in values) == sorted(
        2 * [gain for gain in alone if gain is not None]
    )


@pytest.mark.parametrize(
    "bodies",
    [
        [without(body, "process_start_time_seconds") for body in PROMOTEL],
        [changed(body, service_name="") for body in PROMOTEL],
        [changed(body, service_name="unknown_service:node") for body in PROMOTEL],
    ],
    ids=["no start", "no name", "no name given"],
)
async def test_whose_server_nobody_knows_is_told(then: list[float], bodies: list[bytes]) -> None:
    ledger = Ledger()
    assert await taken(then, bodies, ledger) == []
    assert ledger.derive_unnamed._value.get() == len(bodies)  # type: ignore[attr-defined]


async def test_an_instance_that_is_named_needs_no_start(then: list[float]) -> None:
    named = [
        changed(without(body, "process_start_time_seconds"), service_instance_id="10.0.0.1:8000") for body in PROMOTEL
    ]
    ours = await taken(then, named)
    assert [whose["service.instance.id"] for _, whose, _ in ours] == ["10.0.0.1:8000"] * len(PROMOTEL)


def test_two_scrapes_in_one_request_stay_two() -> None:
    request = ExportMetricsServiceRequest.FromString(PROMOTEL[1])
    twice = request.resource_metrics[0].scope_metrics[0]
    for metric in list(twice.metrics):
        again = twice.metrics.add()
        again.CopyFrom(metric)
        kind = again.WhichOneof("data")
        assert kind is not None
        for point in getattr(again, kind).data_points:
            point.time_unix_nano += 100_000_000
    (group,) = parsed(request.SerializeToString())
    assert len({point.time_ns for point in group.points()}) > 2
