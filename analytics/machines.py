"""What one instance ran on, second by second: its GPUs together, and its machine."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from analytics.values import moment, number
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from analytics.inquiry import Inquiry

_SQL: Final = beside(__file__)
_HOLDS_MS: Final = 30_000
"""A GPU of which nothing was told for so long is no part of what stands then: exporters look as seldom as that."""


@dataclass(frozen=True, slots=True)
class GpuPoint:
    """The GPUs of an instance at an instant, each by its newest sample; None is untold.

    Attributes:
        time: Of the newest of these samples.
        gpus: How many there are.
        busy: Mean of their utilizations, 0 to 1.
        slowed: Share of those that tell it that are slowed down by power, heat or hardware.
        memory: Of the fullest, 0 to 1.
        clock_hertz: Of the slowest.
        power_watts: Of all.
    """

    time: datetime
    gpus: int
    busy: float | None
    slowed: float | None
    memory: float | None
    clock_hertz: float | None
    power_watts: float | None


@dataclass(frozen=True, slots=True)
class HostPoint:
    """The machine of an instance and the instance's own processes, since the sample before; None is untold.

    Attributes:
        time: When it was taken.
        used: CPU of the machine in use, 0 to 1.
        pressed: Share of time in which some task waited for a CPU.
        cpus: CPUs that its processes kept busy.
        delayed: Seconds a second that its processes could run and waited for a CPU, in sum.
    """

    time: datetime
    used: float | None
    pressed: float | None
    cpus: float | None
    delayed: float | None


def gpus_under(inquiry: Inquiry, here: str, **where: Any) -> list[GpuPoint]:
    """The GPUs of an instance over the window of an inquiry.

    Args:
        inquiry: The question.
        here: Condition on ``instance``.
        where: Its parameter, and ``recording``.
    """
    return gpu_points(inquiry.ask("gpus", {"here": here}, _SQL, **where))


def gpu_points(rows: Iterable[Mapping[str, Any]]) -> list[GpuPoint]:
    """Samples of single GPUs in order of time, put together by the second."""
    newest: dict[str, Mapping[str, Any]] = {}
    found = []
    for row, following in pairwise([*rows, None]):
        assert row is not None  # noqa: S101 - only the last one is none
        newest[str(row["gpu"])] = row
        at = int(row["time_ms"])
        if following is None or int(following["time_ms"]) // 1000 != at // 1000:
            found.append(_together(at, [one for one in newest.values() if at - int(one["time_ms"]) < _HOLDS_MS]))
    return found


def machine_under(inquiry: Inquiry, here: str, **where: Any) -> list[HostPoint]:
    """The machine and processes of an instance over the window of an inquiry, as `gpus_under`."""
    return [
        HostPoint(
            time=moment(row["time_ms"]),
            used=number(row["used"]),
            pressed=number(row["pressed"]),
            cpus=number(row["cpus"]),
            delayed=number(row["delayed"]),
        )
        for row in inquiry.ask("hosts", {"here": here}, _SQL, **where)
    ]


def _together(at_ms: int, rows: list[Mapping[str, Any]]) -> GpuPoint:
    def told(name: str) -> list[float]:
        return [value for row in rows if (value := number(row[name])) is not None]

    busy, slowed, power = told("busy"), told("slowed"), told("power")
    return GpuPoint(
        time=moment(at_ms),
        gpus=len(rows),
        busy=sum(busy) / len(busy) if busy else None,
        slowed=sum(slowed) / len(slowed) if slowed else None,
        memory=max(told("memory"), default=None),
        clock_hertz=min(told("clock"), default=None),
        power_watts=sum(power) if power else None,
    )
