"""Somebody else's scrapes of model servers → engine samples, so that pages live without a sidecar.

A request of metrics that is in the log is looked at once more: where it has series of an engine that we have a table
for, its target's pages are put together and read as an agent would read them. The samples go the way that everything
goes, into the log, under their sender's key. What is put together is kept in memory only: a crash costs the samples of
the seconds under way, never the series themselves, which are stored as they came.

Where several scrapers watch the same target, as pairs of Prometheus servers do, one of them is followed.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final

import structlog
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from agent.engine_table import detect, tables
from agent.gpu_table import TOTALS, gpu_tables, reader_of
from agent.otlp.encode import encode_gauges, resource
from agent.pages.follow import Follower
from agent.pages.samples import Sampler
from base.errors import UnknownEngineError
from base.vocabulary import SCOPE_GPU, SCOPE_SAMPLE, Resource
from collector.intake import BusyError
from collector.scraped.pages import Assembly
from collector.scraped.series import groups

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.engine_table import Table
    from agent.gpu_table import GpuReader
    from agent.pages.page import Page
    from collector.auth import Sender
    from collector.intake import Intake
    from collector.ledger import Ledger
    from collector.scraped.pages import Put
    from collector.scraped.series import Group

LOG: Final = structlog.get_logger()

_TICK_SECONDS: Final = 0.5
_MOST_SERIES: Final = 300_000
"""Of all targets together, about 200 MB."""
_MOST_TARGETS: Final = 5_000
_MOST_WAITING: Final = 2_000
_MOST_BYTES: Final = 64 << 20
"""Of requests that have not been looked at."""
_OFFLOAD_BYTES: Final = 64 << 10
_IDLE_SECONDS: Final = 3600.0
"""Time without news after which a target is forgotten."""
_LEADS_SECONDS: Final = 60.0
"""Time without news of the scraper that is followed after which another one is."""
_AHEAD_NS: Final = 600 * 10**9
"""A page that is later than this is none of our days: it would make all others late."""
_REPLICAS: Final = ("prometheus_replica", "__replica__", "replica", "prometheus")
"""Labels by which scrapers of the same targets tell themselves apart."""
_FAILED_SCRAPE: Final = b"scrape_duration_seconds"
"""In what a scraper sends of a target that shows nothing."""
_OURS: Final = SCOPE_SAMPLE.encode(), SCOPE_GPU.encode()
_UP: Final = "up"
_SCRAPE_SECONDS: Final = "scrape_duration_seconds"
_PLACES: Final[Mapping[str, tuple[str, ...]]] = {
    Resource.REGION: ("region", "cloud_region"),
    Resource.CLUSTER: ("cluster", "k8s_cluster_name"),
    Resource.POD: ("pod", "kubernetes_pod_name", "k8s_pod_name"),
    Resource.NODE: ("node", "kubernetes_node", "host_name"),
}
"""Attributes of our resource → labels by which scrapers commonly tell the same, likeliest first."""


@cache
def _beginnings() -> re.Pattern[bytes]:
    """How names of series begin that engines, and exporters of GPUs, show."""
    names = {one for table in tables().values() for one in (*table.prefixes, *table.spellings)}
    names |= {one for gpus in gpu_tables().values() for one in gpus.marks}
    return re.compile(b"|".join(sorted(re.escape(name).encode() for name in names)))


@dataclass(slots=True)
class _Target:
    """One target of one sender."""

    sender: Sender
    resource: Mapping[str, str]
    assembly: Assembly = field(default_factory=Assembly)
    table: Table | None = None
    gpus: GpuReader | None = None
    sampler: Sampler | None = None
    follower: Follower | None = None
    leader: str = ""
    led: float = 0.0
    seen: float = 0.0


class Deriver:
    """Makes samples of what others scraped.

    Args:
        intake: Where samples go.
        ledger: Told of what was derived, and of what was not.
    """

    def __init__(self, intake: Intake, ledger: Ledger) -> None:
        self._intake = intake
        self._ledger = ledger
        self._targets: OrderedDict[tuple[str, str, str, str], _Target] = OrderedDict()
        self._waiting: deque[tuple[str, bytes, Sender]] = deque()
        self._unread: deque[tuple[bytes, Sender]] = deque()
        self._unread_bytes = 0

    def look(self, body: bytes, sender: Sender) -> None:
        """Keep a metrics request, just stored, that may hold what a target of ours shows: a search in its bytes."""
        if any(ours in body for ours in _OURS) or not (
            _beginnings().search(body) or (self._targets and _FAILED_SCRAPE in body)
        ):
            return
        if self._unread_bytes + len(body) > _MOST_BYTES:
            self._ledger.derive_dropped.inc()
            return
        self._unread.append((body, sender))
        self._unread_bytes += len(body)

    async def run(self) -> None:
        """Read what was kept and hand on pages as they become whole, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            try:
                await self._round()
            except Exception:  # the next round goes on
                self._ledger.derive_errors.inc()
                LOG.exception("derive_failed")

    async def finish(self) -> None:
        """Hand on what is under way, whole or not; what the log does not take is counted."""
        try:
            await self._round(last=True)
        except Exception:  # what follows has to drain the log
            self._ledger.derive_errors.inc()
            LOG.exception("derive_failed")
        self._ledger.derive_dropped.inc(len(self._waiting) + len(self._unread))

    async def _round(self, *, last: bool = False) -> None:
        while self._unread:
            body, sender = self._unread.popleft()
            self._unread_bytes -= len(body)
            if len(body) > _OFFLOAD_BYTES:
                await asyncio.to_thread(self._read, body, sender)
            else:
                self._read(body, sender)
                await asyncio.sleep(0)
        self._tick(last=last)
        await self._send()

    def _read(self, body: bytes, sender: Sender) -> None:
        try:
            now, latest_ns = time.monotonic(), time.time_ns() + _AHEAD_NS
            for group in groups(ExportMetricsServiceRequest.FromString(body)):
                self._add(group, sender, now, latest_ns)
        except Exception:  # one request of many; the series are stored
            self._ledger.derive_errors.inc()
            LOG.exception("derive_failed")

    def _add(self, group: Group, sender: Sender, now: float, latest_ns: int) -> None:
        whose = group.resource
        key = sender.key_id, sender.tenant, whose.get(Resource.DEPLOYMENT, ""), whose[Resource.INSTANCE]
        target = self._targets.get(key)
        if target is None:
            begins = _beginnings().match
            if not any(begins(metric.name.encode()) for metric in group.metrics):
                return
            target = self._targets[key] = _Target(sender, whose)
        self._targets.move_to_end(key)
        target.seen = now
        late = target.assembly.late + target.assembly.passed_over
        for point in group.points():
            named = next((label for label in _REPLICAS if label in point.labels), None)
            if named is not None:
                labels = dict(point.labels)
                if not _follows(target, labels.pop(named), now):
                    continue
                point = point._replace(labels=labels)  # noqa: PLW2901 - who scraped it is none of its identity
            if point.time_ns > latest_ns:
                target.assembly.passed_over += 1
            else:
                target.assembly.add(point, now)
        if lost := target.assembly.late + target.assembly.passed_over - late:
            self._ledger.derive_late.inc(lost)

    def _tick(self, *, last: bool = False) -> None:
        now = time.monotonic()
        size = sum(target.assembly.size for target in self._targets.values())
        while self._targets:
            oldest = next(iter(self._targets.values()))  # who sent nothing for longest
            full = size > _MOST_SERIES or len(self._targets) > _MOST_TARGETS
            if not full and now - oldest.seen < _IDLE_SECONDS:
                break
            self._targets.popitem(last=False)
            size -= oldest.assembly.size
            if full:
                self._ledger.derive_dropped.inc()
                LOG.warning("derive_forgot", instance=oldest.resource[Resource.INSTANCE], series=_MOST_SERIES)
        for target in self._targets.values():
            if target.assembly.waiting:
                try:
                    for put in target.assembly.ready(now, last=last):
                        self._understand(target, put)
                except Exception:  # another target's page is no worse for it
                    self._ledger.derive_errors.inc()
                    LOG.exception("derive_failed", instance=target.resource.get(Resource.INSTANCE))

    def _understand(self, target: _Target, put: Put) -> None:
        time_ns, page, of_scrape = put
        if target.gpus is None and target.table is None:
            target.gpus = reader_of(page)
        if target.gpus is not None:
            self._gpus(target, target.gpus, put)
            return
        if target.table is None:
            try:
                target.table = detect(page)
            except UnknownEngineError:
                return
            target.sampler = Sampler(target.table, whole=False)
            target.follower = Follower(target.resource[Resource.INSTANCE], _whose(target, page))
        if target.follower is None or target.sampler is None:
            return

        def emit(signal: str, body: bytes) -> None:
            self._put(signal, body, target.sender)

        if of_scrape.get(_UP) == 0:
            target.follower.down("it was not scraped (up is 0)", time_ns, emit)
            return
        scrape = target.sampler.sample(page)
        if scrape.samples:
            config = scrape.config if scrape.layout_changed else None
            moment = target.follower.moment(time_ns, of_scrape.get(_SCRAPE_SECONDS, 0.0))
            target.follower.page(page, scrape, config, moment, emit)
            self._ledger.derived.inc(len(scrape.samples))

    def _gpus(self, target: _Target, reader: GpuReader, put: Put) -> None:
        place = {name: target.resource[name] for name in _PLACES if target.resource.get(name)}
        rows = [
            (resource(place | row.whose.attributes()), row.values) for row in reader.read(put.page, put.time_ns / 1e9)
        ]
        if rows:
            self._put("metrics", encode_gauges(rows, SCOPE_GPU, put.time_ns, TOTALS), target.sender)
            self._ledger.derived.inc(len(rows))

    def _put(self, signal: str, body: bytes, sender: Sender) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._waiting.popleft()
            self._ledger.derive_dropped.inc()
        self._waiting.append((signal, body, sender))

    async def _send(self) -> None:
        while self._waiting:
            signal, body, sender = self._waiting[0]
            try:
                await self._intake.take(
                    signal, body, as_json=False, batch="", sender=sender, received_ns=time.time_ns()
                )
            except BusyError:
                return  # stays for the next round
            self._waiting.popleft()


def _follows(target: _Target, replica: str, now: float) -> bool:
    """Whether a scraper is the one that is followed; another one is once it has been silent."""
    if replica != target.leader and target.led and now - target.led < _LEADS_SECONDS:
        return False
    target.leader, target.led = replica, now
    return True


def _whose(target: _Target, page: Page) -> dict[str, str]:
    """Attributes of a sample's resource: the target's own, and where the engine's series say that it runs."""
    table = target.table
    told: dict[str, str] = {}
    for one in page.layout.series:
        if table is not None and one.name.startswith((*table.prefixes, *table.spellings)):
            for attribute, labels in _PLACES.items():
                if named := next((value for label in labels if (value := one.labels.get(label))), ""):
                    told[attribute] = named
            break
    kept = {name: target.resource[name] for name in (*_PLACES, *_KEPT) if target.resource.get(name)}
    engine = {Resource.ENGINE: table.engine} if table is not None else {}
    return {**told, **kept, **engine}


_KEPT: Final = (Resource.DEPLOYMENT, Resource.INSTANCE, Resource.VERSION)
