"""The agent's life: targets, sources, spool, shipping, health; a clean drain at the end.

Sources are independent. One that fails is begun again with backoff and counted; none stops another, and none touches a
model server beyond what it reads.
"""

from __future__ import annotations

import asyncio
import time
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from agent import sources
from agent.host.engines import Engines
from agent.otlp.encode import attributes, encode_event
from agent.outlet import Outlet
from agent.pages.discovery import LOOK_SECONDS, Lookout
from agent.source import Scene
from agent.supervision import Supervision
from agent.telemetry import HealthServer
from base import found
from base.redact import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from agent.config import AgentConfig
    from agent.source import Source
    from agent.target import Known, Target

_SHIP: Final = "ship"
_DISCOVERY: Final = "discovery"

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
        targets: The servers that it watches.
        sources: What it observes with, by the names of their files.
        supervision: How each source, the shipping and the discovery stand.

    Raises:
        DataFolderInUseError: Another agent ships from this data folder.
        ConfigError: A key or certificate can't be read.
        UnknownEngineError: A target names an engine without a table.
    """

    def __init__(self, config: AgentConfig, data: Path, targets: Sequence[Target] | None = None) -> None:
        self.life = Life.STARTING
        self.started = time.time()
        self.targets = list(targets if targets is not None else [target.target() for target in config.targets])
        self._config = config
        self._place = config.place()
        engines = Engines(self.targets)
        self.sources = sources_for(Scene(config, self._place, tuple(self.targets), self._known, data, engines))
        self.outlet = Outlet(config, data)
        self.supervision = Supervision()
        self.health = HealthServer(self, config.health_host, config.health_port)

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
        for name, source in self.sources.items():
            self.supervision.start(name, partial(source.run, self.outlet.emit))
        if self._config.discover:
            self.supervision.start(_DISCOVERY, self._discover)
        log.info("agent_started", targets=[target.instance for target in self.targets], health=self.health.port)

    async def _drain(self) -> None:
        log.info("agent_draining")
        await self.supervision.end(but={_SHIP})
        self.outlet.seal()
        await self.supervision.end()
        left = await self.outlet.shipper.drain(self._config.drain_seconds)
        log.info("agent_stopped", spool_bytes_left=left)

    def watch(self, targets: Sequence[Target]) -> None:
        """Watch further servers; those whose instance is watched already are left as they are."""
        names = {target.instance for target in self.targets}
        new = [target for target in targets if target.instance not in names]
        if not new or self.life in {Life.DRAINING, Life.OVER}:
            return
        self.targets += new
        for source in self.sources.values():
            source.watch(new)
        for target in new:
            self._tell("target_found", f"{target.instance} was found at {shown(target.url)}", {}, target)

    async def _discover(self) -> None:
        own = {self.health.port}.union(*(source.ports() for source in self.sources.values()))
        lookout = Lookout()
        while True:
            self.watch(await lookout.look(known=self.targets, skip_ports=own))
            await asyncio.sleep(LOOK_SECONDS)

    def _known(self, instance: str) -> Known | None:
        told = (source.known(instance) for source in self.sources.values())
        return next((known for known in told if known is not None), None)

    def _tell(self, event: str, message: str, details: Mapping[str, str], target: Target | None = None) -> None:
        whose = attributes(target, self._place)
        self.outlet.emit("logs", encode_event(whose, event, message, time.time_ns(), details))


def sources_for(scene: Scene) -> dict[str, Source]:
    """A source of every file of ``agent/sources/`` that the configuration wants, by the file's name.

    Raises:
        NotFoundError: A file makes none.
        UnknownEngineError: A target names an engine without a table.
    """
    made = {name: make(scene) for name, make in found.members(sources, "source").items()}
    return {name: source for name, source in made.items() if source is not None}
