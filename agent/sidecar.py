"""The agent's life: targets, sources, spool, shipping, health; a clean drain at the end.

Sources are independent. One that fails is begun again with backoff and counted; none stops another, and none touches a
model server beyond what it reads.
"""

from __future__ import annotations

import time
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from agent import sources
from agent.finder import Surroundings, free_name
from agent.host.engines import Engines
from agent.otlp.encode import attributes, encode_event
from agent.outlet import Outlet
from agent.roster import Roster
from agent.source import Scene
from agent.supervision import Supervision
from agent.telemetry import HealthServer
from base import certificates, found
from base.redact import shown

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from agent.config import AgentConfig
    from agent.finder import Finder
    from agent.source import Source
    from agent.target import Known, Target

_SHIP: Final = "ship"
CONFIGURATION: Final = "configuration"
"""Who names the targets of the configuration and of the command line."""

log = structlog.get_logger()


class Life(Enum):
    """Where an agent is in its life."""

    STARTING = auto()
    WATCHING = auto()
    DRAINING = auto()
    """Sources have ended; what is in the spool is sent."""
    OVER = auto()


class Sidecar:
    """One agent.

    Args:
        config: Settings.
        data: Data folder; ``spool/`` and ``keys/`` are made in it.
        targets: The model servers; the configuration's own when None.

    Attributes:
        life: Where it is.
        started: When it was made, Unix seconds.
        roster: The servers that it watches, and who named them.
        finders: What names further ones.
        sources: What it observes with, by the names of their files.
        supervision: How each source, the shipping and each finder stand.
        certificates: Files of certificates, by the setting that names them.

    Raises:
        DataFolderInUseError: Another agent ships from this data folder.
        ConfigError: A key or certificate can't be read.
        UnknownEngineError: A target names an engine without a table.
    """

    def __init__(self, config: AgentConfig, data: Path, targets: Sequence[Target] | None = None) -> None:
        self.life = Life.STARTING
        self.started = time.time()
        self.roster = Roster(config.max_targets)
        named = targets if targets is not None else [target.target() for target in config.targets]
        self.roster.tell(CONFIGURATION, named)
        self._config = config
        self._place = config.place()
        self.certificates: Mapping[str, Path] = config.certificates()
        engines = Engines(self.targets)
        self.sources = sources_for(Scene(config, self._place, tuple(self.targets), self._known, data, engines))
        self.outlet = Outlet(config, data)
        around = Surroundings(self._place, lambda: self.targets, self._ports, self._answers)
        self.finders = finders_for(config, around)
        self.supervision = Supervision()
        self.health = HealthServer(self, config.health_host, config.health_port)

    @property
    def targets(self) -> list[Target]:
        """The servers that it watches."""
        return self.roster.targets

    async def run(self, stop: asyncio.Event) -> None:
        """Live until ``stop`` is set, then drain for at most ``drain_seconds``.

        Raises:
            PortInUseError: A port is taken.
        """
        try:
            await self._start()
            self.life = Life.WATCHING
            await stop.wait()
            self.life = Life.DRAINING
            await self._drain()
        finally:
            self.life = Life.OVER
            await self.supervision.end()
            for source in self.sources.values():
                await source.close()
            await self.health.close()
            await self.outlet.close()

    async def _start(self) -> None:
        await self.health.start()
        for source in self.sources.values():
            await source.open()
        self._tell("agent_started", "The agent started", {"targets": ", ".join(t.instance for t in self.targets)})
        self.supervision.start(_SHIP, self.outlet.shipper.run)
        if self.certificates:
            self.supervision.start("certificates", partial(certificates.remind, self.certificates))
        for name, source in self.sources.items():
            self.supervision.start(name, partial(source.run, self.outlet.emit))
        for finder in self.finders:
            self.supervision.start(finder.name, partial(finder.run, partial(self.tell, finder.name)))
        log.info("agent_started", targets=[target.instance for target in self.targets], health=self.health.port)

    async def _drain(self) -> None:
        log.info("agent_draining")
        await self.supervision.end(but={_SHIP})
        self.outlet.seal()
        await self.supervision.end()
        left = await self.outlet.shipper.drain(self._config.drain_seconds)
        log.info("agent_stopped", spool_bytes_left=left)

    def watch(self, targets: Sequence[Target]) -> None:
        """Watch further servers beside those of the configuration; those that are watched already stay as they are."""
        self.tell(CONFIGURATION, [*self.roster.named_by(CONFIGURATION), *targets])

    def tell(self, by: str, targets: Sequence[Target]) -> None:
        """Watch what somebody names, and forget what that one named before and names no longer.

        Args:
            by: Who: a finder's name, or ``configuration``.
            targets: All that it knows.
        """
        if self.life in {Life.DRAINING, Life.OVER}:
            return
        change = self.roster.tell(by, targets)
        # All at once before the first word of it: no sample of one that left comes after the event that says so.
        for source in self.sources.values():
            source.forget(change.left)
            source.watch(change.found)
        for target in change.left:
            self._tell("target_left", f"{target.instance} left: {by} does not name it any more", {"by": by}, target)
        for target in change.found:
            where = {"pod": target.pod, "namespace": target.namespace, "node": target.node, "version": target.version}
            details = {"by": by} | {name: value for name, value in where.items() if value}
            self._tell("target_found", f"{target.instance} was found at {shown(target.url)}", details, target)

    def renew(self) -> None:
        """Read the certificates by which it speaks to the collector again.

        Raises:
            ConfigError: A file can't be used; all stays as it was.
        """
        self.outlet.renew()

    def _ports(self) -> set[int]:
        return {self.health.port}.union(*(source.ports() for source in self.sources.values()))

    def _answers(self, instance: str) -> bool | None:
        told = (source.answers(instance) for source in self.sources.values())
        return next((answers for answers in told if answers is not None), None)

    def _known(self, instance: str) -> Known | None:
        told = (source.known(instance) for source in self.sources.values())
        return next((known for known in told if known is not None), None)

    def _tell(self, event: str, message: str, details: Mapping[str, str], target: Target | None = None) -> None:
        whose = attributes(target, self._place)
        self.outlet.emit("logs", encode_event(whose, event, message, time.time_ns(), details))


def finders_for(config: AgentConfig, around: Surroundings) -> list[Finder]:
    """What looks for targets beside those of the configuration, each with a name of its own."""
    finders: list[Finder] = []
    for entry in config.looks():
        finder = entry.finder(around)
        finder.name = free_name(finder.name, {CONFIGURATION, *(one.name for one in finders)})
        finders.append(finder)
    return finders


def sources_for(scene: Scene) -> dict[str, Source]:
    """A source of every file of ``agent/sources/`` that the configuration wants, by the file's name.

    Raises:
        NotFoundError: A file makes none.
        UnknownEngineError: A target names an engine without a table.
    """
    made = {name: make(scene) for name, make in found.members(sources, "source").items()}
    return {name: source for name, source in made.items() if source is not None}
