"""Who asks for what, and how it goes for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from analytics.inquiry import Inquiry
from analytics.latencies import quantiles_sql
from analytics.question import Command
from analytics.signals import SIGNALS
from analytics.slo import BAD, FORGIVEN
from analytics.values import number, ratio
from base.named_sql import beside

if TYPE_CHECKING:
    from analytics.answer import Answer, Exactness
    from analytics.inquiry import Reader
    from analytics.selection import Selection

COMMAND: Final = Command()
_SQL: Final = beside(__file__)


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
        engine_seconds: Seconds its requests spent in engines past the queue (prefill + decode, or compute).
        ttft_p99_seconds, e2e_p99_seconds, queue_p99_seconds: None where no request has one.
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
    engine_seconds: float
    ttft_p99_seconds: float | None
    e2e_p99_seconds: float | None
    queue_p99_seconds: float | None


@dataclass(frozen=True, slots=True)
class Tenants:
    """Tenants, most requests first.

    Attributes:
        tenants: At most the asked number.
        left_out: Tenants not listed.
        requests: Requests of all tenants.
    """

    tenants: list[TenantShare]
    left_out: int
    requests: float


def ask(store: Reader, selection: Selection, *, limit: int = 50) -> Answer[Tenants]:
    """Requests, tokens, errors and p99 per tenant; rows alone, as server metrics know no tenant."""
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    fragments: dict[str, str] = {}
    exactness: Exactness = "exact"
    for name in ("ttft", "e2e", "queue"):
        about = SIGNALS[f"{name}_seconds"]
        sql, exactness = quantiles_sql(cover, about.value, about.present, (0.99,))
        fragments[f"{name}_p99"] = f"{sql}[1]"
    asked: dict[str, Any] = {"limit": limit, "bad": list(BAD), "forgiven": list(FORGIVEN)}
    rows = inquiry.ask("shares", fragments, **asked) if cover.rows else []
    found = [_share(row) for row in rows]
    total = float(rows[0]["n_total"]) if rows else 0.0
    left_out = int(rows[0]["tenants_total"]) - len(rows) if rows else 0
    return inquiry.answer(Tenants(found, left_out, total), cover, level="rows", exactness=exactness, rows=cover.rows)


def _share(row: dict[str, Any]) -> TenantShare:
    requests, errors = float(row["n"]), float(row["errors"])
    tokens = float(row["prompt"]) + float(row["generated"])
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
        token_share=ratio(tokens, float(row["tokens_total"])),
        engine_seconds=float(row["engine_seconds"]),
        ttft_p99_seconds=number(row["ttft_p99"]),
        e2e_p99_seconds=number(row["e2e_p99"]),
        queue_p99_seconds=number(row["queue_p99"]),
    )
