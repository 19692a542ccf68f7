"""Which processes of this machine are a target's: the one that listens on its port, and all its children."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

import psutil
import structlog

from agent.pages.fetch import split_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.target import Target

_LOCAL: Final = frozenset({"127.0.0.1", "localhost", "::1", "0.0.0.0", ""})  # noqa: S104 - compared, not bound
_PROCESSES: Final = 256

log = structlog.get_logger()


def ports_of(target: Target) -> set[int]:
    """Ports of this machine on which a target listens; empty where it runs elsewhere."""
    found = set()
    for url in (target.url, target.metrics_url):
        parts = split_url(url)
        if url and parts.hostname in _LOCAL:
            found.add(parts.port or (443 if parts.scheme == "https" else 80))
    return found


def find_processes(targets: Sequence[Target]) -> dict[str, dict[int, str]]:
    """Pid → name of every process of each target's engine, by instance; what another user runs may stay hidden."""
    listening: dict[int, set[int]] = {}
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.pid is not None and connection.laddr:
                listening.setdefault(connection.laddr.port, set()).add(connection.pid)
    except psutil.Error as error:
        log.warning("listening_ports_unreadable", error=str(error))
    found: dict[str, dict[int, str]] = {}
    for target in targets:
        processes: dict[int, str] = {}
        for top in _tops(set().union(*(listening.get(port, set()) for port in ports_of(target)))):
            try:
                processes |= {process.pid: process.name() for process in (top, *top.children(recursive=True))}
            except psutil.Error:
                continue  # ended meanwhile
        found[target.instance] = dict(islice(processes.items(), _PROCESSES))
    return found


def _tops(listeners: set[int]) -> list[psutil.Process]:
    """Processes under which all of an engine runs.

    Several API servers share one port, and the process that started them started the engine cores too: it is the top
    where it runs the same program as they do.
    """
    tops, parents = [], set()
    for pid in listeners:
        try:
            top = psutil.Process(pid)
            parent = top.parent()
            parents.add(parent if parent is not None and parent.exe() == top.exe() != "" else None)
            tops.append(top)
        except psutil.Error:
            continue  # ended meanwhile, or another user's
    common = parents.pop() if len(tops) > 1 and len(parents) == 1 else None
    return tops if common is None else [common]
