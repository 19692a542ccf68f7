"""What starves an engine: its processes, the cgroup and network they are in, and the pressure on the machine.

Each kind of figures is a file of ``agent/host/``.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from agent.host.cgroup import Cgroup, folders_of
from agent.host.engines import rank_of
from agent.host.machine import Machine
from agent.host.network import Network, network_of
from agent.host.process import Process
from agent.otlp.encode import attributes, encode_event, encode_gauges, resource
from agent.source import Source
from agent.target import Place
from base.vocabulary import SCOPE_HOST, Resource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.host.engines import Engines
    from agent.otlp.emit import Emit
    from agent.source import Scene
    from agent.target import Target

INTERVAL_SECONDS: Final = 1.0
HOST_PROCESS: Final = "host"
"""``process.name`` of the row that is about the whole machine."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Cage:
    """Where an instance's processes are.

    Attributes:
        pid: The process that it was seen from.
        cgroup: Shared by instances that are in the same one; None where it is not to be seen.
        network: The network that they are in, shared likewise.
        kills: How many of its processes the kernel had killed for lack of memory; None before the first look.
    """

    pid: int
    cgroup: Cgroup | None
    network: Network
    kills: float | None = None


class Host(Source):
    """Samples the machine and the processes of the targets that run on it.

    Args:
        engines: Whose processes run here.
        place: Where this agent runs.
        interval_seconds: Time between two samples.
    """

    def __init__(
        self, engines: Engines, place: Place | None = None, *, interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        self._engines = engines
        self._place = place or Place()
        self._interval = interval_seconds
        self._machine = Machine()
        self._processes: dict[tuple[str, int], Process] = {}
        self._cages: dict[str, _Cage] = {}
        self._found: object = None
        self._events: list[bytes] = []
        self._hosts = self._machines()

    def watch(self, targets: Sequence[Target]) -> None:
        """Watch the processes of these too, where they run on this machine."""
        self._engines.watch(targets)
        self._hosts = self._machines()

    def forget(self, targets: Sequence[Target]) -> None:
        """Watch the processes of these no longer."""
        gone = {target.instance for target in targets}
        self._engines.forget(targets)
        self._hosts = self._machines()
        self._processes = {key: process for key, process in self._processes.items() if key[0] not in gone}
        self._cages = {instance: cage for instance, cage in self._cages.items() if instance not in gone}

    def _machines(self) -> list[tuple[Target | None, bytes]]:
        """Whose row the machine's is: each target's on it, so that every instance has its own to join with."""
        return [(target, self._identify(target, HOST_PROCESS, None)) for target in self._engines.targets] or [
            (None, self._identify(None, HOST_PROCESS, None))
        ]

    def _identify(self, target: Target | None, name: str, pid: int | None) -> bytes:
        whose = attributes(target, self._place) | {"process.name": name}
        if pid is not None:
            whose["process.pid"] = str(pid)
            if rank := rank_of(name):
                whose[Resource.RANK] = rank
        return resource(whose)

    async def run(self, emit: Emit) -> None:
        """Sample until cancelled."""
        loop = asyncio.get_running_loop()
        start, turn = loop.time(), 0
        while True:
            await self.find(loop.time())
            rows = self.sample(loop.time())
            emit("metrics", encode_gauges(rows, SCOPE_HOST, time.time_ns()))
            events, self._events = self._events, []
            for event in events:
                emit("logs", event)
            turn = max(turn + 1, int((loop.time() - start) / self._interval) + 1)
            await asyncio.sleep(max(0.0, start + turn * self._interval - loop.time()))

    def sample(self, now: float) -> list[tuple[bytes, Mapping[str, float]]]:
        """Rows (resource, figures) of the machine and of each known process at ``now`` (monotonic seconds)."""
        rows: list[tuple[bytes, Mapping[str, float]]] = []
        try:
            machine = self._machine.sample(now)
            cages = self._caged(now)
            rows += [(host, machine | cages.get(target.instance if target else "", {})) for target, host in self._hosts]
        except OSError as error:
            log.warning("host_unreadable", error=str(error))
        for key, process in list(self._processes.items()):
            try:
                rows.append((process.resource, process.sample()))
            except OSError:
                # Gone, or no longer ours to read: look for its successor soon.
                del self._processes[key]
                self._engines.look_soon(now)
        return rows

    def _caged(self, now: float) -> dict[str, dict[str, float]]:
        """Figures of each instance's cgroup and network; what several are in is read once."""
        read: dict[int, dict[str, float]] = {}
        traffic: dict[int, dict[str, float]] = {}
        found: dict[str, dict[str, float]] = {}
        for target in self._engines.targets:
            cage = self._cages.get(target.instance)
            if cage is None:
                continue
            if not traffic.get(id(cage.network)):  # not yet read, or from a process that has just ended
                traffic[id(cage.network)] = cage.network.traffic(cage.pid)
            values = dict(traffic[id(cage.network)])
            if cage.cgroup is not None:
                if id(cage.cgroup) not in read:
                    read[id(cage.cgroup)] = cage.cgroup.sample(now)
                values |= read[id(cage.cgroup)]
                self._mind_kills(target, cage, values.get("cgroup_oom_kills_total"))
            found[target.instance] = values
        return found

    def _mind_kills(self, target: Target, cage: _Cage, kills: float | None) -> None:
        if kills is not None and cage.kills is not None and kills > cage.kills:
            count = int(kills - cage.kills)
            what = "a process" if count == 1 else f"{count} processes"
            message = f"The kernel killed {what} in the cgroup of {target.instance} for lack of memory"
            log.warning("oom_kill", message=message)
            whose = attributes(target, self._place)
            details = {"killed": str(count)}
            self._events.append(encode_event(whose, "oom_kill", message, time.time_ns(), details, warning=True))
        cage.kills = kills

    def _cage(
        self, cgroups: dict[str, Cgroup], networks: dict[str, Network], instance: str, pids: Mapping[int, str]
    ) -> None:
        if not pids:
            return  # it is down: its cage may still tell what killed it
        pid = next(iter(pids))
        cage = self._cages.get(instance)
        folders = folders_of(pid)
        cgroup = cgroups.setdefault(_key(folders), Cgroup(folders)) if folders else None
        network = networks.setdefault(network_of(pid), Network())
        if cage is None or cage.cgroup is not cgroup:
            self._cages[instance] = _Cage(pid, cgroup, network)
        else:
            cage.pid, cage.network = pid, network

    async def find(self, now: float) -> None:
        """Follow the engines' processes as they are known at ``now`` (monotonic seconds)."""
        await self._engines.look(now)
        if self._engines.processes is self._found:
            return
        self._found = self._engines.processes
        old, self._processes = self._processes, {}
        cgroups = {_key(cage.cgroup.folders): cage.cgroup for cage in self._cages.values() if cage.cgroup is not None}
        networks: dict[str, Network] = {}
        for target in self._engines.targets:
            self._cage(cgroups, networks, target.instance, self._engines.processes.get(target.instance, {}))
        for target in self._engines.targets:
            for pid, name in self._engines.processes.get(target.instance, {}).items():
                key = target.instance, pid
                self._processes[key] = old.get(key) or Process(pid, self._identify(target, name, pid))


def _key(folders: Mapping[str, str]) -> str:
    return "|".join(sorted(folders.values()))


def source(scene: Scene) -> Host | None:
    """This machine and its engines, unless the configuration leaves them out."""
    if not scene.config.host:
        return None
    return Host(scene.engines, scene.place, interval_seconds=scene.config.interval_seconds)
