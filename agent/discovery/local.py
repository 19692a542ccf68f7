"""Servers that listen on this machine with a metrics page we can read.

One that is gone stays a target, down: nobody said that it was to go (decision 0043).
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

import aiohttp
import psutil
import structlog

from agent.engine_table import detect
from agent.finder import Entry, Finder, Surroundings, free_name
from agent.pages.fetch import about_url, fetch
from agent.pages.page import Limits, PageReader
from agent.target import Target
from base.errors import PageError, ServescopeError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from agent.engine_table import Table
    from agent.finder import Tell

LOOK_SECONDS: Final = 10.0
"""Time between two looks for servers that have begun to listen."""
_TIMEOUT_SECONDS: Final = 2.0
_YOUNG_SECONDS: Final = 300.0
_OLD_SECONDS: Final = 600.0
_AT_ONCE: Final = 8
_LOWEST_PORT: Final = 1024

log = structlog.get_logger()


async def find_local(
    *, known: Iterable[Target] = (), skip_ports: Collection[int] = (), ports: Collection[int] | None = None
) -> list[Target]:
    """Model servers on this machine that are not among ``known``: one GET of ``/metrics`` for each listening port.

    Args:
        known: Targets whose ports are left alone.
        skip_ports: Further ports to leave alone (our own).
        ports: Look at these alone; None takes all that listen.

    Returns:
        Targets named ``<engine>-<port>`` after the serving port; the deployment is the engine's name.
    """
    known = tuple(known)
    busy = set(skip_ports) | {port for target in known for port in _ports(target)}
    ports = sorted(port for port in (listening_ports() if ports is None else ports) if port not in busy)
    gate = asyncio.Semaphore(_AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
        answers = await asyncio.gather(*(_look(session, gate, port) for port in ports))
    found: list[Target] = []
    for port, table in zip(ports, answers, strict=True):
        if table is None:
            continue
        page = f"http://127.0.0.1:{port}/metrics"
        serving = port - table.metrics_port_offset
        base = f"http://127.0.0.1:{serving}"
        names = {target.instance for target in (*known, *found)}
        engine = table.engine
        instance = free_name(f"{engine}-{serving}", names)
        found.append(Target(instance, engine, engine=engine, url=base, metrics_url=page))
        log.info("target_found", instance=instance, engine=engine, url=base, about=about_url(table, base, page))
    return found


class Settings(Entry):
    """Look for further model servers on this machine."""

    kind: Literal["local"]

    def finder(self, around: Surroundings) -> Local:
        """One of this machine."""
        return Local(around)


class Local(Finder):
    """Looks every ten seconds for servers that began to listen."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__("local")
        self._around = around

    async def run(self, tell: Tell) -> None:
        """Tell of all that were ever found here."""
        new_servers, found = NewServers(), dict[str, Target]()
        while True:
            new = await new_servers.find(known=self._around.watched(), skip_ports=self._around.ports())
            found |= {target.instance: target for target in new}
            tell(list(found.values()))
            await asyncio.sleep(LOOK_SECONDS)


class NewServers:
    """Finds servers that begin to listen later, and does not ask everybody else's ports over and over.

    A port is looked at when it appears, each time for its first five minutes (a server may answer long before its
    model is loaded), then every ten minutes.
    """

    def __init__(self) -> None:
        self._appeared: dict[int, float] = {}
        self._looked: dict[int, float] = {}

    async def find(self, *, known: Iterable[Target], skip_ports: Collection[int] = ()) -> list[Target]:
        """Model servers that are not among ``known``, as ``find_local`` gives them."""
        now = time.monotonic()
        listening = await asyncio.to_thread(listening_ports)
        self._appeared = {port: self._appeared.get(port, now) for port in listening}
        self._looked = {port: at for port, at in self._looked.items() if port in listening}
        due = [
            port
            for port in listening
            if now - self._appeared[port] < _YOUNG_SECONDS or now - self._looked.get(port, 0.0) > _OLD_SECONDS
        ]
        self._looked |= dict.fromkeys(due, now)
        return await find_local(known=known, skip_ports=skip_ports, ports=due)


def listening_ports() -> set[int]:
    """TCP ports from 1024 on that listen on loopback or on every address; not this process's, and no tap's.

    A tap shows the page of the server behind it, and is none.
    """
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error as error:
        log.warning("listening_ports_unreadable", error=str(error))
        return set()
    reachable = {"127.0.0.1", "0.0.0.0", "::", "::1", "::ffff:127.0.0.1"}  # noqa: S104 - compared, not bound
    return {
        one.laddr.port
        for one in connections
        if one.status == psutil.CONN_LISTEN
        and one.laddr
        and one.laddr.ip in reachable
        and one.laddr.port >= _LOWEST_PORT
        and one.pid != os.getpid()
        and not _is_tap(one.pid)
    }


def _is_tap(pid: int | None) -> bool:
    try:
        return pid is not None and "agent.tap" in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False  # it has ended, or is another user's


async def _look(session: aiohttp.ClientSession, gate: asyncio.Semaphore, port: int) -> Table | None:
    async with gate:
        try:
            body = await fetch(session, f"http://127.0.0.1:{port}/metrics", Limits().bytes)
            return detect(PageReader().read(body))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, PageError, ServescopeError):
            return None  # most ports are somebody else's: silence is the normal answer


def _ports(target: Target) -> set[int]:
    found = {target.tap_port} if target.tap_port else set()
    for url in (target.url, target.metrics_url):
        parts = urlsplit(url)
        if url and parts.hostname in {"127.0.0.1", "localhost", "::1"}:
            found.add(parts.port or (443 if parts.scheme == "https" else 80))
    return found
