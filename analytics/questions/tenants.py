"""Who asks for what, and how it goes for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.latencies import quantiles_sql
from analytics.question import Command
from analytics.signals import SIGNALS
from analytics.slo import BAD, FORGIVEN
from analytics.values import number, ratio
from base.named_sql import beside

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.answer import Answer, Exactness
    from analytics.inquiry import Reader
    from analytics.selection import Selection

COMMAND: Final = Command()
_SQL: Final = beside(__file__)
_ENGINE: Final = (
    "(toFloat64(prefill_seconds) + decode_seconds + compute_input_seconds + compute_infer_seconds"
    " + compute_output_seconds)"
)
"""Seconds of a request in an engine past its queue."""
_QUANTILES: Final = (0.95, 0.99)


@dataclass(frozen=True, slots=True)
class TenantShare:
    """One tenant over the window.

    Attributes:
        tenant: As stored; empty for requests without one.
        requests: Requests, weighted.
        request_share: Of all requests, 0 to 1.
        errors: Requests that ended in the service's fault.
        error_share: Of its own requests.
        forgiven: Requests that ended by the client's doing (aborts, 4xx).
        prompt_tokens, cached_tokens, completion_tokens: Sums.
        token_share: Of all prompt and completion tokens, 0 to 1; None when nobody counted tokens.
        prompt_share, completion_share: Of all prompt tokens, and of all completion tokens; None as above.
        engine_seconds: Seconds its requests spent in engines past the queue (prefill + decode, or compute).
        engine_share: Of those of all tenants; None where no engine told any.
        ttft_p95_seconds, ttft_p99_seconds, e2e_p95_seconds, e2e_p99_seconds, queue_p99_seconds: None where no request
            has one.
    """

    tenant: str
    requests: float
    request_share: float
    errors: float
    error_share: float
    forgiven: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    token_share: float | None
    prompt_share: float | None
    completion_share: float | None
    engine_seconds: float
    engine_share: float | None
    ttft_p95_seconds: float | None
    ttft_p99_seconds: float | None
    e2e_p95_seconds: float | None
    e2e_p99_seconds: float | None
    queue_p99_seconds: float | None


@dataclass(frozen=True, slots=True)
class TenantLine:
    """What one tenant asked for over time, by the arrival of its requests.

    Attributes:
        tenant: As stored; of the line of all others empty.
        others: Whether it is the line of all tenants that have none of their own.
        requests: Requests per second.
        tokens: Prompt and completion tokens per second.
        engine_seconds: Seconds in engines past the queue per second: how many requests its work kept in engines.
    """

    tenant: str
    others: bool
    requests: list[float | None]
    tokens: list[float | None]
    engine_seconds: list[float | None]


@dataclass(frozen=True, slots=True)
class Tenants:
    """Tenants, most requests first.

    Attributes:
        tenants: At most the asked number.
        left_out: Tenants not listed.
        requests: Requests of all tenants.
        fleet: All tenants as one; None without requests.
        step: Seconds of a step.
        times: Starts of the steps.
        lines: Those of most engine time (then tokens, then requests), and one of the others where there are more; None
            in steps that are not settled.
    """

    tenants: list[TenantShare]
    left_out: int
    requests: float
    fleet: TenantShare | None
    step: int
    times: list[datetime]
    lines: list[TenantLine]


def ask(store: Reader, selection: Selection, *, limit: int = 50, lines: int = 8, points: int = 120) -> Answer[Tenants]:
    """Requests, tokens, errors and percentiles per tenant; rows alone, as server metrics know no tenant.

    Args:
        store: Where to ask.
        selection: What is looked at; shares are of its requests.
        limit: Tenants that are listed.
        lines: Tenants that have a line of their own over time.
        points: About how many steps those have.
    """
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    fragments = {"engine": _ENGINE}
    exactness: Exactness = "exact"
    for name in ("ttft", "e2e", "queue"):
        about = SIGNALS[f"{name}_seconds"]
        fragments[name], exactness = quantiles_sql(cover, about.value, about.present, _QUANTILES)
    asked: dict[str, Any] = {"bad": list(BAD), "forgiven": list(FORGIVEN)}
    grid = Grid.of(selection.window, points)
    found: list[TenantShare] = []
    total, left_out, fleet = 0.0, 0, None
    over_time: list[TenantLine] = []
    if cover.rows:
        whole = inquiry.ask("shares", fragments | {"by": "''"}, limit=1, **asked)
        rows = inquiry.ask("shares", fragments | {"by": "tenant"}, limit=limit, **asked)
        found = [_share(row) for row in rows]
        fleet = _share(whole[0]) if whole else None
        total = fleet.requests if fleet else 0.0
        left_out = int(rows[0]["tenants_total"]) - len(rows) if rows else 0
        over_time = _lines(inquiry, grid, lines)
    result = Tenants(found, left_out, total, fleet, grid.step, grid.times, over_time)
    return inquiry.answer(result, cover, level="rows", exactness=exactness, rows=cover.rows)


def _lines(inquiry: Inquiry, grid: Grid, most: int) -> list[TenantLine]:
    """A line each for those of most engine time, in that order, and one for all others."""
    fragments = {"engine": _ENGINE}
    heaviest = [str(row["name"]) for row in inquiry.ask("heaviest", fragments, lines=most)]
    sums: dict[tuple[bool, str], list[list[float]]] = {
        (False, name): [grid.zeros() for _ in _AMOUNTS] for name in heaviest
    }
    for row in inquiry.ask("over_time", fragments, lines=most, step_ms=grid.step_ms):
        others = not row["own"]
        held = sums.setdefault((others, str(row["name"])), [grid.zeros() for _ in _AMOUNTS])
        for line, amount in zip(held, _AMOUNTS, strict=True):
            line[grid.at(row["slot"])] = float(row[amount])
    return [
        TenantLine(name, others, *(grid.settled(grid.rates(line), inquiry.settled_ms) for line in held))
        for (others, name), held in sums.items()
    ]


_AMOUNTS: Final = ("requests", "tokens", "engine_seconds")
"""Of a step of `TenantLine`, in its order."""


def _share(row: dict[str, Any]) -> TenantShare:
    requests, errors = float(row["n"]), float(row["errors"])
    prompt, completion, engine = float(row["prompt"]), float(row["generated"]), float(row["engine_seconds"])
    prompts, completions = float(row["prompt_total"]), float(row["generated_total"])
    (ttft_p95, ttft_p99), (e2e_p95, e2e_p99), (_, queue_p99) = (
        (number(value) for value in row[name]) for name in ("ttft", "e2e", "queue")
    )
    return TenantShare(
        tenant=str(row["name"]),
        requests=requests,
        request_share=requests / float(row["n_total"]),
        errors=errors,
        error_share=errors / requests,
        forgiven=float(row["forgiven_n"]),
        prompt_tokens=int(row["prompt"]),
        cached_tokens=int(row["cached"]),
        completion_tokens=int(row["generated"]),
        token_share=ratio(prompt + completion, prompts + completions),
        prompt_share=ratio(prompt, prompts),
        completion_share=ratio(completion, completions),
        engine_seconds=engine,
        engine_share=ratio(engine, float(row["engine_total"])),
        ttft_p95_seconds=ttft_p95,
        ttft_p99_seconds=ttft_p99,
        e2e_p95_seconds=e2e_p95,
        e2e_p99_seconds=e2e_p99,
        queue_p99_seconds=queue_p99,
    )
