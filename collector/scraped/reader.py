"""Reads one target's pages as an agent reads a server's, or a GPU exporter's."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from agent.engine_table import detect
from agent.gpu_pods import GpuPods, held_rows
from agent.gpu_table import TOTALS, GpuReader, fault_told, reader_of
from agent.otlp.encode import encode_event, encode_gauges, resource
from agent.pages.follow import Follower
from agent.pages.samples import Sampler
from base.errors import UnknownEngineError
from base.vocabulary import SCOPE_GPU, Resource
from collector.scraped.sums import Sums, without

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.engine_table import Table
    from agent.otlp.emit import Emit
    from agent.pages.page import Page
    from collector.ledger import Ledger
    from collector.scraped.pages import Put
    from collector.scraped.pods import Pods

_SCRAPE_SECONDS: Final = "scrape_duration_seconds"
_PLACES: Final[Mapping[str, tuple[str, ...]]] = {
    Resource.REGION: ("region", "cloud_region"),
    Resource.CLUSTER: ("cluster", "k8s_cluster_name"),
    Resource.POD: ("pod", "kubernetes_pod_name", "k8s_pod_name"),
    Resource.NAMESPACE: ("namespace", "kubernetes_namespace", "k8s_namespace_name"),
    Resource.NODE: ("node", "kubernetes_node", "host_name"),
}
"""Attributes of our resource → labels by which scrapers commonly tell the same, likeliest first."""
_PODS_PATIENCE_SECONDS: Final = 300.0
"""Time without a page after which who has its GPUs is forgotten: as long as a value counts for Prometheus, whose
scrapes may be minutes apart (``query.lookback-delta``)."""
_KEPT: Final = (Resource.DEPLOYMENT, Resource.INSTANCE, Resource.VERSION)


@dataclass(frozen=True, slots=True)
class EngineReader:
    """Samples and events of a model server.

    Attributes:
        table: The engine's.
        follower: Of the server.
        sampler: Of its pages.
        sums: Of what it counts by interval.
        emit: Takes the bodies.
        ledger: Told of samples, and of what was left out.
    """

    table: Table
    follower: Follower
    sampler: Sampler
    sums: Sums
    emit: Emit
    ledger: Ledger

    def fork(self) -> EngineReader:
        """Another one that has read the same pages."""
        return replace(self, sampler=self.sampler.fork(), sums=self.sums.fork(), follower=copy.copy(self.follower))

    def read(self, put: Put, *, tell: bool = True) -> None:
        """Read the next page."""
        emit: Emit = self.emit if tell else lambda _kind, _body: None
        if not put.shows:
            self.sampler.contract.away()
            self.follower.down("it was not scraped (up is 0)", put.time_ns, emit)
            return
        page, before = _summed(self.sums, put, self.ledger if tell else None)
        scrape = self.sampler.sample(page, before=before)
        if scrape.samples:
            config = scrape.config if scrape.layout_changed else None
            moment = self.follower.moment(put.time_ns, put.scrape.get(_SCRAPE_SECONDS, 0.0))
            self.follower.page(page, scrape, config, moment, emit)
            if tell:
                self.ledger.derived.inc(len(scrape.samples))

    def alone(self, put: Put) -> None:
        """Tell gauges and totals of a page between two that were read: what it gained is in what the second gained.

        Or in what the next one gains, if it counts by interval: then its totals are not known.
        """
        self.owe(put)

        def samples(kind: str, body: bytes) -> None:
            if kind == "metrics":
                self.emit("metrics", body)

        sampler, follower = Sampler(self.table, whole=False), self.follower.anew()
        replace(self, emit=samples, sampler=sampler, sums=Sums(), follower=follower).read(without(put))

    def owe(self, put: Put) -> None:
        """Have what counts by interval, and came late, in what the next page gains."""
        self.ledger.derive_repeated.inc(self.sums.add(put))


@dataclass(frozen=True, slots=True)
class GpusReader:
    """Rows of GPUs of an exporter's page, and their faults, and which pods have them.

    Attributes:
        reader: The exporter's.
        place: Attributes of all rows' resources.
        pods: Whose a GPU is that a pod has.
        held: Since when; None where that is not told.
        sums: Of what it counts by interval.
        emit: Takes the bodies.
        ledger: Told of rows, and of what was left out.
    """

    reader: GpuReader
    place: Mapping[str, str]
    pods: Pods
    held: GpuPods | None
    sums: Sums
    emit: Emit
    ledger: Ledger

    def fork(self) -> GpusReader:
        """Another one that has read the same pages."""
        held = self.held.fork() if self.held is not None else None
        return replace(self, reader=copy.copy(self.reader), held=held, sums=self.sums.fork())

    def read(self, put: Put, *, tell: bool = True) -> None:
        """Read the next page."""
        page, _ = _summed(self.sums, put, self.ledger if tell else None)
        rows = [
            (row, {**self.place, **row.whose.attributes(), **self.pods.of(row.whose.pod, row.whose.namespace)})
            for row in self.reader.read(page, put.time_ns / 1e9)
        ]
        if not rows:
            return
        held = self.held.tell("", self.reader.held, put.time_ns // 1_000_000) if self.held is not None else {}
        if not tell:
            return
        nodes = {row.whose.gpu: row.whose.node for row, _ in rows}
        told = [(resource(whose), row.values) for row, whose in rows]
        told += held_rows(held, self.place, nodes)
        self.emit("metrics", encode_gauges(told, SCOPE_GPU, put.time_ns, TOTALS))
        self.ledger.derived.inc(len(rows))
        for row, whose in rows:
            if row.fault:
                details = row.whose.attributes() | {"xid": str(row.fault)}
                self.emit("logs", encode_event(whose, "gpu_xid", fault_told(row), put.time_ns, details, warning=True))

    def alone(self, put: Put) -> None:
        """Tell a page between two that were read: whose the GPUs are, these know."""
        self.owe(put)
        replace(self, reader=GpuReader(self.reader.table), held=None, sums=Sums()).read(without(put))

    def owe(self, put: Put) -> None:
        """Have what counts by interval, and came late, in what the next page shows."""
        self.ledger.derive_repeated.inc(self.sums.add(put))


Reader = EngineReader | GpusReader


def maker(
    page: Page, whose: Mapping[str, str], emit: Emit, ledger: Ledger, pods: Pods
) -> Callable[[Put], Reader] | None:
    """What makes readers for the target of a page; None where nobody here can read it.

    Args:
        page: What it shows.
        whose: Attributes of the target, as its sender tells them.
        emit: Takes the bodies.
        ledger: Told of rows, and of what was left out.
        pods: Which server runs in which pod; told of this one.
    """
    gpus = reader_of(page)
    if gpus is not None:
        exporter, place = gpus.table, _exporters_place(whose, page)
        return lambda _put: GpusReader(
            GpuReader(exporter), place, pods, GpuPods(_PODS_PATIENCE_SECONDS), Sums(), emit, ledger
        )
    try:
        table = detect(page)
    except UnknownEngineError:
        return None

    def reader(put: Put) -> Reader:
        served = _whose(table, whose, put.page)
        pods.put(served)
        follower = Follower(whose[Resource.INSTANCE], served)
        return EngineReader(table, follower, Sampler(table, whole=False), Sums(), emit, ledger)

    return reader


def _summed(sums: Sums, put: Put, ledger: Ledger | None) -> tuple[Page, Mapping[int, float]]:
    """The page with sums, and what they were before; what was left out is told to a ledger."""
    summed = sums.page(put)
    if ledger is not None:
        ledger.derive_repeated.inc(summed.repeated)
        ledger.derive_forgotten.inc(summed.forgotten)
    return summed.page, summed.before


def _whose(table: Table, target: Mapping[str, str], page: Page) -> dict[str, str]:
    """Attributes of a sample's resource: the target's own, and where the engine's series say that it runs."""
    begins = (*table.prefixes, *table.spellings)
    own = next((one for one in page.layout.series if not begins or one.name.startswith(begins)), None)
    told = _places(own.labels) if own is not None else {}
    kept = {name: target[name] for name in (*_PLACES, *_KEPT) if target.get(name)}
    return {**told, **kept, Resource.ENGINE: table.engine}


def _exporters_place(target: Mapping[str, str], page: Page) -> dict[str, str]:
    """Where an exporter's GPUs are. The pod that it runs in itself is none of a GPU's."""
    told = _places(page.layout.series[0].labels)
    told |= {name: target[name] for name in _PLACES if target.get(name)}
    return {name: value for name, value in told.items() if name not in {Resource.POD, Resource.NAMESPACE}}


def _places(labels: Mapping[str, str]) -> dict[str, str]:
    """Attributes that the labels of a series tell."""
    found = {
        attribute: next((value for label in names if (value := labels.get(label))), "")
        for attribute, names in _PLACES.items()
    }
    return {attribute: named for attribute, named in found.items() if named}
