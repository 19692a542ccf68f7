"""The agent's life: targets, sources, spool, shipping, health; a clean drain at the end.

Sources are independent. One that fails is begun again with backoff and counted; none stops another, and none touches a
model server beyond what it reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ssl
import time
from typing import TYPE_CHECKING, Final

import structlog

from agent.backoff import Backoff
from agent.otlp.encode import attributes, encode_event
from agent.pages.discovery import LOOK_SECONDS, Lookout
from agent.ship import Shipper
from agent.sources.host import Host
from agent.sources.metrics_page import MetricsPages
from agent.sources.spans import Spans
from agent.spool.reader import SpoolReader
from agent.spool.writer import SpoolWriter, producer_folder
from agent.telemetry import HealthServer, start_self_spans
from base.errors import ConfigError
from base.keys import ensure_keys
from base.redact import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from agent.config import AgentConfig
    from agent.ship import OpenSpan
    from agent.sources.metrics_page import ScrapeStats
    from agent.sources.spans import SpanStats
    from agent.target import Emit, Known, Source, Target

PRODUCER: Final = "agent"
_STEADY_SECONDS: Final = 60.0
_DRIVER_SECONDS: Final = 60.0

log = structlog.get_logger()


class Sidecar:
    """One agent.

    Args:
        config: Settings.
        data: Data folder; ``spool/`` and ``keys/`` are made in it.
        targets: The model servers; the configuration's own when None.

    Raises:
        DataFolderInUseError: Another agent ships from this data folder.
        ConfigError: A key or certificate can't be read.
        UnknownEngineError: A target names an engine without a table.
    """

    def __init__(self, config: AgentConfig, data: Path, targets: Sequence[Target] | None = None) -> None:
        self.started = time.time()
        self.restarts: dict[str, int] = {}
        self.running: dict[str, bool] = {}
        self._config = config
        self._place = config.place()
        self._targets = list(targets if targets is not None else [target.target() for target in config.targets])
        self._pages: list[MetricsPages] = [
            MetricsPages(self._targets, self._place, interval_seconds=config.interval_seconds)
        ]
        key = _key(config, data)
        tls = _tls(config)
        self.reader = SpoolReader(data / "spool", max_bytes=config.spool_max_bytes * 9 // 10)
        self.writer = SpoolWriter(producer_folder(data / "spool", PRODUCER), config.spool_max_bytes)
        self._end_spans: Callable[[], None] = lambda: None
        span: OpenSpan | None = None
        if config.self_spans:
            span, self._end_spans = start_self_spans(config.collector)
        self.shipper = Shipper(
            self.reader,
            config.collector,
            key=key,
            flush_seconds=config.flush_seconds,
            tls=tls,
            span=span,
        )
        self.receiver = Spans(
            self._targets,
            self._place,
            host=config.otlp_host,
            http_port=config.otlp_http_port,
            grpc_port=config.otlp_grpc_port,
            keep_prompts=config.store_prompts,
            known=self._known,
        )
        self.health = HealthServer(self, config.health_host, config.health_port)
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Live until ``stop`` is set, then drain for at most ``drain_seconds``.

        Raises:
            PortInUseError: A port is taken.
        """
        try:
            await self.health.start()
            await self.receiver.bind()
            self._tell("agent_started", "The agent started", {"targets": ", ".join(t.instance for t in self._targets)})
            shipping = asyncio.create_task(self._supervise("ship", lambda _emit: self.shipper.run()))
            if self._targets:
                self._start(self._pages[0], "metrics_page")
            self._start(self.receiver, "spans")
            if self._config.host:
                self._start(Host(self._targets, self._place, interval_seconds=self._config.interval_seconds), "host")
            if self._config.gpu:
                self._start(_GpusWhenThere(self._config), "gpu")
            if self._config.discover:
                self._tasks.append(asyncio.create_task(self._supervise("discovery", self._discover)))
            log.info("agent_started", targets=[target.instance for target in self._targets], health=self.health.port)
            await stop.wait()
            log.info("agent_draining")
            await _end(self._tasks)
            self.writer.close()
            await _end([shipping])
            left = await self.shipper.drain(self._config.drain_seconds)
            log.info("agent_stopped", spool_bytes_left=left)
        finally:
            await _end(self._tasks)
            await self.receiver.close()
            await self.health.close()
            await asyncio.to_thread(self._end_spans)
            self.writer.close()
            self.reader.close()

    def scrapes(self) -> Mapping[str, ScrapeStats]:
        """Counts of the metrics pages, by instance."""
        return {instance: stats for pages in self._pages for instance, stats in pages.stats.items()}

    def spans(self) -> SpanStats:
        """Counts of the spans that came in."""
        return self.receiver.stats

    def _known(self, instance: str) -> Known | None:
        return next((found for pages in self._pages if (found := pages.known.get(instance))), None)

    def _start(self, source: Source, name: str) -> None:
        self._tasks.append(asyncio.create_task(self._supervise(name, source.run), name=name))

    async def _supervise(self, name: str, run: Callable[..., object]) -> None:
        """Run a source for ever: what ends or fails is begun again after a growing pause."""
        backoff = Backoff(first=1.0, longest=60.0)
        self.restarts[name] = 0
        while True:
            began = time.monotonic()
            self.running[name] = True
            try:
                await run(self.writer.append)  # type: ignore[misc]
                log.warning("source_ended", source=name)
            except Exception:
                log.exception("source_failed", source=name)
            self.running[name] = False
            self.restarts[name] += 1
            if time.monotonic() - began > _STEADY_SECONDS:
                backoff.succeeded()
            await asyncio.sleep(backoff.failed())

    async def _discover(self, _emit: object) -> None:
        own = {self.health.port, self.receiver.http_port or 0, self.receiver.grpc_port or 0}
        lookout = Lookout()
        while True:
            self.watch(await lookout.look(known=self._targets, skip_ports=own))
            await asyncio.sleep(LOOK_SECONDS)

    def watch(self, targets: Sequence[Target]) -> None:
        """Watch further servers; those whose instance is watched already are left as they are."""
        names = {target.instance for target in self._targets}
        new = [target for target in targets if target.instance not in names]
        if not new:
            return
        # A group of sources of their own: those that are watched already lose no second.
        self._targets += new
        pages = MetricsPages(new, self._place, interval_seconds=self._config.interval_seconds)
        self._pages.append(pages)
        self._start(pages, f"metrics_page_{len(self._pages)}")
        if self._config.host:
            self._start(Host(new, self._place), f"host_{len(self._pages)}")
        self.receiver.watch(self._targets)
        for target in new:
            self._tell("target_found", f"{target.instance} was found at {shown(target.url)}", {}, target)

    def _tell(self, event: str, message: str, details: Mapping[str, str], target: Target | None = None) -> None:
        self.writer.append(
            "logs", encode_event(attributes(target, self._place), event, message, time.time_ns(), details)
        )


class _GpusWhenThere:
    """GPUs of this machine; the driver's binding (13 MB) is loaded only once there is a driver."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._place = config.place()

    async def run(self, emit: Emit) -> None:
        """Sample until cancelled; look for a driver each minute until there is one."""
        if not _has_driver():
            message = "No GPU can be watched: this machine has no NVIDIA driver"
            log.info("gpu_unavailable", message=message)
            emit("logs", encode_event(attributes(None, self._place), "gpu_unavailable", message, time.time_ns()))
            while not _has_driver():  # noqa: ASYNC110 - nobody tells when a driver is installed
                await asyncio.sleep(_DRIVER_SECONDS)
        from agent.sources.gpu import Gpus  # noqa: PLC0415 - see above

        await Gpus(self._place, interval_seconds=self._config.interval_seconds).run(emit)


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _key(config: AgentConfig, data: Path) -> bytes | None:
    if not config.sign:
        return None
    path = config.key_file or data / "keys" / "agent_hmac"
    if config.key_file is None and not path.exists():
        return ensure_keys(data / "keys").agent_hmac
    try:  # read, not made anew: an agent must come up again on a full disk
        return bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the key {path} can't be read as hex: {error}", "Check agent.key_file, or the file"
        ) from None


def _tls(config: AgentConfig) -> ssl.SSLContext | None:
    if config.collector_ca_file is None and config.client_certificate_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=config.collector_ca_file)
        if config.client_certificate_file is not None:
            context.load_cert_chain(config.client_certificate_file, config.client_key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"a TLS file of agent.collector can't be used: {error}", "Check the certificate files"
        ) from None
    return context
