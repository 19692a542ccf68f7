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
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final

import structlog
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from agent.engine_table import Table, known_families, tables
from agent.gpu_table import gpu_tables
from agent.pages.page import Layout, Series
from base.vocabulary import SCOPE_GPU, SCOPE_SAMPLE, Resource
from collector.intake import BusyError
from collector.scraped.order import Order
from collector.scraped.pages import MOST_OPEN, Assembly
from collector.scraped.pods import Pods
from collector.scraped.reader import maker
from collector.scraped.series import groups

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from collector.auth import Sender
    from collector.intake import Intake
    from collector.ledger import Ledger
    from collector.scraped.pages import Put
    from collector.scraped.reader import Reader
    from collector.scraped.series import Group

LOG: Final = structlog.get_logger()

_TICK_SECONDS: Final = 0.5
_MOST_SERIES: Final = 300_000
"""Of all targets together, about 200 MB."""
_MOST_VALUES: Final = 1_000_000
"""Of pages under way, of all targets together: 62 MB in pages of 600 series."""
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
_PARTS: Final = ("_bucket", "_sum", "_count")
_OURS: Final = SCOPE_SAMPLE.encode(), SCOPE_GPU.encode()


@cache
def _beginnings() -> re.Pattern[bytes]:
    """How names of series begin that engines, and exporters of GPUs, show."""
    names = {one for table in tables().values() for one in (*table.prefixes, *table.spellings)}
    names |= {one for gpus in gpu_tables().values() for one in gpus.marks}
    return _any_of(names)


@cache
def _marks() -> re.Pattern[bytes]:
    """What is in a request that may hold a page of an engine whose names begin with nothing of its own."""
    return _any_of({mark for table in tables().values() for mark in table.marks})


def _any_of(texts: Iterable[str]) -> re.Pattern[bytes]:
    return re.compile(b"|".join(sorted(re.escape(text).encode() for text in texts)))


@lru_cache(maxsize=8192)
def _may_be_of(name: str) -> tuple[Table, ...]:
    """Engines without a beginning of their own that have a metric of this name."""
    whole = next((name.removesuffix(part) for part in _PARTS if name.endswith(part)), name)
    return tuple(one for one in tables().values() if one.marks and {name, whole} & known_families(one.engine))


def _is_signed(group: Group) -> bool:
    """Whether an engine is told by what its series are, together, and not by how one begins."""
    found: dict[str, list[Series]] = {}
    for metric in group.metrics:
        for table in _may_be_of(metric.name):
            series = [Series(one.name, one.labels, frozenset()) for one in group._replace(metrics=[metric]).points()]
            found.setdefault(table.engine, []).extend(series)
    return any(tables()[engine].signs(Layout(tuple(series), {})) for engine, series in found.items())


@dataclass(slots=True)
class _Target:
    """One target of one sender."""

    sender: Sender
    resource: Mapping[str, str]
    assembly: Assembly = field(default_factory=Assembly)
    order: Order[Reader] | None = None
    leader: str = ""
    led: float = 0.0
    seen: float = 0.0

    @property
    def waits(self) -> bool:
        """Whether a page waits for those before it."""
        return self.order is not None and self.order.waiting


class Deriver:
    """Makes samples of what others scraped.

    Args:
        intake: Where samples go.
        ledger: Told of what was derived, and of what was not.
    """

    def __init__(self, intake: Intake, ledger: Ledger) -> None:
        self._intake = intake
        self._ledger = ledger
        self._targets: OrderedDict[tuple[str, str, str, str, str], _Target] = OrderedDict()
        self._pods: dict[tuple[str, str], Pods] = defaultdict(Pods)
        self._waiting: deque[tuple[str, bytes, Sender]] = deque()
        self._unread: deque[tuple[bytes, Sender]] = deque()
        self._unread_bytes = 0
        self._came = asyncio.Event()
        self._said_unnamed = False

    def look(self, body: bytes, sender: Sender) -> None:
        """Keep a metrics request, just stored, that may hold what a target of ours shows: a search in its bytes."""
        if any(ours in body for ours in _OURS) or not (
            _beginnings().search(body) or _marks().search(body) or (self._targets and _FAILED_SCRAPE in body)
        ):
            return
        if self._unread_bytes + len(body) > _MOST_BYTES:
            self._ledger.derive_dropped.inc()
            return
        self._unread.append((body, sender))
        self._unread_bytes += len(body)
        self._came.set()

    async def run(self) -> None:
        """Read what was kept and hand on pages as they become whole, until cancelled."""
        while True:
            if not (self._unread or self._targets or self._waiting):
                self._came.clear()
                await self._came.wait()
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
            now, wall_ns = time.monotonic(), time.time_ns()
            marked = _marks().search(body) is not None
            for group in groups(ExportMetricsServiceRequest.FromString(body)):
                self._add(group, sender, now, wall_ns, marked=marked)
        except Exception:  # one request of many; the series are stored
            self._ledger.derive_errors.inc()
            LOG.exception("derive_failed")

    def _add(self, group: Group, sender: Sender, now: float, wall_ns: int, *, marked: bool) -> None:
        whose = group.resource
        instance = whose.get(Resource.INSTANCE, "")
        key = sender.key_id, sender.tenant, whose.get(Resource.DEPLOYMENT, ""), instance, group.process
        target = self._targets.get(key)
        if target is None:
            begins = _beginnings().match
            begun = any(begins(metric.name.encode()) for metric in group.metrics)
            if not begun and not (marked and _is_signed(group)):
                return
            if not instance:
                self._pass_over(whose)
                return
            target = self._targets[key] = _Target(sender, whose)
        self._targets.move_to_end(key)
        target.seen = now
        late, repeated = target.assembly.late + target.assembly.passed_over, target.assembly.repeated
        for point in group.points():
            named = next((label for label in _REPLICAS if label in point.labels), None)
            if named is not None:
                labels = dict(point.labels)
                if not _follows(target, labels.pop(named), now):
                    continue
                point = point._replace(labels=labels)  # noqa: PLW2901 - who scraped it is none of its identity
            if point.time_ns > wall_ns + _AHEAD_NS:
                target.assembly.passed_over += 1
            else:
                target.assembly.add(point, now, wall_ns)
        if lost := target.assembly.late + target.assembly.passed_over - late:
            self._ledger.derive_late.inc(lost)
        self._ledger.derive_repeated.inc(target.assembly.repeated - repeated)

    def _pass_over(self, whose: Mapping[str, str]) -> None:
        """A page of an engine, and nobody knows of which server: those of several would be read as one's."""
        self._ledger.derive_unnamed.inc()
        if not self._said_unnamed:
            self._said_unnamed = True
            LOG.warning(
                "derive_unnamed",
                service=whose.get(Resource.DEPLOYMENT, ""),
                fix="have the sender set the resource attribute service.instance.id, one for each server",
            )

    def _tick(self, *, last: bool = False) -> None:
        now = time.monotonic()
        size = sum(target.assembly.size for target in self._targets.values())
        while self._targets:
            oldest = next(iter(self._targets.values()))  # who sent nothing for longest
            full = size > _MOST_SERIES or len(self._targets) > _MOST_TARGETS
            if not full and now - oldest.seen < _IDLE_SECONDS:
                break
            (key_id, tenant, _, instance, _), _ = self._targets.popitem(last=False)
            self._pods[key_id, tenant].forget(instance)
            size -= oldest.assembly.size
            if full:
                self._ledger.derive_dropped.inc()
                LOG.warning("derive_forgot", instance=oldest.resource[Resource.INSTANCE], series=_MOST_SERIES)
        self._relieve(now)
        for target in self._targets.values():
            if target.assembly.waiting or target.waits:
                self._hand_on(target, now, last=last)

    def _relieve(self, now: float) -> None:
        """Too much is under way: who has most of it takes its older pages as they are."""
        under_way = sum(target.assembly.values for target in self._targets.values())
        while under_way > _MOST_VALUES:
            target = max(self._targets.values(), key=lambda one: one.assembly.values)
            under_way -= target.assembly.values
            self._hand_on(target, now, most=target.assembly.waiting // 2)
            under_way += target.assembly.values

    def _hand_on(self, target: _Target, now: float, *, last: bool = False, most: int = MOST_OPEN) -> None:
        try:
            for put in target.assembly.ready(now, last=last, most=most):
                if target.order is None:
                    target.order = self._ordered(target, put)
                if target.order is not None:
                    target.order.take(put, now)
            if target.order is not None:
                target.order.tick(now, last=last)
        except Exception:  # another target's page is no worse for it
            self._ledger.derive_errors.inc()
            LOG.exception("derive_failed", instance=target.resource.get(Resource.INSTANCE))

    def _ordered(self, target: _Target, put: Put) -> Order[Reader] | None:
        def emit(signal: str, body: bytes) -> None:
            self._put(signal, body, target.sender)

        pods = self._pods[target.sender.key_id, target.sender.tenant]
        fresh = maker(put.page, target.resource, emit, self._ledger, pods)
        return Order(fresh) if fresh is not None else None

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
