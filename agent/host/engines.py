"""Which processes are whose engine's: found every half minute, for all who ask.

An engine's processes are the one that listens on the target's port and all its children (vLLM: API server,
``VLLM::EngineCore``, ``VLLM::Worker``).
"""

from __future__ import annotations

import asyncio
import re
from itertools import islice
from typing import TYPE_CHECKING, Final

import psutil
import structlog

from agent.pages.fetch import split_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.target import Target

_FIND_SECONDS: Final = 30.0
_FIND_SOON_SECONDS: Final = 5.0
_PROCESSES: Final = 256
_LOCAL: Final = frozenset({"127.0.0.1", "localhost", "::1", "0.0.0.0", ""})  # noqa: S104 - compared, not bound
_RANK: Final = re.compile(r"_((?:[A-Z]{1,3}P\d+_?)+)$")

log = structlog.get_logger()


class Engines:
    """The processes of the targets that run on this machine.

    Args:
        targets: The servers; one whose URL is not of this machine has none.

    Attributes:
        targets: Those of this machine.
        processes: Name by pid, by instance, as last found.
    """

    def __init__(self, targets: Sequence[Target] = ()) -> None:
        self.targets: list[Target] = []
        self.processes: dict[str, dict[int, str]] = {}
        self._find_at = 0.0
        self._owners: dict[int, tuple[Target, str]] = {}
        self._looking = asyncio.Lock()
        self.watch(targets)

    def watch(self, targets: Sequence[Target]) -> None:
        """Look for the processes of these too; those that are known already are left as they are."""
        known = {target.instance for target in self.targets}
        self.targets += [target for target in targets if target.instance not in known and ports_of(target)]
        self._find_at = 0.0

    def forget(self, targets: Sequence[Target]) -> None:
        """Look for the processes of these no longer."""
        gone = {target.instance for target in targets}
        if not gone.isdisjoint(target.instance for target in self.targets):
            self.targets = [target for target in self.targets if target.instance not in gone]
            self._take({instance: found for instance, found in self.processes.items() if instance not in gone})

    async def look(self, now: float) -> bool:
        """Find them again where that is due at ``now`` (monotonic seconds); whether it was."""
        async with self._looking:
            if not self.targets or now < self._find_at:
                return False
            targets = list(self.targets)
            self._find_at = now + _FIND_SECONDS
            found = await asyncio.to_thread(find_processes, targets)
            there = {target.instance for target in self.targets}  # some may have left meanwhile
            self._take({instance: processes for instance, processes in found.items() if instance in there})
            if not all(self.processes.get(target.instance) for target in targets):
                self._find_at = min(self._find_at, now + _FIND_SOON_SECONDS)
            return True

    def know(self, processes: dict[str, dict[int, str]]) -> None:
        """Take these for the engines' processes, name by pid by instance, and look for no others."""
        self._take(processes)
        self._find_at = float("inf")

    def _take(self, processes: dict[str, dict[int, str]]) -> None:
        self.processes = processes
        self._owners = {
            pid: (target, name) for target in self.targets for pid, name in processes.get(target.instance, {}).items()
        }

    def look_soon(self, now: float) -> None:
        """Say that a process ended or came at ``now`` (monotonic seconds): they are found again soon."""
        self._find_at = min(self._find_at, now + _FIND_SOON_SECONDS)

    def owner(self, pid: int) -> tuple[Target, str] | None:
        """Whose engine a process is of, and its name; None of anybody else's."""
        return self._owners.get(pid)


def rank_of(name: str) -> str:
    """The rank in a worker's name, as vLLM and SGLang write it: ``VLLM::Worker_DP0_TP1`` → ``DP0_TP1``; else ''."""
    found = _RANK.search(name)
    return found.group(1).strip("_") if found else ""


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
        except psutil.Error:
            continue  # ended meanwhile
        tops.append(top)
        parents.add(_starter(top))
    common = parents.pop() if len(tops) > 1 and len(parents) == 1 else None
    return tops if common is None else [common]


def _starter(top: psutil.Process) -> psutil.Process | None:
    """Who started it, where that runs the same program; systemd and other users' programs are not ours to read."""
    try:
        parent = top.parent()
        return parent if parent is not None and parent.exe() == top.exe() != "" else None
    except psutil.Error:
        return None
