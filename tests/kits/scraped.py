"""Pages that others scraped, as they come by remote write, and what the collector makes of them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from agent.engine_table import detect
from agent.pages.follow import Follower
from agent.pages.page import parse
from agent.pages.samples import Sampler
from collector.intake import BusyError
from collector.prometheus import wire
from collector.prometheus.otlp import converted
from collector.scraped import derive, order, pages

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent.otlp.encode import Moment
    from agent.pages.page import Page
    from collector.auth import Sender
    from collector.scraped.derive import Deriver

FIXTURES = Path(__file__).parent.parent / "fixtures"
SECOND = 1_000_000_000
START = 1_790_000_000 * SECOND
WHOSE = {"service.name": "chat", "service.instance.id": "a:1", "servescope.engine": "vllm"}


class Taker:
    """An intake that keeps what it is given, or is busy."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, bytes, Sender]] = []
        self.busy = False

    async def take(self, signal: str, body: bytes, *, sender: Sender, **_: Any) -> None:
        if self.busy:
            raise BusyError("memory")
        self.taken.append((signal, body, sender))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The deriver's clock, in seconds; a test sets it."""
    now = [1000.0]
    monkeypatch.setattr(derive.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(derive.time, "time_ns", lambda: START + int((now[0] - 1000.0) * SECOND))
    return now


def page(name: str) -> Page:
    return parse(gzip.decompress((FIXTURES / "vllm" / f"metrics_{name}.txt.gz").read_bytes()))


def written(pages: Iterable[tuple[int, Page]], up: float = 1.0) -> list[Any]:
    """Series of remote write as Prometheus would send pages: each with its target's labels, and ``up`` beside them."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], Any] = {}
    request = wire.WriteRequest()
    for time_ns, one in pages:
        for sample in (*one.samples(), ("up", {}, up, None), ("scrape_duration_seconds", {}, 0.25, None)):
            labels = {**sample[1], "job": "chat", "instance": "a:1"}
            key = sample[0], frozenset(labels.items())
            if key not in found:
                found[key] = request.timeseries.add()
                for label, value in {"__name__": sample[0], **labels}.items():
                    found[key].labels.add(name=label, value=value)
            found[key].samples.add(value=sample[2], timestamp=time_ns // 1_000_000)
    return list(request.timeseries)


def sent(series: Sequence[Any]) -> bytes:
    body = wire.WriteRequest(timeseries=series).SerializeToString()
    return converted(wire.read(body, second=False), 1 << 24).request.SerializeToString()


def told(bodies: Iterable[bytes]) -> list[tuple[int, dict[str, str], dict[str, Any]]]:
    """Time, resource and values by name of each sample in order."""
    found = []
    for body in bodies:
        for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            whose = {pair.key: pair.value.string_value for pair in group.resource.attributes}
            values: dict[str, Any] = {}
            time_ns = 0
            for metric in group.scope_metrics[0].metrics:
                kind = metric.WhichOneof("data")
                assert kind is not None
                (point,) = getattr(metric, kind).data_points
                values[metric.name] = point.as_double if kind != "histogram" else (point.sum, list(point.bucket_counts))
                time_ns = point.time_unix_nano
            found.append((time_ns, whose, values))
    return found


def by_agent(pages: Sequence[tuple[int, Page]]) -> list[tuple[int, dict[str, str], dict[str, Any]]]:
    """The samples of an agent that reads these pages, and does not take a new series for one that began at 0."""
    sampler = Sampler(detect(pages[0][1]), whole=False)
    follower = Follower("a:1", WHOSE)
    bodies: dict[str, list[bytes]] = {"metrics": [], "logs": []}
    for time_ns, one in pages:
        moment: Moment = follower.moment(time_ns, 0.25)
        follower.page(one, sampler.sample(one), None, moment, lambda kind, body: bodies[kind].append(body))
    return told(bodies["metrics"])


async def rounds(deriver: Deriver) -> None:
    await deriver._round()


async def waited(deriver: Deriver, clock: list[float]) -> None:
    """What came is read, and handed on once nothing more is waited for."""
    await rounds(deriver)
    clock[0] += pages.PATIENCE_SECONDS
    await rounds(deriver)


async def settled(deriver: Deriver, clock: list[float]) -> None:
    """What waits for pages before it waits no longer."""
    await waited(deriver, clock)
    clock[0] += order.HOLD_SECONDS
    await rounds(deriver)
