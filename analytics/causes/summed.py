"""Causes of a long window: the charges that were kept of its periods, summed (`analytics.causes.keeping`).

Each period has its own account, so that what stands out of five minutes is told though a day would hide it. Charges and
the unexplained sum to the excess, over periods as over tenants.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from analytics.causes.advice import ADVICE, SHARED, advice_for, stage_of
from analytics.causes.due import PERIOD_SECONDS
from analytics.causes.evidence import Cause, Failure
from analytics.causes.harm import MOST, Harm, Pair
from analytics.causes.who import OWNER_SHARE
from analytics.slo import BAD
from base.formats import rounded
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from analytics.inquiry import Inquiry

LONG_SECONDS: Final = 7200.0
"""Length from which a window is summed of its periods."""
KEPT_SHARE: Final = 0.5
"""Share of the window's requests whose charges have to be kept."""
COLUMNS: Final = ("deployment", "model", "instance", "tenant")
"""What charges are kept by; a selection by anything else is of single requests."""
_SQL: Final = beside(__file__)
_KEPT: Final = """
    time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time <= fromUnixTimestamp64Milli({last_ms:Int64})
    AND (time, computed_at) IN
    (
        SELECT time, max(computed_at)
        FROM cause_seconds
        WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time <= fromUnixTimestamp64Milli({last_ms:Int64})
        GROUP BY time
    )"""
_ROWS: Final = 100_000
_FAILURES: Final = 50
_WHO: Final = ("tenant", "instance", "version", "gpu")


@dataclass(frozen=True, slots=True)
class Summed:
    """The sum of a window's periods.

    Attributes:
        periods: How many.
        first, end: Begin of the first and end of the last.
        requests: Of their accounts.
        excess_seconds, reference_seconds: What these took above their reference, and what that costs.
        causes: Most seconds first.
        failures: Requests that failed, by how, most first; what they began with is of shorter windows.
        harm: Whose work took whose seconds.
    """

    periods: int
    first: datetime
    end: datetime
    requests: int
    excess_seconds: float
    reference_seconds: float
    causes: list[Cause] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    harm: Harm = field(default_factory=lambda: Harm([]))


def summed(inquiry: Inquiry, rows: int) -> Summed | None:
    """The sum of what is kept of a window; None where that does not serve.

    It does not where the window is short, where it is asked about single requests or recordings, and where too little
    is kept.

    Args:
        inquiry: Whose window and selection.
        rows: Requests of the window.
    """
    selection, window = inquiry.selection, inquiry.window
    if window.seconds < LONG_SECONDS or not set(selection.chosen()) <= set(COLUMNS):
        return None
    if inquiry.filter.recording == "only":
        return None
    chosen = dict(inquiry.filter.chosen())
    only = "".join(f" AND has({{kept_{name}:Array(String)}}, {name})" for name in chosen)
    asked: dict[str, Any] = {f"kept_{name}": list(values) for name, values in chosen.items()}
    asked["last_ms"] = window.to_ms - PERIOD_SECONDS * 1000
    shape = {"kept": _KEPT, "only": only}
    (whole,) = inquiry.ask("periods", shape, _SQL, **asked)
    if not whole["periods"] or float(whole["n"]) < KEPT_SHARE * rows:
        return None
    excess = float(whole["excess"])
    charges = inquiry.ask("charges", shape, _SQL, limit=_ROWS, **asked)
    worst = {str(row["cause"]): row for row in inquiry.ask("worst", shape, _SQL, **asked)}
    end_ms = int(whole["last_ms"]) + PERIOD_SECONDS * 1000
    failures = inquiry.ask(
        "failures", None, _SQL, first_ms=int(whole["first_ms"]), end_ms=end_ms, bad=sorted(BAD), limit=_FAILURES
    )
    return Summed(
        periods=int(whole["periods"]),
        first=datetime.fromtimestamp(int(whole["first_ms"]) / 1000, UTC),
        end=datetime.fromtimestamp(end_ms / 1000, UTC),
        requests=round(float(whole["n"])),
        excess_seconds=excess,
        reference_seconds=float(whole["usual"]),
        causes=_causes(charges, worst, excess),
        failures=[_failure(row, window.from_ms) for row in failures],
        harm=_harm(charges),
    )


def _causes(charges: Sequence[Mapping[str, Any]], worst: Mapping[str, Mapping[str, Any]], excess: float) -> list[Cause]:
    by_cause: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in charges:
        by_cause[str(row["cause"])].append(row)
    found = []
    for cause, rows in by_cause.items():
        seconds = sum(float(row["lost"]) for row in rows)
        phase, _ = _top(rows, "phase")
        who = {name: top for name in _WHO if (top := _top(rows, f"by_{name}"))[0] and top[1] > OWNER_SHARE}
        times = {int(at) for row in rows for at in row["times"]}
        at = datetime.fromtimestamp(int(worst[cause]["at_ms"]) / 1000, UTC)
        requests = round(sum(float(row["n"]) for row in rows))
        found.append(
            Cause(
                cause=cause,
                stage=stage_of(cause),
                phase=phase,
                driver=str(rows[0]["driver"]),
                who={name: top for name, (top, _) in who.items()},
                seconds=seconds,
                share=seconds / excess if excess > 0 else 0.0,
                requests=requests,
                evidence=[
                    f"{requests} requests lost {rounded(seconds)} in sum, in {len(times)} periods of five minutes.",
                    f"Most of it from {at:%Y-%m-%d %H:%M} UTC on: {rounded(float(worst[cause]['lost']))}.",
                ],
                advice=advice_for(cause, ""),
                runbook=ADVICE[cause][1],
            )
        )
    return sorted(found, key=lambda one: (-one.seconds, one.cause))


def _top(rows: Iterable[Mapping[str, Any]], column: str) -> tuple[str, float]:
    """The value of a column that lost most, and its share."""
    sums: dict[str, float] = defaultdict(float)
    for row in rows:
        sums[str(row[column])] += float(row["lost"])
    top = max(sums, key=lambda name: sums[name])
    return top, sums[top] / max(sum(sums.values()), 1e-9)


def _harm(charges: Sequence[Mapping[str, Any]]) -> Harm:
    lost: dict[tuple[str, str, str], tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    nobodys = 0.0
    for row in charges:
        cause, driver = str(row["cause"]), str(row["by_tenant"])
        if cause not in SHARED:
            continue
        if not driver:
            nobodys += float(row["lost"])
            continue
        seconds, n = lost[driver, str(row["tenant"]), cause]
        lost[driver, str(row["tenant"]), cause] = seconds + float(row["lost"]), n + float(row["n"])
    pairs = [Pair(*key, seconds=seconds, requests=round(n)) for key, (seconds, n) in lost.items()]
    pairs.sort(key=lambda pair: (-pair.seconds, pair.driver, pair.victim, pair.cause))
    return Harm(pairs[:MOST], sum(pair.seconds for pair in pairs[MOST:]), nobodys)


def _failure(row: Mapping[str, Any], from_ms: int) -> Failure:
    count = int(row["n"])
    tops = {"tenant": row["tenants"], "instance": row["instances"]}
    return Failure(
        outcome=str(row["outcome"]),
        error_type=str(row["error_type"]),
        who={name: str(top[0]) for name, top in tops.items() if top[0] and top[1] > OWNER_SHARE * count},
        requests=count,
        since_seconds=(int(row["first_ms"]) - from_ms) / 1000,
    )
