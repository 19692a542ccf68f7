"""Who asks for what, and how it goes for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analytics.window import Answer, Filter, Window

if TYPE_CHECKING:
    from analytics.ground import Reader


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


def shares(store: Reader, window: Window, filter: Filter = Filter(), *, limit: int = 50) -> Answer[Tenants]:  # noqa: A002, B008
    """Requests, tokens, errors and p99 per tenant; rows alone, as server metrics know no tenant."""
    raise NotImplementedError
