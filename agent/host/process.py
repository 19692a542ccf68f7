"""One process of an engine: CPU, run-queue delay, state, faults and memory.

Run-queue delay is the second number of ``/proc/PID/task/*/schedstat``, summed over threads: the time in which they
could have run and no core was free. An engine has hundreds of threads, most of which sleep for ever: where there are
more than a few, all are read at first and every tenth time, and those that ran or waited most since are read each time.
What a thread waited in between is counted when all are read. How often threads were switched the kernel tells of each,
and of a process what is its first thread's alone: of the others those that ran are read with all threads. Sources:
``proc(5)``, https://docs.kernel.org/scheduler/sched-stats.html
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from agent.host.reading import after, read

_THREADS: Final = 512
_FEW_THREADS: Final = 32
_BUSY_THREADS: Final = 16
_WALK_EACH: Final = 10
_TICK: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Process:
    """One process of an engine, read from /proc again and again.

    Attributes:
        pid: Its number.
        resource: Whose its figures are.
        started: When it began, in the kernel's ticks: another with its number is another.
        delay_seconds: What its threads waited for a core since the first look.
        delays: What each thread had waited at the last look, ns.
        ran: What each thread had run and waited when all were read last, ns.
        busiest: Threads that are read each time.
        walk_in: Looks until all threads are read again.
        slices: How often each thread had been given a core when all were read last, as the kernel writes it.
        switched: How often each thread had been switched when that was read last: of its own accord, and not.
        switches: The same of all threads, those that ended too.
        io_hidden: Its disk traffic is not ours to read.
    """

    pid: int
    resource: bytes
    started: bytes = b""
    delay_seconds: float = 0.0
    delays: dict[str, int] = field(default_factory=dict)
    ran: dict[str, int] = field(default_factory=dict)
    busiest: list[str] = field(default_factory=list)
    walk_in: int = 0
    slices: dict[str, bytes] = field(default_factory=dict)
    switched: dict[str, tuple[float, float]] = field(default_factory=dict)
    switches: tuple[float, float] = (0.0, 0.0)
    io_hidden: bool = False

    def sample(self, proc: str = "/proc") -> dict[str, float]:
        """Its figures now.

        Raises:
            ProcessLookupError: It is gone, or another process has its number.
            OSError: It cannot be read.
        """
        try:
            # The name may hold spaces and brackets, so fields are counted from the last bracket.
            fields = read(f"{proc}/{self.pid}/stat").rpartition(b")")[2].split()
            status = read(f"{proc}/{self.pid}/status")
            self._add_switches(str(self.pid), status)
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
            "state": float(fields[0][0]),
            "minor_faults_total": float(fields[7]),
            "major_faults_total": float(fields[9]),
            "involuntary_switches_total": self.switches[1],
            "voluntary_switches_total": self.switches[0],
        } | self._disk(f"{proc}/{self.pid}/io")

    def _disk(self, path: str) -> dict[str, float]:
        if self.io_hidden:
            return {}
        try:
            text = read(path)
        except OSError:
            self.io_hidden = True  # another user's, or a kernel without
            return {}
        found = {
            "disk_read_bytes_total": after(text, b"\nread_bytes:"),
            "disk_write_bytes_total": after(text, b"\nwrite_bytes:"),
        }
        return {name: value for name, value in found.items() if value is not None}

    def _add_delays(self, folder: str) -> None:
        """Add what each thread waited since it was read last, so that a thread's end takes nothing away."""
        whole = self.walk_in <= 0 or len(self.ran) <= _FEW_THREADS
        self.walk_in = _WALK_EACH - 1 if whole else self.walk_in - 1
        now: dict[str, int] = {} if whole else self.delays
        ran: dict[str, int] = {}
        slices: dict[str, bytes] = {}
        for thread in islice(os.listdir(folder), _THREADS) if whole else self.busiest:  # noqa: PTH208 - names alone
            try:
                times = read(f"{folder}/{thread}/schedstat").split()
                waited = int(times[1])
            except (FileNotFoundError, ProcessLookupError, IndexError):
                now.pop(thread, None)
                continue  # ended meanwhile, or a kernel without schedstat
            ran[thread] = int(times[0]) + waited
            slices[thread] = times[-1]
            self.delay_seconds += max(0, waited - self.delays.get(thread, 0)) / 1e9
            now[thread] = waited
        if whole:
            self.busiest = sorted(ran, key=lambda thread: self.ran.get(thread, 0) - ran[thread])[:_BUSY_THREADS]
            self.ran = ran
            self._read_switches(folder, slices)
        self.delays = now

    def _read_switches(self, folder: str, slices: dict[str, bytes]) -> None:
        """Of threads that were given a core since all were read last; the first thread's are known."""
        for thread, given in slices.items():
            if thread != str(self.pid) and self.slices.get(thread) != given:
                try:
                    self._add_switches(thread, read(f"{folder}/{thread}/status"))
                except (FileNotFoundError, ProcessLookupError):
                    continue  # ended meanwhile
        self.slices = slices
        kept = slices.keys() | {str(self.pid)}
        self.switched = {thread: told for thread, told in self.switched.items() if thread in kept}

    def _add_switches(self, thread: str, status: bytes) -> None:
        own = after(status, b"\nvoluntary_ctxt_switches:") or 0.0
        forced = after(status, b"nonvoluntary_ctxt_switches:") or 0.0
        before = self.switched.get(thread, (0.0, 0.0))
        self.switched[thread] = own, forced
        self.switches = (
            self.switches[0] + max(0.0, own - before[0]),
            self.switches[1] + max(0.0, forced - before[1]),
        )
