"""The alerts process: wires rules, engine, outbox, mirror and health together and runs rounds until told to stop."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from alerts import causes_keeper
from alerts.deliver.notifier import Around
from alerts.deliver.outbox import Outbox
from alerts.engine import Engine
from alerts.health import HealthServer, Status
from alerts.history_writer import HistoryWriter
from alerts.incidents.account import apart
from alerts.incidents.keeper import Keeper
from alerts.incidents.register import Register
from alerts.incidents.restore import restore
from alerts.incidents.timeline import Illustrator
from alerts.incidents.why import Explainer
from alerts.journal import Journal
from alerts.measure import taps
from alerts.rules.file import load
from alerts.rules.model import RulesFile
from alerts.worker import Worker
from analytics.causes.due import due, newest
from base.errors import ServescopeError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from alerts.config import AlertsConfig
    from alerts.deliver.notifier import Notifier, Server
    from collector.store.client import Store

log = structlog.get_logger()

WATCH_SECONDS: Final = 1.0
STOP_SECONDS: Final = 10.0


@dataclass(slots=True)
class Pager:
    """All parts of a running alerts process.

    Use :func:`build`, then :meth:`run` or, in tests, :meth:`once`.
    """

    config: AlertsConfig
    store: Store
    journal: Journal
    outbox: Outbox
    engine: Engine
    history: HistoryWriter
    illustrator: Illustrator
    explainer: Explainer
    causes: causes_keeper.CausesKeeper
    health: HealthServer
    servers: list[Server]
    clock: Callable[[], float]
    workers: list[Worker]
    _restored: bool = False
    _history_waits: bool = False

    def once(self) -> None:
        """One round.

        Raises:
            Exception: Whatever it tripped over; the next one starts from the same states.
        """
        if not self._restored:
            self._restored = self._restore()
        self.engine.round()

    def write_history(self) -> None:
        """Bring the store what it has not yet of the history; while it can't take that, it waits."""
        if self.engine.watch.away_since is not None:
            return
        try:
            self.history.push(self.store)
        except (ServescopeError, OSError) as error:
            if not self._history_waits:
                log.warning("alert_history_waits", error=str(error))
            self._history_waits = True
        else:
            self._history_waits = False

    def look_at_taps(self) -> None:
        """Ask what taps say of themselves; where that can't be asked, their alerts stay as they are."""
        try:
            # who has the rows brought in for this would do it all day; the collector brings in what tells of a loss
            self.engine.taps = taps.losses(self.store.unhurried, self.clock()) if self.engine.sees else None
        except ServescopeError as error:
            self.engine.taps = None
            log.warning("taps_unreadable", error=error.what)

    def run(self, stop: threading.Event) -> None:
        """Rounds until `stop` is set, then a clean end: the message in hand goes out, the rest stays queued."""
        self.start()
        try:
            while not stop.wait(WATCH_SECONDS):
                for worker in self.workers:
                    worker.ensure()
        finally:
            self.close()

    def start(self) -> None:
        """Start the servers and the tasks."""
        for server in self.servers:
            server.start()
        for worker in self.workers:
            worker.ensure()
        self.health.start()

    def close(self) -> None:
        """Stop everything."""
        for worker in self.workers:
            worker.stop()
        for worker in self.workers:
            worker.join(STOP_SECONDS)
        self.outbox.close()
        self.write_history()
        self.health.stop()
        for server in self.servers:
            server.stop()
        self.store.close()
        self.journal.close()

    def _restore(self) -> bool:
        """Take up what the store knows, when the journal is new; True when that is settled."""
        if not self.journal.fresh:
            return True
        try:
            restore(self.store, self.journal, {rule.name: rule.when.identity() for rule in self.engine.rules})
        except ServescopeError as error:
            if not self.engine.watch.blocked:
                log.warning("alert_states_not_restored", error=error.what)
            # without them, what fires already would page again
            self.engine.watch.blocked = error.what
            return False
        if self.engine.watch.blocked:
            log.info("alert_states_restored_late")
        self.engine.watch.blocked = ""
        self.engine.reload()
        self.engine.register.reload()
        self.outbox.reload()
        return True


def build(config: AlertsConfig, data: Path, store: Store, *, clock: Callable[[], float] = time.time) -> Pager:
    """Put the parts together.

    Args:
        config: Settings.
        data: Data folder; ``alerts/`` in it is ours.
        store: The store, as its owner.
        clock: Unix seconds.

    Raises:
        RulesError: The rules file is wrong.
        ConfigError: A key can't be read or is none.
        DataFolderInUseError: Another alerts process uses the folder.
        PortInUseError: A port is taken.
    """
    file = RulesFile() if config.slos is None else load(config.slos)
    for warning in file.warnings():
        log.warning("rules_warning", text=warning)
    folder = data / "alerts"
    config.check()
    journal = Journal(folder)
    around = Around(folder, clock, config.receiver_port)
    notifiers: list[Notifier] = []
    try:
        for settings in config.notifiers.values():
            notifiers.append(settings.notifier(around))  # noqa: PERF401 those made are closed where one fails
        outbox = Outbox(journal, notifiers, clock)
        register = Register(
            journal,
            outbox,
            routes=config.routes,
            dashboard_url=lambda: config.dashboard_url or _dashboard_of(data),
            runbook_url=config.runbook_url,
        )
        engine = Engine(store, file, journal, register, config, clock)
        illustrator = Illustrator(store, journal, register, config, clock, lambda: engine.sees)
        explainer = Explainer(
            journal,
            register,
            clock,
            lambda place, start, end: apart(store.address, place, start, end),
            pending=engine.pending,
            ready=lambda: engine.sees,
        )
        causes = causes_keeper.CausesKeeper(
            # what a period lacks two minutes after its end has been brought in
            lambda after: due(store.unhurried, clock(), after),
            lambda until: causes_keeper.apart(store.address, until),
            ready=lambda: engine.sees,
            newest=lambda: newest(clock()),
        )
        keeper = Keeper(data, journal, register, clock)
        workers: list[Worker] = []
        status = Status(engine, outbox, journal, workers, config.evaluate_every_seconds, clock)
        health = HealthServer(status, config.health_host, config.health_port)
    except BaseException:
        for notifier in notifiers:
            notifier.close()
        for server in around.servers:
            server.stop()
        journal.close()
        raise
    log.info("alerts_ready", rules=len(engine.rules), slos=len(file.slos), health=health.url, notifiers=outbox.names)
    pager = Pager(
        config,
        store,
        journal,
        outbox,
        engine,
        HistoryWriter(journal),
        illustrator,
        explainer,
        causes,
        health,
        around.servers,
        clock,
        workers,
    )
    every = config.evaluate_every_seconds
    # Tasks of their own: a starved store takes ten seconds for a row, in which the next page must not wait.
    workers += [
        *outbox.senders.values(),
        Worker("evaluate", partial(_paced, pager.once, every), first_wait_seconds=min(every, 0.5)),
        Worker("illustrate", partial(_paced, illustrator.once, every)),
        Worker("explain", partial(_paced, explainer.once, every)),
        Worker("causes", partial(_paced, causes.once, max(every, causes_keeper.EVERY_SECONDS))),
        Worker("keep", partial(_paced, keeper.once, every)),
        Worker("history", partial(_paced, pager.write_history, every)),
        Worker("taps", partial(_paced, pager.look_at_taps, max(every, taps.EVERY_SECONDS))),
    ]
    return pager


def _paced(step: Callable[[], None], every_seconds: float) -> float:
    """Take a step; the seconds until the next one, so that steps begin at an even pace."""
    began = time.monotonic()
    step()
    return max(0.05, every_seconds - (time.monotonic() - began))


def _dashboard_of(data: Path) -> str:
    """URL of the dashboard that runs on this data folder, empty when none does."""
    try:
        return str(json.loads((data / "run.json").read_text())["urls"]["dashboard"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.debug("dashboard_unknown", error=str(error))
        return ""
