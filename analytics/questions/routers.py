"""What routers and gateways do: requests that they hand on, hold back and wait for, and the servers they deem fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from analytics.counters import FRAGMENTS
from analytics.inquiry import Inquiry
from analytics.question import Command
from analytics.values import moment, number, ratio
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.selection import Selection

COMMAND: Final = Command()
_SQL: Final = beside(__file__)


@dataclass(frozen=True, slots=True)
class RouterRow:
    """One router over the window. A figure that it does not tell is None.

    Attributes:
        instance, deployment, engine, version: Its resource; empty where unknown.
        recording: Recording that it comes from, empty when live.
        last_sample: Time of the newest sample.
        received_per_second: Requests that came, whatever became of them.
        ended_per_second: Requests that ended, well or not.
        failed_ratio: Share of those that failed.
        running: Requests that it waits for, mean.
        waiting: Requests that it holds back, mean.
        waiting_peak: The same, highest.
        in_prefill, in_decode: Of those that it waits for: before their first token and after it, mean.
        queue_mean_seconds: Mean time that it held a request back, of those that it let go, well or not.
        e2e_mean_seconds: Mean time of a request that ended.
        endpoints_healthy: Servers that it deems fit, as told last.
    """

    instance: str
    deployment: str
    engine: str
    version: str
    recording: str
    last_sample: datetime
    received_per_second: float | None
    ended_per_second: float | None
    failed_ratio: float | None
    running: float | None
    waiting: float | None
    waiting_peak: float | None
    in_prefill: float | None
    in_decode: float | None
    queue_mean_seconds: float | None
    e2e_mean_seconds: float | None
    endpoints_healthy: float | None


@dataclass(frozen=True, slots=True)
class Routers:
    """All routers whose pages were read in the window.

    Attributes:
        routers: Who hands on most first.
    """

    routers: list[RouterRow]


def ask(store: Reader, selection: Selection) -> Answer[Routers]:
    """Rates, failures, requests in flight and mean times of each router, and how many servers it deems fit."""
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    rows = inquiry.ask("routers", FRAGMENTS) if cover.samples else []
    names = sorted({str(row["name"]) for row in rows})
    times = {_key(row): row for row in inquiry.ask("routers_times", routers=names)} if rows else {}
    found = [_row(row, times.get(_key(row), {})) for row in rows]
    found.sort(key=lambda row: (-_busy(row), row.instance, row.recording))
    return inquiry.answer(
        Routers(found), cover, level="metrics", exactness="exact", rows=sum(int(row["instants"]) for row in rows),
        samples_used=cover.samples > 0,
    )  # fmt: skip


def sentence(result: Mapping[str, Any]) -> str:
    """Why the list is empty."""
    return "" if result["routers"] else "No router's or gateway's page was read: it is a target like a server."


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row["name"]), str(row["recorded"])


def _busy(row: RouterRow) -> float:
    return max(row.received_per_second or 0.0, row.ended_per_second or 0.0)


def _row(row: Mapping[str, Any], times: Mapping[str, Any]) -> RouterRow:
    covered = number(row["covered"])
    return RouterRow(
        instance=str(row["name"]),
        deployment=str(row["deployment"]),
        engine=str(row["engine"]),
        version=str(row["version"]),
        recording=str(row["recorded"]),
        last_sample=moment(row["newest_ms"]),
        received_per_second=ratio(number(row["received"]), covered),
        ended_per_second=ratio(number(row["ended"]), covered),
        failed_ratio=ratio(number(row["failed"]), number(row["judged"])),
        running=number(row["running"]),
        waiting=number(row["waiting"]),
        waiting_peak=number(row["waiting_most"]),
        in_prefill=number(row["in_prefill"]),
        in_decode=number(row["in_decode"]),
        queue_mean_seconds=number(times.get("queue_mean")),
        e2e_mean_seconds=number(times.get("e2e_mean")),
        endpoints_healthy=number(row["healthy"]),
    )
