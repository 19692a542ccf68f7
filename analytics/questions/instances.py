"""Every instance that reported or was asked in the window, with its newest state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from analytics.inquiry import Inquiry
from analytics.question import Command
from analytics.request_counts import Asked, instances_of, request_counts
from analytics.values import moment, names, number
from base.named_sql import beside

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.selection import Selection


COMMAND: Final = Command()
_SQL: Final = beside(__file__)


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """One instance as it last reported within the window.

    Attributes:
        instance, deployment, engine, region, version: Its resource; empty where unknown.
        role: ``both``, ``prefill``, ``decode`` or ``router``; empty where nobody says.
        node: Machine of its agent.
        models: Models seen.
        ranks: Data-parallel ranks seen.
        up: Whether its newest sample says up; None when it has requests and no samples, and when it left.
        asleep: Whether its weights are off the GPU, by an operator's order; None where it does not say, or left.
        left: When it left on purpose; None where it did not, or has samples since.
        left_by: Who let it go, such as ``dns:chat.serving``; empty where it did not leave.
        last_sample: Time of the newest sample.
        last_request: Arrival of the newest request.
        requests: Requests that arrived at it (rows).
        running, waiting, kv_cache_usage_ratio: Newest values, summed over models and ranks (KV: the fullest); None when
            it left.
        up_ratio: Share of scrapes that found it up, 0 to 1.
        scrape_seconds: Mean time that its metrics page took.
        recording: Recording that it comes from, empty when live.
    """

    instance: str
    deployment: str
    engine: str
    region: str
    version: str
    role: str
    node: str
    models: list[str]
    ranks: list[str]
    up: bool | None
    asleep: bool | None
    left: datetime | None
    left_by: str
    last_sample: datetime | None
    last_request: datetime | None
    requests: int
    running: float | None
    waiting: float | None
    kv_cache_usage_ratio: float | None
    up_ratio: float | None
    scrape_seconds: float | None
    recording: str


@dataclass(frozen=True, slots=True)
class Instances:
    """All instances of a window, down ones first, those that left last.

    Attributes:
        instances: One row each.
    """

    instances: list[InstanceRow]


def ask(store: Reader, selection: Selection) -> Answer[Instances]:
    """Every instance that reported or was asked in the window, with its newest state."""
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    asked = instances_of(request_counts(inquiry)) if cover.rows else {}
    found: list[InstanceRow] = []
    for row in inquiry.ask("instances_samples"):
        requests = asked.pop((str(row["name"]), str(row["recorded"])), None)
        left = moment(row["left_ms"]) if row["left_ms"] else None
        found.append(
            InstanceRow(
                instance=str(row["name"]),
                deployment=str(row["deployment"]),
                engine=str(row["engine"]),
                region=str(row["region"]),
                version=str(row["version"]),
                role=str(row["role"]),
                node=str(row["node"]),
                models=list(names([*row["models"], *(requests.models if requests else ())])),
                ranks=list(names(row["ranks"])),
                up=bool(row["is_up"]) if left is None else None,
                asleep=None if row["asleep"] is None or left is not None else bool(row["asleep"]),
                left=left,
                left_by=str(row["left_by"]) if left else "",
                last_sample=moment(row["newest_ms"]),
                last_request=moment(requests.newest_ms) if requests else None,
                requests=requests.n if requests else 0,
                running=number(row["running"]) if left is None else None,
                waiting=number(row["waiting"]) if left is None else None,
                kv_cache_usage_ratio=number(row["kv"]) if left is None else None,
                up_ratio=number(row["up_ratio"]),
                scrape_seconds=number(row["scrape_seconds"]),
                recording=str(row["recorded"]),
            )
        )
    found += [_without_samples(row) for row in asked.values()]
    found.sort(key=lambda row: (row.left is not None, row.up is not False, row.instance, row.recording))
    return inquiry.answer(
        Instances(found),
        cover,
        level="metrics" if cover.samples else "rows",
        exactness="exact",
        rows=len(found),
        samples_used=cover.samples > 0,
    )


def _without_samples(row: Asked) -> InstanceRow:
    return InstanceRow(
        instance=row.instance,
        deployment=row.deployment,
        engine=row.engine,
        region=row.region,
        version=row.version,
        role="",
        node="",
        models=list(names([*row.models])),
        ranks=list(names([*row.ranks])),
        up=None,
        asleep=None,
        left=None,
        left_by="",
        last_sample=None,
        last_request=moment(row.newest_ms),
        requests=row.n,
        running=None,
        waiting=None,
        kv_cache_usage_ratio=None,
        up_ratio=None,
        scrape_seconds=None,
        recording=row.recording,
    )
