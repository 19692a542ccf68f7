"""What starves an engine: CPU, run-queue delay, state and memory of its processes, and pressure on the machine.

Run-queue delay is the second number of ``/proc/PID/task/*/schedstat``, summed
over threads: the time in which they could have run and no core was free. Sources: ``proc(5)``,
https://docs.kernel.org/scheduler/sched-stats.html, https://docs.kernel.org/accounting/psi.html
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

import structlog

from agent.otlp.encode import attributes, encode_gauges, resource
from agent.source import Source
from agent.target import Place
from base.vocabulary import SCOPE_HOST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.host.engines import Engines
    from agent.otlp.emit import Emit
    from agent.source import Scene
    from agent.target import Target

INTERVAL_SECONDS: Final = 1.0
HOST_PROCESS: Final = "host"
"""``process.name`` of the row that is about the whole machine."""
_THREADS: Final = 256
_READ_BYTES: Final = 16384
_TICK: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_PRESSURES: Final = ("cpu", "memory", "io")

log = structlog.get_logger()


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, _READ_BYTES)
    finally:
        os.close(descriptor)


def _after(text: bytes, key: bytes) -> float | None:
    """The number behind ``key`` in a file of ``key: number`` lines."""
    _, found, rest = text.partition(key)
    return float(rest.split(None, 1)[0]) if found else None


@dataclass(slots=True)
class Process:
    """One process of an engine, read from /proc again and again."""

    pid: int
    resource: bytes
    started: bytes = b""
    delay_seconds: float = 0.0
    delays: dict[str, int] = field(default_factory=dict)

    def sample(self, proc: str = "/proc") -> dict[str, float]:
        """Its figures now.

        Raises:
            ProcessLookupError: It is gone, or another process has its number.
            OSError: It cannot be read.
        """
        try:
            # The name may hold spaces and brackets, so fields are counted from the last bracket.
            fields = _read(f"{proc}/{self.pid}/stat").rpartition(b")")[2].split()
            status = _read(f"{proc}/{self.pid}/status")
            self._add_delays(f"{proc}/{self.pid}/task")
        except FileNotFoundError:
            raise ProcessLookupError(self.pid) from None
        started = fields[19]
        if self.started and started != self.started:
            raise ProcessLookupError(self.pid)
        self.started = started
        return {
            "cpu_seconds_total": (int(fields[11]) + int(fields[12])) / _TICK,
            "cpu_delay_seconds_total": self.delay_seconds,
            "rss_bytes": float(int(fields[21]) * _PAGE),
            "threads": float(fields[17]),
            "stopped": float(fields[0] in {b"T", b"t"}),
            "involuntary_switches_total": _after(status, b"nonvoluntary_ctxt_switches:") or 0.0,
        }

    def _add_delays(self, folder: str) -> None:
        """Add what each thread waited since the last look, so that a thread's end takes nothing away."""
        now: dict[str, int] = {}
        for thread in islice(os.listdir(folder), _THREADS):  # noqa: PTH208 - names alone, each second
            try:
                waited = int(_read(f"{folder}/{thread}/schedstat").split()[1])
            except (FileNotFoundError, ProcessLookupError, IndexError):
                continue  # ended meanwhile, or a kernel without schedstat
            now[thread] = waited
            self.delay_seconds += max(0, waited - self.delays.get(thread, 0)) / 1e9
        self.delays = now


class Machine:
    """Figures of the whole machine; rates are over the time since the last sample."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._jiffies: tuple[int, int] | None = None
        self._stalled: dict[str, tuple[int, float]] = {}

    def sample(self, now: float) -> dict[str, float]:
        """What can be read at ``now`` (monotonic seconds); a kernel without PSI has no pressure figures."""
        values: dict[str, float] = {}
        jiffies = [int(one) for one in _read(f"{self._proc}/stat").split(b"\n", 1)[0].split()[1:9]]
        total, idle = sum(jiffies), jiffies[3] + jiffies[4]
        if self._jiffies is not None and total > self._jiffies[0]:
            spent = total - self._jiffies[0]
            values["cpu_usage_ratio"] = max(0.0, 1 - (idle - self._jiffies[1]) / spent)
        self._jiffies = total, idle
        values["load1"] = float(_read(f"{self._proc}/loadavg").split(None, 1)[0])
        available = _after(_read(f"{self._proc}/meminfo"), b"MemAvailable:")
        if available is not None:
            values["memory_available_bytes"] = available * 1024
        for kind in _PRESSURES:
            ratio = self._pressure(kind, now)
            if ratio is not None:
                values[f"{kind}_pressure_some_ratio"] = ratio
        return values

    def _pressure(self, kind: str, now: float) -> float | None:
        try:
            line = _read(f"{self._proc}/pressure/{kind}").split(b"\n", 1)[0]
        except OSError:
            return None  # PSI is off in this kernel, or hidden from this container
        stalled = int(line.rpartition(b"total=")[2])
        before = self._stalled.get(kind)
        self._stalled[kind] = stalled, now
        if before is None or now <= before[1]:
            return None
        return min(1.0, max(0.0, (stalled - before[0]) / 1e6 / (now - before[1])))


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
        self._found: object = None
        self._hosts = self._machines()

    def watch(self, targets: Sequence[Target]) -> None:
        """Watch the processes of these too, where they run on this machine."""
        self._engines.watch(targets)
        self._hosts = self._machines()

    def _machines(self) -> list[bytes]:
        """Whose row the machine's is: each target's on it, so that every instance has its own to join with."""
        return [self._identify(target, HOST_PROCESS, None) for target in self._engines.targets] or [
            self._identify(None, HOST_PROCESS, None)
        ]

    def _identify(self, target: Target | None, name: str, pid: int | None) -> bytes:
        whose = attributes(target, self._place) | {"process.name": name}
        return resource(whose if pid is None else whose | {"process.pid": str(pid)})

    async def run(self, emit: Emit) -> None:
        """Sample until cancelled."""
        loop = asyncio.get_running_loop()
        start, turn = loop.time(), 0
        while True:
            await self.find(loop.time())
            rows = self.sample(loop.time())
            emit("metrics", encode_gauges(rows, SCOPE_HOST, time.time_ns()))
            turn = max(turn + 1, int((loop.time() - start) / self._interval) + 1)
            await asyncio.sleep(max(0.0, start + turn * self._interval - loop.time()))

    def sample(self, now: float) -> list[tuple[bytes, Mapping[str, float]]]:
        """Rows (resource, figures) of the machine and of each known process at ``now`` (monotonic seconds)."""
        rows: list[tuple[bytes, Mapping[str, float]]] = []
        try:
            machine = self._machine.sample(now)
            rows += [(host, machine) for host in self._hosts]
        except OSError as error:
            log.warning("host_unreadable", error=str(error))
        for key, process in list(self._processes.items()):
            try:
                rows.append((process.resource, process.sample()))
            except OSError:
                # Gone, or no longer ours to read: look for its successor soon.
                del self._processes[key]
                self._engines.gone(now)
        return rows

    async def find(self, now: float) -> None:
        """Follow the engines' processes as they are known at ``now`` (monotonic seconds)."""
        await self._engines.look(now)
        if self._engines.processes is self._found:
            return
        self._found = self._engines.processes
        old, self._processes = self._processes, {}
        for target in self._engines.targets:
            for pid, name in self._engines.processes.get(target.instance, {}).items():
                key = target.instance, pid
                self._processes[key] = old.get(key) or Process(pid, self._identify(target, name, pid))


def source(scene: Scene) -> Host | None:
    """This machine and its engines, unless the configuration leaves them out."""
    if not scene.config.host:
        return None
    return Host(scene.engines, scene.place, interval_seconds=scene.config.interval_seconds)
