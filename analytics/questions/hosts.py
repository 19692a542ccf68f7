"""What starves the engines on their machines: waiting for a CPU, a limit held against them, pressure and kills."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.question import Command
from analytics.samples import line_of
from analytics.values import moment, number, ratio
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.selection import Selection

COMMAND: Final = Command()
_GOES_BY: Final = ("instance", "deployment", "region")
"""A machine's samples know no more of whose it is."""
_SQL: Final = beside(__file__)


@dataclass(frozen=True, slots=True)
class HostRow:
    """One instance on its machine over the window. A figure that nobody measured is None.

    Attributes:
        instance: Name; empty for a machine without one.
        node: Machine.
        recording: Recording that it comes from, empty when live.
        last_sample: Time of the newest sample.
        processes: How many processes of its engine were seen.
        cpu: Cores that its processes used, per step.
        delay: Seconds a second that its threads could have run and no core was free, per step; over 1 for many threads.
        throttled: Seconds a second that its CPU limit held its tasks back, per step.
        pressure: Share of time that some task of the machine waited for a CPU, per step.
        cpu_cores, delay_ratio, throttled_ratio: The same over the window.
        quota_cores: Its CPU limit; None for none.
        stuck_ratio: Share of the samples that tell its processes' states with one stopped or waiting for a device.
        involuntary_switches_per_second, major_faults_per_second: Of all its processes.
        rss_bytes: Memory that all its processes hold, mean.
        memory_of_limit_ratio: Highest memory of its cgroup over the limit; None without one.
        oom_kills: Processes that the kernel killed for lack of memory.
        cpu_usage_ratio: Of the machine.
        cores: Of the machine.
        cpu_pressure_ratio, memory_pressure_ratio, io_pressure_ratio: Share of time that a task of the machine waited.
        network_bytes_per_second: Received and sent by its pod.
        open_files: Files that one of its processes had open when it was closest to its limit.
        open_files_limit: How many that process may have open; None where nobody says.
        open_files_process: Its name; empty where no open files were counted.
        uptime_seconds: How long the oldest of its processes had run at its newest sample.
    """

    instance: str
    node: str
    recording: str
    last_sample: datetime
    processes: int
    cpu: list[float | None]
    delay: list[float | None]
    throttled: list[float | None]
    pressure: list[float | None]
    cpu_cores: float | None
    delay_ratio: float | None
    throttled_ratio: float | None
    quota_cores: float | None
    stuck_ratio: float | None
    involuntary_switches_per_second: float | None
    major_faults_per_second: float | None
    rss_bytes: float | None
    memory_of_limit_ratio: float | None
    oom_kills: float | None
    cpu_usage_ratio: float | None
    cores: float | None
    cpu_pressure_ratio: float | None
    memory_pressure_ratio: float | None
    io_pressure_ratio: float | None
    network_bytes_per_second: float | None
    open_files: float | None
    open_files_limit: float | None
    open_files_process: str
    uptime_seconds: float | None

    @property
    def open_files_ratio(self) -> float | None:
        """Share of the open files that the process may have."""
        return ratio(self.open_files, self.open_files_limit)


@dataclass(frozen=True, slots=True)
class Hosts:
    """All instances and their machines.

    Attributes:
        step: Seconds of a step.
        times: Starts of the steps.
        hosts: Who waited most for a CPU first.
    """

    step: int
    times: list[datetime]
    hosts: list[HostRow]


def ask(store: Reader, selection: Selection, *, points: int = 120) -> Answer[Hosts]:
    """Run-queue delay, throttling, pressure, memory and kills of every instance on its machine."""
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    grid = Grid.of(selection.window, points)
    steps: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    wholes: list[dict[str, Any]] = []
    for row in inquiry.ask("hosts", step_ms=grid.step_ms):
        if row["no_slot"]:
            wholes.append(row)
        else:
            steps.setdefault(_key(row), []).append(row)
    hosts = [_row(grid, whole, steps[_key(whole)]) for whole in wholes]
    hosts.sort(
        key=lambda row: (
            -(row.oom_kills or 0.0),
            -((row.delay_ratio or 0.0) + (row.throttled_ratio or 0.0)),
            row.instance,
        )
    )
    samples = sum(int(row["samples"]) for row in wholes)
    return inquiry.answer(
        Hosts(grid.step, grid.times, hosts), cover, level="metrics", exactness="exact", rows=samples, goes_by=_GOES_BY,
        state="value" if hosts else "no_data",
    )  # fmt: skip


def _key(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(row["instance"]), str(row["node"]), str(row["recorded"])


def _row(grid: Grid, whole: Mapping[str, Any], steps: list[dict[str, Any]]) -> HostRow:
    # Of the steps in which it was seen: an instance that came late is not said to have been at rest before.
    at = {grid.at(row["slot"]) for row in steps}
    seconds = max(sum(grid.covered[place] for place in at), 1e-9)

    def rate(column: str) -> float | None:
        amount = number(whole[column])
        return None if amount is None else amount / seconds

    received, sent = rate("received_bytes"), rate("sent_bytes")
    return HostRow(
        instance=str(whole["instance"]),
        node=str(whole["node"]),
        recording=str(whole["recorded"]),
        last_sample=moment(whole["newest_ms"]),
        processes=int(whole["processes"]),
        cpu=grid.rates(line_of(steps, grid, "cpu_seconds")),
        delay=grid.rates(line_of(steps, grid, "delay_seconds")),
        throttled=grid.rates(line_of(steps, grid, "throttled_seconds")),
        pressure=line_of(steps, grid, "cpu_pressure"),
        cpu_cores=rate("cpu_seconds"),
        delay_ratio=rate("delay_seconds"),
        throttled_ratio=rate("throttled_seconds"),
        quota_cores=number(whole["quota"]),
        stuck_ratio=ratio(int(whole["stuck_samples"]), int(whole["instants"])),
        involuntary_switches_per_second=rate("involuntary"),
        major_faults_per_second=rate("majors"),
        rss_bytes=number(whole["rss"]),
        memory_of_limit_ratio=number(whole["memory_of_limit"]),
        oom_kills=number(whole["oom_kills"]),
        cpu_usage_ratio=number(whole["cpu_usage"]),
        cores=number(whole["core_count"]),
        cpu_pressure_ratio=number(whole["cpu_pressure"]),
        memory_pressure_ratio=number(whole["memory_pressure"]),
        io_pressure_ratio=number(whole["io_pressure"]),
        network_bytes_per_second=None if received is None or sent is None else received + sent,
        open_files=number(whole["files_open"]),
        open_files_limit=number(whole["files_limit"]),
        open_files_process=str(whole["files_process"]),
        uptime_seconds=number(whole["uptime"]),
    )
