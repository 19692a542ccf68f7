"""Pages of programs that export GPUs' figures already, as the driver's own figures would be told.

An exporter looks at its GPUs each 10 or 30 s, so its page is asked for seldom; one that does not come is told once, and
once again when it is back.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import aiohttp
import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from agent.gpu_pods import GpuPods, held_rows
from agent.gpu_table import TOTALS, GpuReader, fault_told, gpu_tables, reader_of
from agent.otlp.encode import attributes, encode_event, encode_gauges, resource
from agent.pages.fetch import fetch, reason_of
from agent.pages.page import Limits, PageReader
from agent.source import METRICS, Source
from agent.target import Place
from base.errors import PageError, ServescopeError
from base.redact import shown
from base.vocabulary import SCOPE_GPU

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client.metrics_core import Metric

    from agent.gpu_table import Row
    from agent.otlp.emit import Emit
    from agent.source import Scene
    from agent.target import Target

INTERVAL_SECONDS: Final = 5.0
TIMEOUT_SECONDS: Final = 5.0
_STALE_SECONDS: Final = 30.0
_LIMITS: Final = Limits()
_NUMBERS: Final = re.compile(r"[\d.]+")

log = structlog.get_logger()


@dataclass(slots=True)
class _Exporter:
    """One page, and what is known of it."""

    url: str
    pages: PageReader = field(default_factory=lambda: PageReader(_LIMITS))
    reader: GpuReader | None = None
    error: str = ""
    last_good: float = 0.0
    reads: int = 0
    failures: int = 0
    gpus: int = 0
    found: frozenset[str] = frozenset()


class GpuPages(Source):
    """Reads exporters' pages.

    Args:
        urls: Where they are.
        place: Where this agent runs; a page that names a machine has its own.
        pods: Since when pods have GPUs, whoever tells it in this agent.
        interval_seconds: Time between two looks at a page.
    """

    def __init__(
        self,
        urls: Sequence[str],
        place: Place | None = None,
        pods: GpuPods | None = None,
        *,
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self._exporters = [_Exporter(url) for url in dict.fromkeys(urls)]
        self._place = attributes(None, place or Place())
        self._pod = (place or Place()).pod
        self._pods = pods or GpuPods()
        self._interval = interval_seconds
        self._targets: list[Target] = []

    def watch(self, targets: Sequence[Target]) -> None:
        """A GPU is the model server's that runs in its pod, where there is one alone."""
        self._targets += targets

    def forget(self, targets: Sequence[Target]) -> None:
        """Who left has no GPU."""
        gone = {target.instance for target in targets}
        self._targets = [target for target in self._targets if target.instance not in gone]

    def metrics(self) -> Iterable[Metric]:
        """Pages asked for, those that did not come, and GPUs on them."""
        labels = ["url"]
        reads = CounterMetricFamily(f"{METRICS}_gpu_pages", "Pages of GPU exporters asked for", labels=labels)
        failures = CounterMetricFamily(f"{METRICS}_gpu_page_failures", "Those that did not come", labels=labels)
        gpus = GaugeMetricFamily(f"{METRICS}_gpu_page_gpus", "GPUs, and parts of GPUs, on them", labels=labels)
        for one in self._exporters:
            for family, value in ((reads, one.reads), (failures, one.failures), (gpus, one.gpus)):
                family.add_metric([shown(one.url)], value)
        return reads, failures, gpus

    def problems(self, now: float, since: float) -> Iterable[str]:
        """Pages that do not come."""
        for one in self._exporters if now - since >= _STALE_SECONDS else ():
            if now - one.last_good > _STALE_SECONDS:
                yield f"the GPU page {shown(one.url)} does not come: {one.error or 'no answer yet'}"

    async def run(self, emit: Emit) -> None:
        """Read until cancelled."""
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS), cookie_jar=aiohttp.DummyCookieJar()
            ) as session,
            asyncio.TaskGroup() as tasks,
        ):
            for one in self._exporters:
                tasks.create_task(self._follow(one, session, emit), name=f"gpu page {shown(one.url)}")

    async def _follow(self, one: _Exporter, session: aiohttp.ClientSession, emit: Emit) -> None:
        loop = asyncio.get_running_loop()
        start, turn = loop.time(), 0
        while True:
            time_ns = time.time_ns()
            one.reads += 1
            try:
                rows = self._rows(one, await fetch(session, one.url, _LIMITS.bytes), time_ns)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, ServescopeError) as error:
                one.failures += 1
                self._missing(one, reason_of(error) or type(error).__name__, emit)
            except Exception:  # a fault of ours must not stop another page
                one.failures += 1
                log.exception("gpu_page_failed", url=shown(one.url))
            else:
                self._tell(one, rows, time_ns, emit)
            turn = max(turn + 1, int((loop.time() - start) / self._interval) + 1)
            await asyncio.sleep(max(0.0, start + turn * self._interval - loop.time()))

    def _rows(self, one: _Exporter, body: bytes, time_ns: int) -> list[Row]:
        page = one.pages.read(body)
        if one.reader is None:
            one.reader = reader_of(page)
        if one.reader is None:
            known = ", ".join(gpu_tables())
            raise PageError(f"{shown(one.url)} is the page of no GPU exporter known here: {known}")
        rows = one.reader.read(page, time_ns / 1e9)
        if not rows:
            raise PageError(f"{shown(one.url)} shows no GPU")
        return rows

    def _tell(self, one: _Exporter, rows: Sequence[Row], time_ns: int, emit: Emit) -> None:
        if one.error:
            self._event(emit, "gpu_found", f"The GPU page {shown(one.url)} comes again", self._place)
        one.error, one.last_good, one.gpus = "", time_ns / 1e9, len(rows)
        told = [(self._place | row.whose.attributes() | self._instance(row), row) for row in rows]
        for whose, row in told:
            if row.whose.gpu not in one.found:
                what = row.whose.name or "GPU"
                self._event(emit, "gpu_found", f"GPU {row.whose.index} ({row.whose.gpu}) is a {what}", whose)
            if row.fault:
                self._event(emit, "gpu_xid", fault_told(row), whose | {"xid": str(row.fault)}, warning=True)
        one.found = frozenset(row.whose.gpu for row in rows)
        figures = [(resource(whose), row.values) for whose, row in told]
        holdings = one.reader.held if one.reader is not None else ()
        held = self._pods.tell(one.url, holdings, time_ns // 1_000_000)
        nodes = {row.whose.gpu: row.whose.node for row in rows}
        emit("metrics", encode_gauges([*figures, *held_rows(held, self._place, nodes)], SCOPE_GPU, time_ns, TOTALS))

    def _instance(self, row: Row) -> dict[str, str]:
        pod, namespace = row.whose.pod, row.whose.namespace
        here = [
            one
            for one in self._targets
            if pod and (one.pod or self._pod) == pod and one.namespace in {"", namespace or one.namespace}
        ]
        return attributes(here[0], Place()) if len(here) == 1 else {}

    def _missing(self, one: _Exporter, why: str, emit: Emit) -> None:
        # what a server says of its own state differs in its numbers from one answer to the next
        if _NUMBERS.sub("", one.error) != _NUMBERS.sub("", why) or not one.error:
            message = f"The GPU page {shown(one.url)} does not come: {why}"
            self._event(emit, "gpu_unavailable", message, self._place, warning=True)
        one.error, one.gpus = why, 0

    def _event(self, emit: Emit, event: str, message: str, whose: dict[str, str], *, warning: bool = False) -> None:
        log.log(30 if warning else 20, event, message=message)
        details = {name: value for name, value in whose.items() if name not in self._place}
        emit("logs", encode_event(self._place, event, message, time.time_ns(), details, warning=warning))


def source(scene: Scene) -> GpuPages | None:
    """The pages that the configuration names."""
    if not scene.config.gpu_pages:
        return None
    made = GpuPages([page.url for page in scene.config.gpu_pages], scene.place, scene.pods)
    made.watch(scene.targets)
    return made
