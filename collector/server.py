"""The collector's life: recover, listen, drain."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import json
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from base import certificates, found, locks
from base.certificates import Expirations
from base.errors import DataFolderInUseError, PortInUseError
from base.keys import ensure_keys
from collector import receivers, retention, tls
from collector.auth import open_door
from collector.demand import listen
from collector.intake import Intake
from collector.journal import Journal
from collector.landing import Landing
from collector.ledger import Ledger
from collector.log.segment import SIGNALS
from collector.log.write_ahead import WriteAheadLog
from collector.quarantine import Quarantine
from collector.receiver import Scene
from collector.report import report
from collector.rises import Rises
from collector.scraped.derive import Deriver
from collector.settle import Settler
from collector.store import migrate
from collector.store.address import StoreAddress, locate
from collector.store.client import Store, StoreError
from collector.writing.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from collector.auth import Door
    from collector.config import CollectorConfig
    from collector.receiver import Receiver

LOG: Final = structlog.get_logger()

_DRAIN_SECONDS: Final = 5.0
_INSERT_TIMEOUT_SECONDS: Final = 120.0


class Collector:
    """One collector on one data folder.

    Args:
        config: Its settings.
        data: The data folder; the log lies in ``log/``, keys are read from (or made in) ``keys/``.

    Raises:
        ConfigError: A certificate can't be used.
    """

    def __init__(self, config: CollectorConfig, data: Path) -> None:
        self._config = config
        self._data = data
        self._started = time.time()
        self._tls = tls.of(config)
        self.ledger = Ledger()
        self.ledger.registry.register(Expirations("servescope_collector", config.certificates()))
        self.port = 0

    def reload(self) -> None:
        """Read the certificates again; connections that stand keep theirs.

        Raises:
            ConfigError: A file can't be used; all stays as it was.
        """
        if self._tls is not None:
            self._tls.reload()
            LOG.info("certificates_read")

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then drain.

        Raises:
            PortInUseError: The port is taken.
            DataFolderInUseError: Another collector has this log.
            ConfigError: A key or the store's address is wrong.
            OSError: The data folder can't be written.
        """
        keys = ensure_keys(self._data / "keys")
        door = open_door(keys.agent_hmac, self._config.sender_keys, require_signature=self._config.require_signature)
        folder = self._data / "log"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(folder), Store(self._address(), timeout_seconds=_INSERT_TIMEOUT_SECONDS) as store:
            journal = Journal(folder / "journal")
            self.log = WriteAheadLog(
                folder, journal, max_bytes=self._config.log_max_bytes, seal_bytes=self._config.seal_bytes
            )
            self.recovered = self.log.start()
            try:
                self.ledger.found(self.recovered)
                self.ledger.watch(self.log)
                await self._serve(stop, door, store, journal)
            finally:
                # The log's thread would keep a process alive that has failed and must be started anew.
                await self.log.close()
                journal.close()

    async def _serve(self, stop: asyncio.Event, door: Door, store: Store, journal: Journal) -> None:
        self.intake = Intake(self._config, self.log, journal, self.ledger)
        self.writer = self._writer(store, self._data / "log", journal)
        ways = receivers_for(Scene(self._config, door, self.intake, self.ledger, lambda: self.writer.unread))
        runner = web.AppRunner(self._application(ways), auto_decompress=False, access_log=None, shutdown_timeout=3)
        work = asyncio.create_task(self.writer.run())
        deriver = Deriver(self.intake, self.ledger)
        rises = Rises(partial(self.writer.bring_in, "metrics"), self._config.seal_seconds)
        self.intake.observers.append(rises.look)
        if self._config.derive_samples:
            self.intake.observers.append(deriver.look)
        beside = [
            asyncio.create_task(deriver.run()),
            asyncio.create_task(rises.run()),
            asyncio.create_task(certificates.remind(self._config.certificates())),
            asyncio.create_task(report(self.intake, self.ledger, self.log)),
            *(asyncio.create_task(listen(store.address, self.writer, signal)) for signal in SIGNALS),
        ]
        try:
            for way in ways.values():
                await way.open()
            await self._listen(runner)
            scheme = "http" if self._tls is None else "https"
            LOG.info("collector_ready", url=f"{scheme}://{self._config.host}:{self.port}", store=store.address.url)
            await _first(stop, work)
        finally:
            for way in ways.values():
                await way.close()
            await runner.cleanup()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await deriver.finish()
            await self._drain(work)

    def _address(self) -> StoreAddress:
        address = locate(self._data, self._config.clickhouse, role="owner")
        user, password = address.user, address.password
        if self._config.user:
            file = self._config.password_file
            user, password = self._config.user, file.read_text().strip() if file else ""
        return StoreAddress(address.url, address.database, user, password, unhurried=True)

    def _writer(self, store: Store, folder: Path, journal: Journal) -> Writer:
        def migrated() -> None:
            if migrate.pending(store):
                with Store(store.address, timeout_seconds=migrate.TIMEOUT_SECONDS) as patient:
                    migrate.apply(patient)
            try:
                retention.retain(store, self._config.retention_days)
            except StoreError as error:
                # rows that stay too long are no reason to keep others out
                self.writer.errors["retention"] = str(error)[:300]
                LOG.warning("retention_failed", error=str(error)[:300])
            else:
                self.writer.errors.pop("retention", None)
            journal.bind(migrate.identity(store))

        data = self._data / "store"
        embedded = store.address.user == "owner" and data.is_dir()
        durable: Callable[[], None] | None = partial(_sync_disk_of, data) if embedded else None
        return Writer(
            self.log,
            Landing(store),
            self.ledger,
            Quarantine(folder / "quarantine", max_bytes=self._config.quarantine_max_bytes),
            self._config,
            migrate=migrated,
            settle=Settler(store).run,
            make_durable=durable,
        )

    def _application(self, ways: Mapping[str, Receiver]) -> web.Application:
        application = web.Application(client_max_size=self._config.max_body_bytes)
        for way in ways.values():
            application.add_routes(way.routes())
        application.router.add_get("/healthz", self._health)
        application.router.add_get("/metrics", self._metrics)
        return application

    async def _listen(self, runner: web.AppRunner) -> None:
        await runner.setup()
        context = self._tls.context if self._tls is not None else None
        site = web.TCPSite(runner, self._config.host, self._config.port, backlog=512, ssl_context=context)
        try:
            await site.start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise PortInUseError(
                f"Port {self._config.port} on {self._config.host} is taken", "Stop what listens there or give --port."
            ) from None
        self.port = int(runner.addresses[0][1])

    async def _drain(self, work: asyncio.Task[None]) -> None:
        await self.intake.drain()
        with contextlib.suppress(OSError):
            await self.log.seal_all()
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self.log.segments() or not self.writer.settled:
            if not self.log.segments():
                self.writer.hurry()
            if self.writer.blocked or work.done() or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.02)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)  # what it died of is told by run()
        await self.writer.release()
        LOG.info("collector_stopped", segments_kept=self.log.segments(), settled=self.writer.settled)

    async def _health(self, _: web.Request) -> web.Response:
        oldest = self.log.oldest()
        errors = dict(self.writer.errors)
        body = {
            "status": "degraded" if errors or self.recovered.postponed else "ok",
            "problems": [
                *problems(errors),
                *self.recovered.problems(self._data / "log"),
                *certificates.told(self._config.certificates(), time.time()),
            ],
            "store": {
                "error": next(iter(errors.values()), ""),
                "errors": errors,
                "last_insert": self.writer.last_insert,
                "last_traces": self.writer.last_traces,
                "last_settle": self.writer.last_settle,
                "unhurried": self.writer.unhurried,
            },
            "log": {
                "bytes": self.log.bytes,
                "max_bytes": self._config.log_max_bytes,
                "segments": self.log.segments(),
                "oldest_seconds": round(time.time() - oldest, 3) if oldest else 0,
                "commits": self.log.commits,
                **self.recovered.figures(),
            },
            "ledger": self.ledger.books(self.log),
            "reasons": self.ledger.reasons(),
            "uptime_seconds": round(time.time() - self._started, 3),
        }
        return web.json_response(body, dumps=partial(json.dumps, separators=(",", ":")))

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self.ledger.page(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )


def receivers_for(scene: Scene) -> dict[str, Receiver]:
    """A way to receive of every file of ``collector/receivers/`` that the configuration wants, by the file's name.

    Raises:
        NotFoundError: A file makes none.
    """
    made = {name: make(scene) for name, make in found.members(receivers, "receiver").items()}
    return {name: way for name, way in made.items() if way is not None}


def problems(errors: Mapping[str, str]) -> list[str]:
    """Sentences about a writer's ``errors``; signals that fail alike share one."""
    told = {
        "schema": "the store's schema can't be brought up to date",
        "retention": "rows are not kept as long as collector.retention_days says",
        "settle": "what arrives in pieces can't be put together",
    }
    by_text: dict[str, list[str]] = {}
    for what, text in errors.items():
        if what in SIGNALS:
            by_text.setdefault(text, []).append(what)
    sentences = [f"the store does not take {', '.join(sorted(signals))}: {text}" for text, signals in by_text.items()]
    return sentences + [f"{words}: {errors[what]}" for what, words in told.items() if what in errors]


async def _first(stop: asyncio.Event, work: asyncio.Task[None]) -> None:
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({stopped, work}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if work.done():
        work.result()


def _locked(folder: Path) -> locks.Lock:
    try:
        return locks.take(folder / "lock")
    except locks.HeldError:
        raise DataFolderInUseError(
            f"Another collector writes the log in {folder}", "Stop it, or give another --data."
        ) from None


def _sync_disk_of(folder: Path) -> None:
    # The engine does not sync the parts it writes; their segments must outlive a power cut until the disk has them.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
