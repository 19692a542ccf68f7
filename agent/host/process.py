"""One process of an engine: CPU, run-queue delay, state, faults and memory.

Run-queue delay is the second number of ``/proc/PID/task/*/schedstat``, summed over threads: the time in which they
could have run and no core was free. An engine has hundreds of threads, most of which sleep for ever: where there are
more than a few, those that ran or waited most are read each time, and every tenth look is a full one; of those that
sleep on, a full look reads a third, in turns. What a thread waited unseen is counted when it is read. How often threads
were switched the kernel tells of each, and of a process what is its first thread's alone: of the others those that ran
are read at a full look.

How many files it has open the kernel tells everybody as the size of a folder (Linux 6.2 and later). An older one lists
them, to whom the process belongs to and to root: they are counted then, seldom, and not where they are many. Sources:
``proc(5)``, https://docs.kernel.org/scheduler/sched-stats.html
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from agent.host.reading import Kept, after, read

_THREADS: Final = 512
_FEW_THREADS: Final = 32
_BUSY_THREADS: Final = 16
_WALK_EACH: Final = 10
_TURNS: Final = 3
"""Full looks in which a thread that sleeps on is read once."""
_SELDOM: Final = 60
"""Looks from one reading to the next of what hardly changes, or is dear."""
_LISTED: Final = 2048
"""Open files that are counted one by one: each takes the kernel a microsecond or more."""
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
        ran: What each thread had run and waited at the last full look, ns.
        busiest: Threads that are read each time.
        asleep: Threads that neither ran nor waited before the last full look.
        walks: Full looks.
        walk_in: Looks until the next one.
        slices: How often each thread had been given a core at the last one, as the kernel writes it.
        switched: How often each thread had been switched when that was read last: of its own accord, and not.
        switches: The same of all threads, those that ended too.
        io_hidden: Its disk traffic is not ours to read.
        files_hidden: Its open files are not ours to count.
        files_limit: How many it may have open; None where nobody says, or where nothing bounds them.
        seldom_in: Looks until its limit is read again.
    """

    pid: int
    resource: bytes
    started: bytes = b""
    delay_seconds: float = 0.0
    delays: dict[str, int] = field(default_factory=dict)
    ran: dict[str, int] = field(default_factory=dict)
    busiest: list[str] = field(default_factory=list)
    asleep: frozenset[str] = frozenset()
    walks: int = 0
    walk_in: int = 0
    slices: dict[str, bytes] = field(default_factory=dict)
    switched: dict[str, tuple[float, float]] = field(default_factory=dict)
    switches: tuple[float, float] = (0.0, 0.0)
    io_hidden: bool = False
    files_hidden: bool = False
    files_limit: float | None = None
    seldom_in: int = 0
    _files_kept: dict[str, Kept] = field(default_factory=dict)

    def sample(self, proc: str = "/proc") -> dict[str, float]:
        """Its figures now.

        Raises:
            ProcessLookupError: It is gone, or another process has its number.
            OSError: It cannot be read.
        """
        try:
            # The name may hold spaces and brackets, so fields are counted from the last bracket.
            fields = self._read(f"{proc}/{self.pid}/stat").rpartition(b")")[2].split()
            status = self._read(f"{proc}/{self.pid}/status")
            self._add_switches(str(self.pid), status)
            self._add_delays(f"{proc}/{self.pid}/task")
        except FileNotFoundError:
            raise ProcessLookupError(self.pid) from None
        started = fields[19]
        if self.started and started != self.started:
            raise ProcessLookupError(self.pid)
        self.started = started
        found = {
            "cpu_seconds_total": (int(fields[11]) + int(fields[12])) / _TICK,
            "rss_bytes": float(int(fields[21]) * _PAGE),
            "threads": float(fields[17]),
            "stopped": float(fields[0] in {b"T", b"t"}),
            "state": float(fields[0][0]),
            "minor_faults_total": float(fields[7]),
            "major_faults_total": float(fields[9]),
            "involuntary_switches_total": self.switches[1],
            "voluntary_switches_total": self.switches[0],
            # both by the kernel's clock, so that one that was set tells nothing wrong; tenths would only take room
            "uptime_seconds": float(max(0, int(time.clock_gettime(time.CLOCK_BOOTTIME) - int(started) / _TICK))),
        }
        if self.ran:  # a kernel without schedstat tells of no thread
            found["cpu_delay_seconds_total"] = self.delay_seconds
        return found | self._disk(f"{proc}/{self.pid}/io") | self._files(f"{proc}/{self.pid}")

    def _read(self, path: str) -> bytes:
        """A file that is read at each look.

        Raises:
            OSError: It is not there any more, or not ours to read.
        """
        kept = self._files_kept.get(path)
        if kept is None:
            kept = self._files_kept[path] = Kept(path)
        return kept.read()

    def _disk(self, path: str) -> dict[str, float]:
        if self.io_hidden:
            return {}
        try:
            text = self._read(path)
        except OSError:
            self.io_hidden = True  # another user's, or a kernel without
            return {}
        found = {
            "disk_read_bytes_total": after(text, b"\nread_bytes:"),
            "disk_write_bytes_total": after(text, b"\nwrite_bytes:"),
        }
        return {name: value for name, value in found.items() if value is not None}

    def _files(self, folder: str) -> dict[str, float]:
        """Files that it has open and how many it may have, each where that is told."""
        seldom = self.seldom_in <= 0
        self.seldom_in = _SELDOM - 1 if seldom else self.seldom_in - 1
        if seldom:
            self.files_limit = _files_limit(f"{folder}/limits")
        found = {"open_files": self._open_files(f"{folder}/fd", seldom=seldom), "open_files_limit": self.files_limit}
        return {name: value for name, value in found.items() if value is not None}

    def _open_files(self, folder: str, *, seldom: bool) -> float | None:
        if self.files_hidden:
            return None
        try:
            if told := _size(folder):
                return float(told)
            if not seldom:
                return None
            with os.scandir(folder) as listed:
                count = sum(1 for _ in islice(listed, _LISTED + 1))
        except PermissionError:
            self.files_hidden = True  # another user's, on an older kernel
            return None
        except OSError:
            return None  # it ended meanwhile
        return float(count) if count <= _LISTED else None

    def _add_delays(self, folder: str) -> None:
        """Add what each thread waited since it was read last, so that a thread's end takes nothing away."""
        whole = self.walk_in <= 0 or len(self.ran) <= _FEW_THREADS
        self.walk_in = _WALK_EACH - 1 if whole else self.walk_in - 1
        asleep = self.asleep if whole and len(self.ran) > _FEW_THREADS else frozenset()
        now: dict[str, int] = {} if whole else self.delays
        ran: dict[str, int] = {}
        slices: dict[str, bytes] = {}
        for thread in islice(os.listdir(folder), _THREADS) if whole else self.busiest:  # noqa: PTH208 - names alone
            if thread in asleep and (int(thread) + self.walks) % _TURNS:
                now[thread], ran[thread], slices[thread] = self.delays[thread], self.ran[thread], self.slices[thread]
                continue
            try:
                path = f"{folder}/{thread}/schedstat"
                times = (Kept(path).read() if whole else self._read(path)).split()
                waited = int(times[1])
            except (FileNotFoundError, ProcessLookupError, IndexError):
                now.pop(thread, None)
                continue  # ended meanwhile, or a kernel without schedstat
            ran[thread] = int(times[0]) + waited
            slices[thread] = times[-1]
            self.delay_seconds += max(0, waited - self.delays.get(thread, 0)) / 1e9
            now[thread] = waited
        if whole:
            self.walks += 1
            wanted = {thread: time - self.ran.get(thread, 0) for thread, time in ran.items()}
            self.asleep = frozenset(thread for thread in self.ran if wanted.get(thread) == 0)
            self.busiest = sorted(filter(wanted.get, wanted), key=wanted.__getitem__, reverse=True)[:_BUSY_THREADS]
            read_on = {f"{folder}/{thread}/schedstat" for thread in self.busiest}
            self._files_kept = {
                path: kept for path, kept in self._files_kept.items() if path in read_on or not path.startswith(folder)
            }
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


def _size(folder: str) -> int:
    """As the kernel tells it of ``fd``: how many there are, or 0 before Linux 6.2.

    Raises:
        OSError: It is not there.
    """
    return os.stat(folder).st_size  # noqa: PTH116 - each second


def _files_limit(path: str) -> float | None:
    """The soft limit of open files, at which the next one fails."""
    try:
        fields = read(path).partition(b"\nMax open files")[2].split(None, 1)
    except OSError:
        return None  # hidden from this container
    return float(fields[0]) if fields and fields[0].isdigit() else None
